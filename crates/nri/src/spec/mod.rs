//! OCI specs: [`adjust`] does to one what plugins ask for, [`describe()`] says what is in one.
//!
//! Specs are JSON here, as records keep them: what is not adjusted stays as it is, known or not.

mod describe;
mod edit;
mod limits;
mod mounts;
mod process;

use std::path::Path;

use serde_json::{Map, Value, json};
use types::{Error, Result, ResultExt};

use crate::owners::removal;
use crate::wire::{
    ContainerAdjustment, LinuxContainerAdjustment, LinuxDevice, LinuxMemoryPolicy, LinuxRdt, LinuxSeccomp,
    MpolFlag, MpolMode,
};
use edit::{list, object, remove, set};

pub use describe::{describe, namespaces, resources};

/// What an adjustment needs that is not in it.
pub struct Tools<'a> {
    /// Gives a spec the devices of these names (CDI).
    pub inject: &'a dyn Fn(&mut Value, &[String]) -> Result<()>,
    /// The limits of a class of block I/O, as the spec's `blockIO`.
    pub block_io: &'a dyn Fn(&str) -> Result<Value>,
    /// How mounts below a path of the host are propagated: `shared`, `slave`, or neither.
    pub propagation: &'a dyn Fn(&Path) -> Result<Propagation>,
    /// Whether limits of huge pages are left out.
    pub without_hugepages: bool,
}

/// How mounts are propagated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the host.
    Slave,
    /// Not at all.
    Private,
}

/// Does to a spec what plugins ask for. After an error the spec is not to be used.
pub fn adjust(spec: &mut Value, asked: &ContainerAdjustment, tools: &Tools<'_>) -> Result<()> {
    texts(spec, "/annotations", &asked.annotations)?;
    process::env(spec, &asked.env)?;
    if !asked.args.is_empty() {
        set(spec, "/process/args", json!(asked.args))?;
    }
    if let Some(hooks) = &asked.hooks {
        process::hooks(spec, hooks)?;
    }
    if !asked.cdi_devices.is_empty() {
        let names: Vec<_> = asked.cdi_devices.iter().map(|device| device.name.clone()).collect();
        (tools.inject)(spec, &names)?;
    }
    if let Some(asked) = &asked.linux {
        linux(spec, asked, tools)?;
    }
    mounts::adjust(spec, &asked.mounts, tools).context(|| "failed to adjust mounts in OCI Spec")?;
    process::rlimits(spec, &asked.rlimits)
}

fn linux(spec: &mut Value, asked: &LinuxContainerAdjustment, tools: &Tools<'_>) -> Result<()> {
    for device in &asked.devices {
        self::device(spec, device)?;
    }
    if !asked.cgroups_path.is_empty() {
        set(spec, "/linux/cgroupsPath", json!(asked.cgroups_path))?;
    }
    if let Some(score) = asked.oom_score_adj {
        set(spec, "/process/oomScoreAdj", json!(score.value))?;
    }
    process::priority(spec, asked.io_priority.as_ref())?;
    process::scheduler(spec, asked.scheduler.as_ref())?;
    if let Some(policy) = &asked.seccomp_policy {
        set(spec, "/linux/seccomp", seccomp(policy))?;
    }
    for namespace in &asked.namespaces {
        let kind = removal(&namespace.r#type).unwrap_or(&namespace.r#type);
        let all = list(spec, "/linux/namespaces")?;
        all.retain(|had| had.get("type").and_then(Value::as_str) != Some(kind));
        if removal(&namespace.r#type).is_none() {
            all.push(with_text(json!({"type": kind}), "path", &namespace.path));
        }
    }
    texts(spec, "/linux/sysctl", &asked.sysctl)?;
    net_devices(spec, asked)?;
    if let Some(policy) = &asked.memory_policy {
        memory_policy(spec, policy)?;
    }
    if let Some(resources) = &asked.resources {
        limits::adjust(spec, resources, tools)?;
    }
    if let Some(asked) = &asked.rdt {
        rdt(spec, asked)?;
    }
    Ok(())
}

/// A map of texts; a key that is marked is removed, and may be set anew.
fn texts(spec: &mut Value, at: &str, asked: &std::collections::BTreeMap<String, String>) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let map = object(spec, at)?;
    asked.keys().filter_map(|key| removal(key)).for_each(|key| drop(map.shift_remove(key)));
    for (key, value) in asked.iter().filter(|(key, _)| removal(key).is_none()) {
        map.insert(key.clone(), json!(value));
    }
    Ok(())
}

fn device(spec: &mut Value, asked: &LinuxDevice) -> Result<()> {
    let path = removal(&asked.path).unwrap_or(&asked.path);
    let all = list(spec, "/linux/devices")?;
    all.retain(|had| had.get("path").and_then(Value::as_str) != Some(path));
    if removal(&asked.path).is_some() {
        return Ok(());
    }
    let mut device = json!({"path": path, "type": asked.r#type, "major": asked.major, "minor": asked.minor});
    for (key, value) in [
        ("fileMode", asked.file_mode.map(|mode| mode.value)),
        ("uid", asked.uid.map(|uid| uid.value)),
        ("gid", asked.gid.map(|gid| gid.value)),
    ] {
        if let (Some(value), Some(device)) = (value, device.as_object_mut()) {
            device.insert(key.to_owned(), json!(value));
        }
    }
    all.push(device);
    let access = if asked.r#type == "b" { "rwm" } else { "rw" };
    list(spec, "/linux/resources/devices")?.push(json!({
        "allow": true, "type": asked.r#type, "major": asked.major, "minor": asked.minor, "access": access,
    }));
    Ok(())
}

fn net_devices(spec: &mut Value, asked: &LinuxContainerAdjustment) -> Result<()> {
    if asked.net_devices.is_empty() {
        return Ok(());
    }
    let all = object(spec, "/linux/netDevices")?;
    asked.net_devices.keys().filter_map(|key| removal(key)).for_each(|key| drop(all.shift_remove(key)));
    for (key, device) in asked.net_devices.iter().filter(|(key, _)| removal(key).is_none()) {
        all.insert(key.clone(), with_text(json!({}), "name", &device.name));
    }
    Ok(())
}

fn seccomp(policy: &LinuxSeccomp) -> Value {
    let mut made = Map::from_iter([("defaultAction".to_owned(), json!(policy.default_action))]);
    if let Some(errno) = policy.default_errno {
        made.insert("defaultErrnoRet".to_owned(), json!(errno.value));
    }
    for (key, texts) in [("architectures", &policy.architectures), ("flags", &policy.flags)] {
        if !texts.is_empty() {
            made.insert(key.to_owned(), json!(texts));
        }
    }
    for (key, text) in
        [("listenerPath", &policy.listener_path), ("listenerMetadata", &policy.listener_metadata)]
    {
        if !text.is_empty() {
            made.insert(key.to_owned(), json!(text));
        }
    }
    let syscalls = policy.syscalls.iter().map(|syscall| {
        let argument = |argument: &crate::wire::LinuxSeccompArg| {
            json!({"index": argument.index, "value": argument.value, "valueTwo": argument.value_two, "op": argument.op})
        };
        let mut made = json!({"names": syscall.names, "action": syscall.action});
        if let (Some(errno), Some(made)) = (syscall.errno_ret, made.as_object_mut()) {
            made.insert("errnoRet".to_owned(), json!(errno.value));
        }
        if let (false, Some(made)) = (syscall.args.is_empty(), made.as_object_mut()) {
            made.insert("args".to_owned(), syscall.args.iter().map(argument).collect());
        }
        made
    });
    let syscalls: Vec<Value> = syscalls.collect();
    if !syscalls.is_empty() {
        made.insert("syscalls".to_owned(), Value::Array(syscalls));
    }
    Value::Object(made)
}

fn memory_policy(spec: &mut Value, asked: &LinuxMemoryPolicy) -> Result<()> {
    let unknown = |what: &str| Error::invalid(format!("memory policy: unknown {what}"));
    let mode = MpolMode::try_from(asked.mode).map_err(|_| unknown("mode"))?;
    let flags = asked.flags.iter().map(|flag| {
        let flag = MpolFlag::try_from(*flag).map_err(|_| unknown("flag"))?;
        Ok(json!(flag.as_str_name()))
    });
    let flags = flags.collect::<Result<Vec<_>>>()?;
    let mut policy = with_text(json!({"mode": mode.as_str_name()}), "nodes", &asked.nodes);
    if let (false, Some(policy)) = (flags.is_empty(), policy.as_object_mut()) {
        policy.insert("flags".to_owned(), Value::Array(flags));
    }
    set(spec, "/linux/memoryPolicy", policy)
}

fn rdt(spec: &mut Value, asked: &LinuxRdt) -> Result<()> {
    if asked.remove {
        remove(spec, "/linux/intelRdt");
    }
    if let Some(class) = &asked.clos_id {
        set(spec, "/linux/intelRdt/closID", json!(class.value))?;
    }
    if let Some(schemata) = &asked.schemata {
        set(spec, "/linux/intelRdt/schemata", json!(schemata.value))?;
    }
    if let Some(enable) = asked.enable_monitoring {
        set(spec, "/linux/intelRdt/enableMonitoring", json!(enable.value))?;
    }
    Ok(())
}

/// With a text, unless it is empty.
fn with_text(mut value: Value, key: &str, text: &str) -> Value {
    if let (false, Some(map)) = (text.is_empty(), value.as_object_mut()) {
        map.insert(key.to_owned(), json!(text));
    }
    value
}

#[cfg(test)]
mod tests;
