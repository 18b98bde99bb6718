//! What a spec begins with: upstream's default for Linux, or an administrator's file.

use serde_json::Value;
use types::platform::Platform;
use types::{Error, Namespace, Result};

use super::document::Document;
use crate::config::Handler;

/// A file larger than this is no spec.
const LIMIT: u64 = 16 << 20;
/// What is in the environment of every process.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The spec that the container `id` begins with.
pub(super) fn container(id: &str, handler: &Handler) -> Result<Document> {
    let mut document = if handler.base_runtime_spec.is_empty() {
        let mut document = default(id)?;
        document.process.rlimits.clear();
        document
    } else {
        // The file may set limits, a filter and a profile; they stay.
        let mut document = load(&handler.base_runtime_spec)?;
        document.linux.cgroups_path = format!("/{}/{id}", crate::cri::NAMESPACE);
        document
    };
    document.without_mount("/run");
    document.root.path = "rootfs".to_owned();
    document.env(&[PATH.to_owned()]);
    // Said by the request.
    document.process.no_new_privileges = false;
    Ok(document)
}

/// The spec that the sandbox `id` begins with.
pub(super) fn sandbox(id: &str) -> Result<Document> {
    let mut document = default(id)?;
    document.process.rlimits.clear();
    document.without_mount("/run");
    document.root.path = "rootfs".to_owned();
    Ok(document)
}

fn default(id: &str) -> Result<Document> {
    let namespace: Namespace = crate::cri::NAMESPACE.parse()?;
    let platform = Platform { os: "linux".to_owned(), ..Platform::host() };
    let spec = types::oci::spec::Spec::default_for(&platform, &namespace, id);
    let encoded = serde_json::to_value(spec).and_then(serde_json::from_value);
    encoded.map_err(|e| Error::internal(format!("encode the default spec: {e}")))
}

fn load(path: &str) -> Result<Document> {
    use std::io::Read;
    let doing = || format!("can't load base OCI spec {path:?}");
    let failed = |e: std::io::Error| Error::from(e).context(doing());
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LIMIT).read_to_end(&mut text).map_err(failed)?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|e| Error::invalid(e.to_string()).context(doing()))?;
    from_value(value).map_err(|e| e.context(doing()))
}

/// A spec of somebody else, as one that can be changed.
pub(super) fn from_value(mut value: Value) -> Result<Document> {
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|e| Error::invalid(format!("decode OCI spec: {e}")))
}

/// A spec as it is written.
pub(super) fn to_value(document: &Document) -> Result<Value> {
    serde_json::to_value(document).map_err(|e| Error::internal(format!("encode OCI spec: {e}")))
}

/// To Go a null is a field that is not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_limits_and_what_nobody_knows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.json");
        let text = r#"{"ociVersion":"1.0.2","process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":9,"soft":8}],"consoleSize":{"height":1},
            "noNewPrivileges":true,"capabilities":null},"mounts":[{"destination":"/run/","type":"tmpfs"}],"linux":{"timeOffsets":{"x":1},
            "cgroupsPath":"/evil","resources":{"pids":{"limit":7}}},"vm":{"a":[1]}}"#;
        std::fs::write(&path, text).unwrap();
        let handler = Handler { base_runtime_spec: path.display().to_string(), ..Handler::default() };
        let spec = to_value(&container("c1", &handler).unwrap()).unwrap();
        assert_eq!(spec["process"]["rlimits"][0]["hard"], 9);
        assert_eq!(spec["process"]["consoleSize"]["height"], 1);
        assert_eq!(spec["linux"]["timeOffsets"]["x"], 1);
        assert_eq!(spec["linux"]["resources"]["pids"]["limit"], 7);
        assert_eq!(spec["linux"]["cgroupsPath"], "/k8s.io/c1");
        assert_eq!(spec["vm"]["a"][0], 1);
        assert!(spec.get("mounts").is_none() && spec["process"].get("noNewPrivileges").is_none());
    }

    #[test]
    fn a_file_that_is_no_spec_is_named() {
        let handler = Handler { base_runtime_spec: "/nope.json".to_owned(), ..Handler::default() };
        let error = container("c1", &handler).unwrap_err().to_string();
        assert!(error.starts_with("can't load base OCI spec \"/nope.json\""), "{error}");
    }
}
