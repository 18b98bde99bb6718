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
    files.push(proto.join("cri/runtime.proto"));
    let descriptors = protox::compile(&files, [proto])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("grpc.rs")
        .compile_fds_with_config(descriptors, config())?;
    lists(proto)
}

/// Servers whose lists are encoded by `api::encode`, beside those that answer with messages.
fn lists(proto: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    let mut config = config();
    for (service, lists) in LISTS {
        files.push(proto.join(format!("services/{service}/v1/{service}.proto")));
        for list in lists {
            config.extern_path(
                format!(".containerd.services.{service}.v1.{list}"),
                "::api::encode::Encoded".to_owned(),
            );
        }
    }
    let out = Path::new(&std::env::var("OUT_DIR")?).join("lists");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .out_dir(out)
        .include_file("lists.rs")
        .compile_fds_with_config(protox::compile(&files, [proto])?, config)?;
    Ok(())
}

/// The services with long lists, and the messages of these.
const LISTS: [(&str, &[&str]); 3] = [
    ("containers", &["ListContainersResponse", "ListContainerMessage"]),
    ("images", &["ListImagesResponse"]),
    ("snapshots", &["ListSnapshotsResponse"]),
];

/// Messages are `api`'s.
fn config() -> tonic_prost_build::Config {
    let mut config = tonic_prost_build::Config::new();
    config.extern_path(".containerd.types", "::api::containerd::types");
    for service in SERVICES {
        config.extern_path(
            format!(".containerd.services.{service}.v1"),
            format!("::api::containerd::services::{service}::v1"),
        );
    }
    config.extern_path(".containerdrs.services.diagnosis.v1", "::api::containerdrs::services::diagnosis::v1");
    config.extern_path(".runtime.v1", "::api::cri");
    config.extern_path(".containerd.v1.types", "::api::containerd::v1::types");
    config.extern_path(".google.rpc", "::api::google::rpc");
    config
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
