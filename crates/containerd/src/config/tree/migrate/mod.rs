//! Older versions, brought to the current one step by step.
//!
//! | step   | what changes                                                                                   |
//! | ------ | ---------------------------------------------------------------------------------------------- |
//! | 1 -> 2 | plugins get full names (`names`)                                                               |
//! | 2 -> 3 | the one section of CRI becomes three (`cri`); others are renamed or split (`renamed`)          |
//! | 3 -> 4 | listeners, which had sections of their own, become plugins (`servers`)                         |
//!
//! Upstream repeats the renaming of plugins at each step, so that a file which says 3 but has a section of 2 is
//! understood; the result is the same here, where it is done once.

mod cri;
mod names;
mod servers;

use toml::{Table, Value};

use super::{CURRENT, Findings, plugins};

/// Brings `config`, which is in `version`, to the current one.
pub fn to_current(config: &mut Table, version: i64, findings: &mut Findings) {
    if version < 2 {
        names::lengthen(config, findings);
    }
    if version < CURRENT {
        renamed(config);
        cri::split(config);
        servers::to_plugins(config, findings);
    }
}

/// Plugins that have another name now, and a setting that moved.
fn renamed(config: &mut Table) {
    let Some(plugins) = plugins(config) else { return };
    for (old, new) in [
        ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"),
        ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups"),
    ] {
        if let Some(section) = plugins.remove(old) {
            plugins.insert(new.into(), section);
        }
    }
    let sched_core = plugins
        .get_mut("io.containerd.runtime.v2.task")
        .and_then(Value::as_table_mut)
        .and_then(|task| task.remove("sched_core"));
    if sched_core == Some(Value::Boolean(true)) {
        let shims = plugins.entry("io.containerd.shim.v1.manager").or_insert_with(|| Table::new().into());
        let env =
            shims.as_table_mut().map(|shims| shims.entry("env").or_insert_with(|| Value::Array(Vec::new())));
        if let Some(Value::Array(env)) = env {
            env.push("SCHED_CORE=1".into());
        }
    }
}
