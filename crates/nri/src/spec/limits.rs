//! What is adjusted of the limits.

use serde_json::{Value, json};
use types::{Result, ResultExt};

use super::Tools;
use super::edit::{list, object, remove, set};
use crate::wire::{LinuxCpu, LinuxMemory, LinuxResources};

/// Sets what is said; what is not said stays.
pub fn adjust(spec: &mut Value, asked: &LinuxResources, tools: &Tools<'_>) -> Result<()> {
    if let Some(asked) = &asked.cpu {
        cpu(spec, asked)?;
    }
    if let Some(asked) = &asked.memory {
        memory(spec, asked)?;
    }
    for limit in asked.hugepage_limits.iter().filter(|_| !tools.without_hugepages) {
        let all = list(spec, "/linux/resources/hugepageLimits")?;
        all.retain(|had| had.get("pageSize").and_then(Value::as_str) != Some(&limit.page_size));
        all.push(json!({"pageSize": limit.page_size, "limit": limit.limit}));
    }
    if !asked.unified.is_empty() {
        let unified = object(spec, "/linux/resources/unified")?;
        unified.extend(asked.unified.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    // Less than none is no limit.
    if let Some(pids) = asked.pids.filter(|pids| pids.limit > -1) {
        set(spec, "/linux/resources/pids/limit", json!(pids.limit))?;
    }
    for rule in &asked.devices {
        let mut made = json!({"allow": rule.allow, "type": rule.r#type, "access": rule.access});
        for (key, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let (Some(number), Some(made)) = (number, made.as_object_mut()) {
                made.insert(key.to_owned(), json!(number.value));
            }
        }
        list(spec, "/linux/resources/devices")?.push(made);
    }
    classes(spec, asked, tools)
}

fn cpu(spec: &mut Value, asked: &LinuxCpu) -> Result<()> {
    let said = [
        ("period", asked.period.map(|v| json!(v.value))),
        ("quota", asked.quota.map(|v| json!(v.value))),
        ("shares", asked.shares.map(|v| json!(v.value))),
        ("cpus", (!asked.cpus.is_empty()).then(|| json!(asked.cpus))),
        ("mems", (!asked.mems.is_empty()).then(|| json!(asked.mems))),
        ("realtimeRuntime", asked.realtime_runtime.map(|v| json!(v.value))),
        ("realtimePeriod", asked.realtime_period.map(|v| json!(v.value))),
    ];
    for (key, value) in said.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        set(spec, &format!("/linux/resources/cpu/{key}"), value)?;
    }
    Ok(())
}

/// A limit of memory is one of swap as well, as upstream has it, unless that is said.
fn memory(spec: &mut Value, asked: &LinuxMemory) -> Result<()> {
    let limit = asked.limit.map(|limit| limit.value).filter(|limit| *limit != 0);
    let swap = asked.swap.map(|swap| swap.value).or(limit);
    let said = [
        ("limit", limit.map(|v| json!(v))),
        ("swap", swap.map(|v| json!(v))),
        ("reservation", asked.reservation.map(|v| json!(v.value))),
        ("kernel", asked.kernel.map(|v| json!(v.value))),
        ("kernelTCP", asked.kernel_tcp.map(|v| json!(v.value))),
        ("swappiness", asked.swappiness.map(|v| json!(v.value))),
        ("disableOOMKiller", asked.disable_oom_killer.map(|v| json!(v.value))),
        ("useHierarchy", asked.use_hierarchy.map(|v| json!(v.value))),
    ];
    for (key, value) in said.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        set(spec, &format!("/linux/resources/memory/{key}"), value)?;
    }
    Ok(())
}

/// Classes; the empty one takes away.
fn classes(spec: &mut Value, asked: &LinuxResources, tools: &Tools<'_>) -> Result<()> {
    if let Some(class) = &asked.blockio_class {
        let at = "/linux/resources/blockIO";
        match class.value.as_str() {
            "" => remove(spec, at),
            class => {
                let limits = (tools.block_io)(class);
                set(spec, at, limits.context(|| "failed to adjust BlockIO class in OCI Spec")?)?;
            }
        }
    }
    if let Some(class) = &asked.rdt_class {
        match class.value.as_str() {
            "" => remove(spec, "/linux/intelRdt"),
            class => set(spec, "/linux/intelRdt", json!({"closID": class}))?,
        }
    }
    Ok(())
}
