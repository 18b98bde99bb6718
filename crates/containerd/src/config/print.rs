//! The configuration as a file of the current version.

use std::path::Path;

use toml::{Table, Value};
use types::{Error, Result};

use super::Config;
use super::duration;
use super::raw::CURRENT;

/// The file that means `config`.
pub fn print(config: &Config) -> Result<String> {
    let mut top = Table::new();
    let mut set = |key: &str, value: Value| drop(top.insert(key.to_owned(), value));
    set("root", text(&config.root));
    set("state", text(&config.state));
    set("temp", optional(config.temp.as_deref()));
    set("disabled_plugins", config.disabled.clone().into());
    set("required_plugins", config.required.clone().into());
    set("oom_score", i64::from(config.oom_score).into());
    set("imports", config.imports.clone().into());
    let format = match config.log.format {
        crate::logging::Format::Text => "",
        crate::logging::Format::Json => "json",
    };
    set(
        "debug",
        table([
            ("level", config.log.level.clone().into()),
            ("format", format.into()),
            ("log_trace_id", config.telemetry.trace_id.into()),
        ]),
    );
    set("plugins", plugins(config));
    set("timeouts", timeouts(config));
    let rest = toml::to_string(&top).map_err(|e| Error::internal(format!("print configuration: {e}")))?;
    // First, where people and scripts look for it.
    Ok(format!("version = {CURRENT}\n{rest}"))
}

fn plugins(config: &Config) -> Value {
    let mut plugins = config.foreign.clone();
    let mut set = |uri: &str, value: Value| drop(plugins.insert(uri.to_owned(), value));
    let size = |bytes: usize| Value::from(i64::try_from(bytes).unwrap_or(i64::MAX));
    set(
        "io.containerd.server.v1.grpc",
        table([
            ("address", text(&config.grpc.address)),
            ("uid", i64::from(config.grpc.uid).into()),
            ("gid", i64::from(config.grpc.gid).into()),
            ("max_recv_message_size", size(config.message_size.receive)),
            ("max_send_message_size", size(config.message_size.send)),
        ]),
    );
    set(
        "io.containerd.server.v1.ttrpc",
        table([
            ("address", text(&config.ttrpc.address)),
            ("uid", i64::from(config.ttrpc.uid).into()),
            ("gid", i64::from(config.ttrpc.gid).into()),
        ]),
    );
    set("io.containerd.service.v1.diff-service", diff(config));
    set(
        "io.containerd.snapshotter.v1.overlayfs",
        table([
            ("root_path", optional(config.overlayfs.root.as_deref())),
            ("upperdir_label", config.overlayfs.upperdir_label.into()),
            ("mount_options", config.overlayfs.mount_options.clone().into()),
        ]),
    );
    set(
        "io.containerd.snapshotter.v1.native",
        table([("root_path", optional(config.native_root.as_deref()))]),
    );
    set(
        "io.containerd.runtime.v2.task",
        table([("platforms", vec![types::platform::Platform::host().to_string()].into())]),
    );
    set(
        "io.containerd.shim.v1.manager",
        table([
            ("env", config.shims.env.clone().into()),
            ("socket_dir", config.shims.socket_dir.clone().into()),
        ]),
    );
    for (uri, section) in super::telemetry::print(&config.telemetry) {
        set(uri, section);
    }
    plugins.into()
}

fn diff(config: &Config) -> Value {
    table([("default", vec!["walking"].into()), ("sync_fs", config.sync_fs.into())])
}

fn timeouts(config: &Config) -> Value {
    let shims = &config.shims;
    let known = [
        ("shim.load", shims.load),
        ("shim.cleanup", shims.cleanup),
        ("shim.shutdown", shims.shutdown),
        ("task.state", shims.task_state),
        ("metrics.shimstats", shims.stats),
    ];
    let known = known.map(|(name, time)| (format!("io.containerd.timeout.{name}"), duration::print(time)));
    config
        .foreign_timeouts
        .clone()
        .into_iter()
        .chain(known)
        .map(|(name, time)| (name, time.into()))
        .collect::<Table>()
        .into()
}

fn table<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Table>().into()
}

fn text(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

fn optional(path: Option<&Path>) -> Value {
    path.map_or_else(|| "".into(), text)
}
