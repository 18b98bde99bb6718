//! 1 -> 2: a plugin is named by its URI.

use toml::{Table, Value};

use super::super::{Findings, take_table};

/// Plugins of version 1 whose type does not follow from their name.
const NAMES: &[(&str, &str)] = &[
    ("cri", "io.containerd.grpc.v1.cri"),
    ("cgroups", "io.containerd.monitor.v1.cgroups"),
    ("linux", "io.containerd.runtime.v1.linux"),
    ("scheduler", "io.containerd.gc.v1.scheduler"),
    ("bolt", "io.containerd.metadata.v1.bolt"),
    ("task", "io.containerd.runtime.v2.task"),
    ("opt", "io.containerd.internal.v1.opt"),
    ("restart", "io.containerd.internal.v1.restart"),
    ("tracing", "io.containerd.internal.v1.tracing"),
    ("otlp", "io.containerd.tracing.processor.v1.otlp"),
    ("aufs", "io.containerd.snapshotter.v1.aufs"),
    ("btrfs", "io.containerd.snapshotter.v1.btrfs"),
    ("devmapper", "io.containerd.snapshotter.v1.devmapper"),
    ("native", "io.containerd.snapshotter.v1.native"),
    ("overlayfs", "io.containerd.snapshotter.v1.overlayfs"),
    ("zfs", "io.containerd.snapshotter.v1.zfs"),
];

/// Gives every plugin that is mentioned its full name.
pub fn lengthen(config: &mut Table, findings: &mut Findings) {
    let sections = take_table(config, "plugins");
    let sections: Table = sections.into_iter().map(|(name, value)| (long(&name, findings), value)).collect();
    if !sections.is_empty() {
        config.insert("plugins".into(), sections.into());
    }
    for key in ["disabled_plugins", "required_plugins"] {
        let Some(Value::Array(names)) = config.get_mut(key) else { continue };
        for name in names {
            if let Value::String(name) = name {
                *name = long(name, findings);
            }
        }
    }
}

fn long(name: &str, findings: &mut Findings) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    if let Some((_, uri)) = NAMES.iter().find(|(short, _)| *short == name) {
        return (*uri).to_owned();
    }
    if name.ends_with("-service") {
        return format!("io.containerd.service.v1.{name}");
    }
    let kind = if matches!(name, "windows" | "windows-lcow") { "snapshotter" } else { "grpc" };
    let uri = format!("io.containerd.{kind}.v1.{name}");
    findings.warnings.push(format!("Ambiguous {name} plugin in v1 config, treating as {uri}"));
    uri
}
