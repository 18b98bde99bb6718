//! What a device changes in a spec.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, Result};

use super::yaml;
use crate::spec::document::{Device, Document, Mount};
use crate::spec::{devices, path};

/// `containerEdits`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    #[serde(deserialize_with = "yaml::texts")]
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<Hook>,
    net_devices: Vec<NetDevice>,
    intel_rdt: Option<Value>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bind {
    host_path: String,
    container_path: String,
    #[serde(default, deserialize_with = "yaml::texts")]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default, deserialize_with = "yaml::texts")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "yaml::texts")]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

/// When the runtime executes something.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Changes a spec.
pub(super) fn apply(document: &mut Document, edits: &Edits) -> Result<()> {
    document.env(&edits.env);
    for node in &edits.device_nodes {
        add_node(document, node)?;
    }
    for device in &edits.net_devices {
        let devices = document.linux.rest.entry("netDevices").or_insert_with(|| json!({}));
        if let Value::Object(devices) = devices {
            devices.insert(device.host_interface_name.clone(), json!({ "name": device.name }));
        }
    }
    if !edits.mounts.is_empty() {
        for mount in &edits.mounts {
            add_mount(document, mount);
        }
        document.mounts.sort_by_key(|mount| path::clean(&mount.destination).matches('/').count());
    }
    for hook in &edits.hooks {
        add_hook(document, hook)?;
    }
    if let Some(rdt) = &edits.intel_rdt {
        document.linux.intel_rdt = rdt.clone();
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        let groups = &mut document.process.user.additional_gids;
        if !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    Ok(())
}

/// What a file does not say of a node is asked of the host's.
fn add_node(document: &mut Document, node: &Node) -> Result<()> {
    let outside = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let known = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    let host =
        if known { None } else { devices::of_host(Path::new(outside), &node.path)?.into_iter().next() };
    let host = host.unwrap_or_default();
    if !known && !node.kind.is_empty() && node.kind != host.kind {
        let text = format!(
            "CDI device ({:?}, {outside:?}), host type mismatch ({}, {})",
            node.path, node.kind, host.kind
        );
        return Err(Error::invalid(text));
    }
    let user = &document.process.user;
    let owner = |id: u32| (id > 0).then_some(id);
    let device = Device {
        path: node.path.clone(),
        kind: if known { node.kind.clone() } else { host.kind },
        major: if known { node.major } else { host.major },
        minor: if known { node.minor } else { host.minor },
        file_mode: node.file_mode.or(host.file_mode),
        uid: node.uid.or(owner(user.uid)),
        gid: node.gid.or(owner(user.gid)),
    };
    document.linux.devices.retain(|had| had.path != device.path);
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    if device.kind == "b" || device.kind == "c" {
        devices::add(document, device, access);
    } else {
        document.linux.devices.push(device);
    }
    Ok(())
}

fn add_mount(document: &mut Document, mount: &Bind) {
    document.mounts.retain(|had| had.destination != mount.container_path);
    document.mounts.push(Mount {
        destination: mount.container_path.clone(),
        kind: mount.kind.clone(),
        source: mount.host_path.clone(),
        options: mount.options.clone(),
        ..Mount::default()
    });
}

fn add_hook(document: &mut Document, hook: &Hook) -> Result<()> {
    if !HOOKS.contains(&hook.hook_name.as_str()) {
        return Err(Error::invalid(format!("unknown hook name {:?}", hook.hook_name)));
    }
    let mut entry = json!({ "path": hook.path });
    if !hook.args.is_empty() {
        entry["args"] = json!(hook.args);
    }
    if !hook.env.is_empty() {
        entry["env"] = json!(hook.env);
    }
    if let Some(timeout) = hook.timeout {
        entry["timeout"] = json!(timeout);
    }
    match document.hooks.entry(&hook.hook_name).or_insert_with(|| json!([])) {
        Value::Array(hooks) => hooks.push(entry),
        other => *other = json!([entry]),
    }
    Ok(())
}
