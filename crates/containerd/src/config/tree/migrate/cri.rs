//! 2 -> 3: the section of CRI becomes three, of its images, its runtime and its server.
//!
//! What the new sections say already wins over what the old one said.

use toml::{Table, Value};

use super::super::plugins;

const OLD: &str = "io.containerd.grpc.v1.cri";
const IMAGES: &str = "io.containerd.cri.v1.images";
const RUNTIME: &str = "io.containerd.cri.v1.runtime";

/// Keys that stay where they are.
const SERVER: &[&str] = &[
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
];
/// Keys that go to the images' section under the same name.
const IMAGE: &[&str] = &[
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
];
/// Keys of `containerd` that go there, too.
const UNPACK: &[&str] = &["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];

/// Splits the section.
pub fn split(config: &mut Table) {
    let Some(plugins) = plugins(config) else { return };
    let Some(Value::Table(old)) = plugins.get_mut(OLD) else { return };
    let old = std::mem::take(old);
    if let Some(images) = section(plugins, IMAGES) {
        to_images(&old, images);
    }
    if let Some(runtime) = section(plugins, RUNTIME) {
        to_runtime(&old, runtime);
    }
    let server: Table = old.into_iter().filter(|(key, _)| SERVER.contains(&key.as_str())).collect();
    plugins.insert(OLD.into(), server.into());
}

fn section<'a>(plugins: &'a mut Table, uri: &str) -> Option<&'a mut Table> {
    plugins.entry(uri).or_insert_with(|| Table::new().into()).as_table_mut()
}

fn to_images(old: &Table, images: &mut Table) {
    if let Some(sandbox) = old.get("sandbox_image") {
        let pinned = images.entry("pinned_images").or_insert_with(|| Table::new().into());
        if let Value::Table(pinned) = pinned {
            pinned.insert("sandbox".into(), sandbox.clone());
        }
    }
    let containerd = old.get("containerd").and_then(Value::as_table);
    let moved = IMAGE.iter().map(|key| (*key, old.get(*key)));
    // Upstream forgets these if no runtime is configured, and with them the snapshotter of the whole node.
    let unpack = UNPACK.iter().map(|key| (*key, containerd.and_then(|containerd| containerd.get(*key))));
    for (key, value) in moved.chain(unpack) {
        if let Some(value) = value {
            images.insert(key.into(), value.clone());
        }
    }
}

fn to_runtime(old: &Table, runtime: &mut Table) {
    for (key, value) in old {
        let elsewhere =
            SERVER.contains(&key.as_str()) || IMAGE.contains(&key.as_str()) || key == "sandbox_image";
        if !elsewhere && !matches!(key.as_str(), "cni" | "containerd") {
            runtime.entry(key).or_insert_with(|| value.clone());
        }
    }
    if let Some(Value::Table(old)) = old.get("cni")
        && let Some(cni) = section(runtime, "cni")
    {
        cni_directories(old, cni);
    }
    if let Some(Value::Table(old)) = old.get("containerd")
        && let Some(containerd) = section(runtime, "containerd")
    {
        for (key, value) in old.iter().filter(|(key, _)| !UNPACK.contains(&key.as_str())) {
            containerd.entry(key).or_insert_with(|| value.clone());
        }
        sandboxers(containerd);
    }
}

/// One directory of plugins became a list of them.
fn cni_directories(old: &Table, cni: &mut Table) {
    for (key, value) in old {
        match key.as_str() {
            "bin_dir" if old.contains_key("bin_dirs") => {}
            "bin_dir" => drop(cni.entry("bin_dirs").or_insert_with(|| Value::Array(vec![value.clone()]))),
            _ => drop(cni.entry(key).or_insert_with(|| value.clone())),
        }
    }
}

fn sandboxers(containerd: &mut Table) {
    let Some(Value::Table(runtimes)) = containerd.get_mut("runtimes") else { return };
    for runtime in runtimes.iter_mut().filter_map(|(_, runtime)| runtime.as_table_mut()) {
        if !runtime.contains_key("sandboxer")
            && let Some(mode) = runtime.remove("sandbox_mode")
        {
            runtime.insert("sandboxer".into(), mode);
        }
    }
}
