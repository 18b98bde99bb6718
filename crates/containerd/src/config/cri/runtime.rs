//! `io.containerd.cri.v1.runtime`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::cri::config::{Handler, IpPreference, Network, Runtime};
use sys::cgroup::Mode;

use super::{Cri, Section, Wrong, time};
use crate::services::deprecations::Deprecation;

/// Where network plugins are if nobody says where.
const BIN_DIRS: &[&str] = &["/opt/cni/bin"];

/// Understands the section.
pub fn read(cri: &mut Cri, mut section: Section) -> Result<(), Wrong> {
    let default = Runtime::default();
    let mut containerd = section.section("containerd");
    let default_runtime = containerd.string("default_runtime_name", "");
    let runtimes = handlers(&mut containerd, sys::cgroup::mode())?;
    if default_runtime.is_empty() {
        return Err("`default_runtime_name` is empty".to_owned());
    }
    if !runtimes.contains_key(&default_runtime) {
        return Err(format!(
            "no corresponding runtime configured in `containerd.runtimes` for `containerd` `default_runtime_name = \"{default_runtime}\""
        ));
    }
    let cni = network(cri, section.section("cni"))?;
    let enable_cdi = section.boolean("enable_cdi");
    if !enable_cdi {
        cri.deprecated.push(Deprecation::CriEnableCdi);
    }
    let mut times = |key, default| time(&mut section, key, &format!("invalid `{key}`"), default);
    let drain_exec_sync = times("drain_exec_sync_io_timeout", Duration::ZERO)?;
    let stats_period = times("stats_collect_period", default.stats_period)?;
    let stats_retention = times("stats_retention_period", default.stats_retention)?;
    let longest_line: i64 = section.integer("max_container_log_line_size", 16 << 10);
    let mut on = |key| section.boolean(key);
    cri.settings.runtime = Runtime {
        default_runtime,
        runtimes,
        cni,
        enable_selinux: on("enable_selinux"),
        disable_apparmor: on("disable_apparmor"),
        restrict_oom_score_adj: on("restrict_oom_score_adj"),
        disable_proc_mount: on("disable_proc_mount"),
        tolerate_missing_hugetlb: on("tolerate_missing_hugetlb_controller"),
        disable_hugetlb: on("disable_hugetlb_controller"),
        device_ownership: on("device_ownership_from_security_context"),
        ignore_image_volumes: on("ignore_image_defined_volumes"),
        netns_under_state: on("netns_mounts_under_state_dir"),
        unprivileged_ports: on("enable_unprivileged_ports"),
        unprivileged_icmp: on("enable_unprivileged_icmp"),
        enable_cdi,
        enable_criu: on("enable_criu"),
        restore_via_create: on("enable_experimental_restore_via_create"),
        ignore_blockio: containerd.boolean("ignore_blockio_not_enabled_errors"),
        ignore_rdt: containerd.boolean("ignore_rdt_not_enabled_errors"),
        selinux_category_range: section.integer("selinux_category_range", 1024),
        // None and less are no limit.
        max_log_line: usize::try_from(longest_line).ok().filter(|line| *line > 0),
        unset_seccomp_profile: section.string("unset_seccomp_profile", ""),
        cdi_dirs: paths(section.strings("cdi_spec_dirs", &[])),
        ignore_deprecations: section.strings("ignore_deprecation_warnings", &[]),
        drain_exec_sync,
        stats_period,
        stats_retention,
    };
    Ok(())
}

fn paths(texts: Vec<String>) -> Vec<PathBuf> {
    texts.into_iter().map(PathBuf::from).collect()
}

fn handlers(containerd: &mut Section, cgroups: Mode) -> Result<BTreeMap<String, Handler>, Wrong> {
    let mut runtimes = containerd.section("runtimes");
    let names = runtimes.keys().into_iter();
    names
        .map(|name| {
            let handler = handler(&name, runtimes.section(&name), cgroups)?;
            Ok((name, handler))
        })
        .collect()
}

fn handler(name: &str, mut section: Section, cgroups: Mode) -> Result<Handler, Wrong> {
    let io_type = section.string("io_type", "");
    let sandboxer = section.string("sandboxer", "");
    let handler = Handler {
        runtime_type: section.string("runtime_type", ""),
        runtime_path: section.string("runtime_path", ""),
        pod_annotations: section.strings("pod_annotations", &[]),
        container_annotations: section.strings("container_annotations", &[]),
        options: options(section.section("options")),
        privileged_without_host_devices: section.boolean("privileged_without_host_devices"),
        privileged_without_host_devices_all_devices_allowed: section
            .boolean("privileged_without_host_devices_all_devices_allowed"),
        cgroup_writable: section.boolean("cgroup_writable"),
        base_runtime_spec: section.string("base_runtime_spec", ""),
        cni_conf_dir: section.string("cni_conf_dir", ""),
        cni_max_conf_num: section.integer("cni_max_conf_num", 0),
        snapshotter: section.string("snapshotter", ""),
        sandboxer: if sandboxer.is_empty() { "podsandbox".to_owned() } else { sandboxer },
    };
    if handler.cgroup_writable && cgroups != Mode::Unified {
        return Err(format!("runtime {name}: `cgroup_writable` is only supported on cgroup v2"));
    }
    if handler.privileged_without_host_devices_all_devices_allowed && !handler.privileged_without_host_devices
    {
        return Err("`privileged_without_host_devices_all_devices_allowed` requires `privileged_without_host_devices` to be enabled".to_owned());
    }
    match io_type.as_str() {
        "" | "fifo" => {}
        "streaming" => {
            section.warn(format!("runtime {name}: io_type streaming is not supported yet, fifo it is"))
        }
        _ => return Err("`io_type` can only be `streaming` or `named_pipe`".to_owned()),
    }
    Ok(handler)
}

/// What a runtime is told; nothing if nothing was written.
fn options(mut section: Section) -> serde_json::Value {
    let table = section.rest();
    if table.is_empty() {
        return serde_json::Value::Null;
    }
    // Tables of TOML have only what JSON has, too; a date becomes its text.
    serde_json::to_value(table).unwrap_or_default()
}

fn network(cri: &mut Cri, mut section: Section) -> Result<Network, Wrong> {
    let old = section.string("bin_dir", "");
    let mut bin_dirs = section.strings("bin_dirs", BIN_DIRS);
    if !old.is_empty() {
        section.warn("`bin_dir` is deprecated, please use `bin_dirs` instead");
        cri.deprecated.push(Deprecation::CriCniBinDir);
        if !bin_dirs.is_empty() && bin_dirs != BIN_DIRS {
            return Err("`cni.bin_dir` and `cni.bin_dirs` cannot be set at the same time".to_owned());
        }
        bin_dirs = vec![old];
    }
    Ok(Network {
        bin_dirs: paths(bin_dirs),
        conf_dir: section.string("conf_dir", "").into(),
        cache_dir: section.string("cache_dir", "/var/lib/cni").into(),
        max_conf_num: section.integer("max_conf_num", 1),
        setup_serially: section.boolean("setup_serially"),
        conf_template: section.string("conf_template", ""),
        ip_pref: match section.string("ip_pref", "").as_str() {
            "ipv6" => IpPreference::Ipv6,
            "cni" => IpPreference::Cni,
            // As upstream: whatever else is written.
            _ => IpPreference::Ipv4,
        },
        internal_loopback: section.boolean("use_internal_loopback"),
    })
}
