//! Compiles the protocol texts below `proto/` to Rust messages, without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(Path::new("proto"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    let mut config = prost_build::Config::new();
    for file in descriptors.file.iter().filter(|file| file.package() == CRI) {
        for message in &file.message_type {
            json(&mut config, message);
        }
    }
    config
        .bytes([
            ".containerd.services.content.v1.WriteContentRequest.data",
            ".containerd.services.content.v1.ReadContentResponse.data",
            ".containerd.types.transfer.Data.data",
        ])
        .btree_map(["."])
        .enable_type_names()
        .include_file("api.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The package of Kubernetes' runtime interface. Its messages are also JSON: in records, and in what verbose answers say.
const CRI: &str = "runtime.v1";

/// Has a message read and written as Go's encoding/json does: proto's names, numbers for enums, nothing for what is empty.
fn json(config: &mut prost_build::Config, message: &prost_types::DescriptorProto) {
    use prost_types::field_descriptor_proto::{Label, Type};
    let path = format!(".{CRI}.{}", message.name());
    config.message_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(&path, "#[serde(default)]");
    for field in &message.field {
        let path = format!("{path}.{}", field.name());
        config.field_attribute(&path, "#[serde(skip_serializing_if = \"crate::json::is_default\")]");
        if field.name().contains(|c: char| c.is_ascii_uppercase()) {
            // Rust's name is another one.
            config.field_attribute(&path, format!("#[serde(rename = \"{}\")]", field.name()));
        }
        let lists = field.label() == Label::Repeated;
        if lists {
            config.field_attribute(&path, "#[serde(deserialize_with = \"crate::json::null_is_default\")]");
        } else if field.r#type() == Type::Bytes {
            config.field_attribute(&path, "#[serde(with = \"crate::json::text\")]");
        }
    }
}

fn collect(dir: &Path, into: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}
