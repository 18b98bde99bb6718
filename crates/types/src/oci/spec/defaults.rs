//! What a container gets where nobody says otherwise, as upstream's `oci` package has it.

use super::VERSION;
use super::document::{
    Capabilities, DeviceRule, Linux, Mount, Namespace, Process, Resources, Rlimit, Root, Spec, Windows,
};
use crate::platform::Platform;

const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "mount", "network"];

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Hidden: they tell about the host or act on it.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Destination, type, source, options.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
];

/// Character devices that are always allowed: null, random, full, tty, zero, urandom, console, pts, ptmx.
const DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(8)),
    (1, Some(7)),
    (5, Some(0)),
    (1, Some(5)),
    (1, Some(9)),
    (5, Some(1)),
    (136, None),
    (5, Some(2)),
];

/// All that can be done with a device.
pub(super) const RWM: &str = "rwm";

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Spec {
    /// Upstream's default for a container `id` in `namespace` on `platform`. No device but those that the runtime
    /// makes may be used; see [`Spec::allow_default_devices`].
    pub fn default_for(platform: &Platform, namespace: &crate::Namespace, id: &str) -> Self {
        let version = VERSION.to_owned();
        let bare = |cwd: &str| Process { cwd: cwd.into(), ..Default::default() };
        match platform.os.as_str() {
            "windows" => Self {
                version,
                process: Some(bare("C:\\")),
                root: Some(Root::default()),
                windows: Some(Windows::default()),
                ..Self::default()
            },
            "darwin" => {
                Self { version, process: Some(bare("/")), root: Some(Root::default()), ..Self::default() }
            }
            _ => Self {
                version,
                process: Some(process()),
                root: Some(Root { path: "rootfs".into(), readonly: false }),
                mounts: MOUNTS.iter().map(mount).collect(),
                linux: Some(linux(namespace, id)),
                ..Self::default()
            },
        }
    }

    /// Allows the devices that every container has.
    pub fn allow_default_devices(&mut self) {
        let rules = DEVICES.iter().map(|(major, minor)| DeviceRule {
            allow: true,
            kind: "c".into(),
            major: Some(*major),
            minor: *minor,
            access: RWM.into(),
        });
        self.resources().devices.extend(rules);
    }
}

fn process() -> Process {
    let capabilities = owned(&CAPABILITIES);
    Process {
        cwd: "/".into(),
        no_new_privileges: true,
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Default::default()
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 }],
        ..Default::default()
    }
}

fn linux(namespace: &crate::Namespace, id: &str) -> Linux {
    let nothing = DeviceRule { allow: false, access: RWM.into(), ..Default::default() };
    let namespaces = NAMESPACES.iter().map(|kind| Namespace { kind: (*kind).into(), path: String::new() });
    Linux {
        resources: Some(Resources { devices: vec![nothing], ..Default::default() }),
        cgroups_path: format!("/{namespace}/{id}").trim_end_matches('/').to_owned(),
        namespaces: namespaces.collect(),
        masked_paths: owned(&MASKED),
        readonly_paths: owned(&READONLY),
        ..Default::default()
    }
}

fn mount((destination, kind, source, options): &(&str, &str, &str, &[&str])) -> Mount {
    Mount {
        destination: (*destination).into(),
        kind: (*kind).into(),
        source: (*source).into(),
        options: owned(options),
    }
}
