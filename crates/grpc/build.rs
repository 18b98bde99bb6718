//! Generates tonic clients and servers over the messages of `api`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = Path::new("../api/proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let mut files: Vec<_> = std::fs::read_dir(proto.join("services"))?
        .map(|entry| Ok(entry?.path().join("v1")))
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|dir| dir.is_dir())
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [proto])?;
    let mut config = tonic_prost_build::Config::new();
    config.extern_path(".containerd.types", "::api::containerd::types");
    for service in SERVICES {
        config.extern_path(
            format!(".containerd.services.{service}.v1"),
            format!("::api::containerd::services::{service}::v1"),
        );
    }
    config.extern_path(".containerdrs.services.diagnosis.v1", "::api::containerdrs::services::diagnosis::v1");
    config.extern_path(".containerd.v1.types", "::api::containerd::v1::types");
    config.extern_path(".google.rpc", "::api::google::rpc");
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("grpc.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

const SERVICES: [&str; 15] = [
    "containers",
    "content",
    "diff",
    "events",
    "images",
    "introspection",
    "leases",
    "mounts",
    "namespaces",
    "sandbox",
    "snapshots",
    "streaming",
    "tasks",
    "transfer",
    "version",
];
