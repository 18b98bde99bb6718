//! Shim processes: `io.containerd.shim.v1.manager`, `io.containerd.runtime.v2.task` and the timeouts.

use std::time::Duration;

use super::section::Section;
use super::tree::duration;

/// Settings of shims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shims {
    /// Additional environment, `KEY=value`; `spool_limit` and `spool_total` are in it.
    pub env: Vec<String>,
    /// Where they put their sockets; empty is their own default.
    pub socket_dir: String,
    /// How long connecting to a running shim may take.
    pub load: Duration,
    /// How long cleaning up after a dead shim may take.
    pub cleanup: Duration,
    /// How long a shim's shutdown may take.
    pub shutdown: Duration,
    /// How long asking a task for its state may take.
    pub task_state: Duration,
    /// How long asking a shim for metrics may take.
    pub stats: Duration,
    /// How long a sandboxer in another process may take for an answer. A key of our own.
    pub sandboxer: Duration,
}

/// Settings of shims.
pub fn read(plugins: &mut Section, timeouts: &mut Section) -> Shims {
    platforms(plugins);
    let mut section = plugins.section("io.containerd.shim.v1.manager");
    let env = section.strings("env", &[]);
    for variable in env.iter().filter(|variable| !variable.contains('=')) {
        section.mistake(format!("shim manager: env {variable:?} must be KEY=value"));
    }
    let mut timeout = |name: &str, default: &str| {
        let written = timeouts.string(&format!("io.containerd.timeout.{name}"), default);
        duration::parse(&written).unwrap_or_else(|| {
            timeouts.mistake(format!("timeout {name}: {written:?} is no duration"));
            Duration::ZERO
        })
    };
    // Keys of our own. A shim gets them by its environment, so that one of another daemon can be told the same.
    let mut env = env;
    for (key, variable) in [("spool_limit", "LIMIT"), ("spool_total", "TOTAL")] {
        let written = section.string(key, "");
        let percent = written.trim().strip_suffix('%').and_then(|part| part.trim().parse::<u64>().ok());
        let is_part = key == "spool_total" && percent.is_some_and(|percent| percent <= 100);
        if written.is_empty() {
            continue;
        }
        if !is_part && types::output::size(&written).is_none() {
            section.mistake(format!("shim manager: {key} {written:?} is no size"));
        }
        env.push(format!("CONTAINERD_SHIM_SPOOL_{variable}={written}"));
    }
    Shims {
        env,
        socket_dir: section.string("socket_dir", ""),
        load: timeout("shim.load", "5s"),
        cleanup: timeout("shim.cleanup", "5s"),
        shutdown: timeout("shim.shutdown", "3s"),
        task_state: timeout("task.state", "2s"),
        stats: timeout("metrics.shimstats", "2s"),
        // A machine may have to boot; the kubelet itself waits for two minutes.
        sandboxer: match timeout("sandboxer.call", "1m0s") {
            Duration::ZERO => Duration::MAX,
            limit => limit,
        },
    }
}

/// How often the restart monitor looks; nothing, as upstream, is every ten seconds.
pub fn restart_interval(plugins: &mut Section) -> Duration {
    let default = Duration::from_secs(10);
    let written = plugins.section("io.containerd.monitor.container.v1.restart").duration("interval", default);
    if written.is_zero() { default } else { written }
}

fn platforms(plugins: &mut Section) {
    let mut section = plugins.section("io.containerd.runtime.v2.task");
    let host = types::platform::Platform::host().to_string();
    for platform in section.strings("platforms", &[]).iter().filter(|platform| **platform != host) {
        section.warn(format!("runtime v2 task: platform {platform} is not this host's and ignored"));
    }
}
