//! `info` of a verbose Status: the settings and networks under upstream's names, as tools read them.

use std::collections::BTreeMap;

use cni::Networks;
use serde_json::{Map, Value, json};
use types::Result;

use crate::config::{Handler, IpPreference, Network, Runtime};
use crate::cri::Cri;

/// All of it.
pub fn info(cri: &Cri) -> Result<BTreeMap<String, String>> {
    let mut info = BTreeMap::from([
        ("config".to_owned(), config(cri).to_string()),
        // What the daemon is written in.
        ("golang".to_owned(), json!("rust").to_string()),
        ("cniconfig".to_owned(), networks(cri).to_string()),
    ]);
    for (name, networks) in cri.network.all() {
        let name = if name.is_empty() { "default" } else { name };
        let status = loaded(networks);
        if name == "default" {
            info.insert("lastCNILoadStatus".to_owned(), status.clone());
        }
        info.insert(format!("lastCNILoadStatus.{name}"), status);
    }
    Ok(info)
}

fn loaded(networks: &Networks) -> String {
    networks.refresh().map_or_else(|error| error.to_string(), |()| "OK".to_owned())
}

/// The runtime's settings, and where the daemon is.
fn config(cri: &Cri) -> Value {
    let runtime = &cri.config.runtime;
    let mut config = switches(runtime);
    config.insert("containerd".to_owned(), containerd(runtime));
    config.insert("cni".to_owned(), network(&runtime.cni));
    let dirs = &cri.dirs;
    for (key, path) in [
        ("containerdRootDir", dirs.root.parent().unwrap_or(&dirs.root)),
        ("containerdEndpoint", cri.doors.address.as_path()),
        ("rootDir", &dirs.root),
        ("stateDir", &dirs.state),
    ] {
        config.insert(key.to_owned(), json!(path));
    }
    config.into()
}

fn switches(runtime: &Runtime) -> Map<String, Value> {
    let seconds = |time: std::time::Duration| format!("{}s", time.as_secs_f64());
    let switches = json!({
        "enableSelinux": runtime.enable_selinux,
        "selinuxCategoryRange": runtime.selinux_category_range,
        "maxContainerLogLineSize": runtime.max_log_line.unwrap_or_default(),
        "disableApparmor": runtime.disable_apparmor,
        "restrictOOMScoreAdj": runtime.restrict_oom_score_adj,
        "disableProcMount": runtime.disable_proc_mount,
        "unsetSeccompProfile": runtime.unset_seccomp_profile,
        "tolerateMissingHugetlbController": runtime.tolerate_missing_hugetlb,
        "disableHugetlbController": runtime.disable_hugetlb,
        "device_ownership_from_security_context": runtime.device_ownership,
        "ignoreImageDefinedVolumes": runtime.ignore_image_volumes,
        "netnsMountsUnderStateDir": runtime.netns_under_state,
        "enableUnprivilegedPorts": runtime.unprivileged_ports,
        "enableUnprivilegedICMP": runtime.unprivileged_icmp,
        "enableCDI": runtime.enable_cdi,
        "cdiSpecDirs": runtime.cdi_dirs,
        "drainExecSyncIOTimeout": seconds(runtime.drain_exec_sync),
        "ignoreDeprecationWarnings": runtime.ignore_deprecations,
        "statsCollectPeriod": seconds(runtime.stats_period),
        "statsRetentionPeriod": seconds(runtime.stats_retention),
        "enableCRIU": runtime.enable_criu,
        "enableExperimentalRestoreViaCreate": runtime.restore_via_create,
    });
    match switches {
        Value::Object(switches) => switches,
        _ => Map::new(),
    }
}

fn containerd(runtime: &Runtime) -> Value {
    let runtimes: Map<String, Value> =
        runtime.runtimes.iter().map(|(name, runtime)| (name.clone(), handler(runtime))).collect();
    json!({
        "defaultRuntimeName": runtime.default_runtime,
        "runtimes": runtimes,
        "ignoreBlockIONotEnabledErrors": runtime.ignore_blockio,
        "ignoreRdtNotEnabledErrors": runtime.ignore_rdt,
    })
}

fn handler(handler: &Handler) -> Value {
    json!({
        "runtimeType": handler.runtime_type,
        "runtimePath": handler.runtime_path,
        "PodAnnotations": handler.pod_annotations,
        "ContainerAnnotations": handler.container_annotations,
        "options": handler.options,
        "privileged_without_host_devices": handler.privileged_without_host_devices,
        "privileged_without_host_devices_all_devices_allowed": handler.privileged_without_host_devices_all_devices_allowed,
        "cgroupWritable": handler.cgroup_writable,
        "baseRuntimeSpec": handler.base_runtime_spec,
        "cniConfDir": handler.cni_conf_dir,
        "cniMaxConfNum": handler.cni_max_conf_num,
        "snapshotter": handler.snapshotter,
        "sandboxer": handler.sandboxer,
        "io_type": "fifo",
    })
}

fn network(network: &Network) -> Value {
    json!({
        "binDir": "",
        "binDirs": network.bin_dirs,
        "confDir": network.conf_dir,
        "maxConfNum": network.max_conf_num,
        "setupSerially": network.setup_serially,
        "confTemplate": network.conf_template,
        "ipPref": match network.ip_pref {
            IpPreference::Ipv4 => "",
            IpPreference::Ipv6 => "ipv6",
            IpPreference::Cni => "cni",
        },
        "useInternalLoopback": network.internal_loopback,
    })
}

/// The networks that pods are put into, as Go's library tells them.
fn networks(cri: &Cri) -> Value {
    let cni = &cri.config.runtime.cni;
    let networks = cri.network.of("").list().into_iter().map(|(interface, network)| {
        let source = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let plugins = network.plugins().iter().map(|plugin| {
            let capabilities: Map<String, Value> =
                plugin.capabilities().map(|name| (name.to_owned(), true.into())).collect();
            json!({ "Network": { "type": plugin.kind(), "capabilities": capabilities, "ipam": {}, "dns": {} } })
        });
        let plugins: Vec<Value> = plugins.collect();
        json!({
            "Config": {
                "Name": network.name(),
                "CNIVersion": network.cni_version(),
                "Plugins": plugins,
                "Source": source(network.source()),
            },
            "IFName": interface,
        })
    });
    json!({
        "PluginDirs": cni.bin_dirs,
        "PluginConfDir": cni.conf_dir,
        "PluginMaxConfNum": cni.max_conf_num,
        "Prefix": "eth",
        "Networks": networks.collect::<Vec<_>>(),
    })
}
