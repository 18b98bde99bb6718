//! What an administrator sets about the CRI: keys, defaults and meanings are containerd's (features.md 4.3). The daemon reads
//! them from its file; here is what they mean.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `io.containerd.cri.v1.images`.
    pub images: Images,
    /// `io.containerd.cri.v1.runtime`.
    pub runtime: Runtime,
    /// `io.containerd.grpc.v1.cri`: the streaming server.
    pub streaming: Streaming,
}

impl Config {
    /// Whose snapshots images and root filesystems are of a runtime: `handler`, which is called `name`, or nothing for the default
    /// one. What the runtime says comes before what is said of its platform.
    pub fn snapshotter<'a>(&'a self, handler: Option<&'a Handler>, name: &str) -> &'a str {
        let name = if name.is_empty() { self.runtime.default_runtime.as_str() } else { name };
        let handler = handler.or_else(|| self.runtime.runtimes.get(name));
        let of_runtime = handler.map(|handler| &handler.snapshotter);
        let of_platform = self.images.runtime_snapshotters.get(name);
        let chosen = [of_runtime, of_platform].into_iter().flatten().find(|name| !name.is_empty());
        chosen.unwrap_or(&self.images.snapshotter)
    }
}

/// Images.
#[derive(Clone, Debug)]
pub struct Images {
    /// Whose snapshots root filesystems are, where a runtime has no other.
    pub snapshotter: String,
    /// Whether snapshots get no labels for remote snapshotters.
    pub disable_snapshot_annotations: bool,
    /// Whether layers are removed once they are unpacked.
    pub discard_unpacked_layers: bool,
    /// Images that the kubelet is told never to remove; `sandbox` is the pause image, empty for the built-in pause.
    pub pinned: BTreeMap<String, String>,
    /// By runtime handler: its snapshotter.
    pub runtime_snapshotters: BTreeMap<String, String>,
    /// Directories of hosts files.
    pub hosts: String,
    /// Who we are, by registry.
    pub auths: BTreeMap<String, crate::image::Auth>,
    /// Whether who applies layers is to make them durable; in one pass with the fetch they always are.
    pub sync_fs: bool,
    /// Sent to all registries.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Layers that are fetched at once.
    pub max_concurrent_downloads: usize,
    /// A pull without progress for so long is given up; zero for never.
    pub progress_timeout: Duration,
    /// How often the usage of snapshots is measured.
    pub stats_period: Duration,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            disable_snapshot_annotations: true,
            discard_unpacked_layers: false,
            pinned: BTreeMap::from([("sandbox".to_owned(), PAUSE_IMAGE.to_owned())]),
            runtime_snapshotters: BTreeMap::new(),
            hosts: "/etc/containerd/certs.d:/etc/docker/certs.d".to_owned(),
            auths: BTreeMap::new(),
            sync_fs: false,
            headers: BTreeMap::new(),
            max_concurrent_downloads: 3,
            progress_timeout: Duration::from_secs(300),
            stats_period: Duration::from_secs(10),
        }
    }
}

/// The pause image where none is configured. It is never pulled for its own sake: see [`Images::builtin_pause`].
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

impl Images {
    /// Whether the shim itself is the pause program: no pause image is configured, or the default one.
    pub fn builtin_pause(&self) -> bool {
        self.pause_image().is_none()
    }

    /// The pause image of pods where the shim cannot pause: the default one, unless somebody wants none.
    pub fn default_pause(&self) -> Option<&str> {
        self.pinned.get("sandbox").map(String::as_str).filter(|image| !image.is_empty())
    }

    /// The pause image that somebody has configured.
    pub fn pause_image(&self) -> Option<&str> {
        self.pinned
            .get("sandbox")
            .map(String::as_str)
            .filter(|image| !image.is_empty() && *image != PAUSE_IMAGE)
    }
}

/// Pods and containers.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The handler of pods that name none.
    pub default_runtime: String,
    /// By handler.
    pub runtimes: BTreeMap<String, Handler>,
    /// Network plugins.
    pub cni: Network,
    /// Whether containers get SELinux labels.
    pub enable_selinux: bool,
    /// How many categories labels are made of.
    pub selinux_category_range: u32,
    /// Longer lines of logs are split; none if never.
    pub max_log_line: Option<usize>,
    /// Whether AppArmor profiles are not used although the machine has AppArmor.
    pub disable_apparmor: bool,
    /// Whether oom_score_adj is never set below the daemon's own.
    pub restrict_oom_score_adj: bool,
    /// Whether ProcMount is ignored.
    pub disable_proc_mount: bool,
    /// The seccomp profile where a request names none.
    pub unset_seccomp_profile: String,
    /// Whether a machine without the hugetlb controller is fine.
    pub tolerate_missing_hugetlb: bool,
    /// Whether hugetlb limits are ignored.
    pub disable_hugetlb: bool,
    /// Whether device nodes belong to the container's user.
    pub device_ownership: bool,
    /// Whether VOLUMEs of images are ignored.
    pub ignore_image_volumes: bool,
    /// Whether network namespaces are below the state directory.
    pub netns_under_state: bool,
    /// Whether containers may bind ports below 1024.
    pub unprivileged_ports: bool,
    /// Whether containers may ping.
    pub unprivileged_icmp: bool,
    /// Whether CDI devices are injected.
    pub enable_cdi: bool,
    /// Where CDI specs are.
    pub cdi_dirs: Vec<PathBuf>,
    /// How long the output of an ended ExecSync may be held open by its children; zero for as long as it lasts.
    pub drain_exec_sync: Duration,
    /// Deprecations that are not told.
    pub ignore_deprecations: Vec<String>,
    /// How often usage is measured.
    pub stats_period: Duration,
    /// How long measurements are kept.
    pub stats_retention: Duration,
    /// Whether containers can be checkpointed.
    pub enable_criu: bool,
    /// Whether CreateContainer restores from an image that is a checkpoint.
    pub restore_via_create: bool,
    /// Whether a class of block I/O on a machine without is ignored.
    pub ignore_blockio: bool,
    /// Whether a class of cache allocation on a machine without is ignored.
    pub ignore_rdt: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            default_runtime: "runc".to_owned(),
            runtimes: BTreeMap::from([(
                "runc".to_owned(),
                Handler { options: runc_options(), ..Handler::default() },
            )]),
            cni: Network::default(),
            enable_selinux: false,
            selinux_category_range: 1024,
            max_log_line: Some(16 << 10),
            disable_apparmor: false,
            restrict_oom_score_adj: false,
            disable_proc_mount: false,
            unset_seccomp_profile: String::new(),
            tolerate_missing_hugetlb: true,
            disable_hugetlb: true,
            device_ownership: false,
            ignore_image_volumes: false,
            netns_under_state: false,
            unprivileged_ports: true,
            unprivileged_icmp: true,
            enable_cdi: true,
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            drain_exec_sync: Duration::ZERO,
            ignore_deprecations: Vec::new(),
            stats_period: Duration::from_secs(1),
            stats_retention: Duration::from_secs(120),
            enable_criu: true,
            restore_via_create: false,
            ignore_blockio: false,
            ignore_rdt: false,
        }
    }
}

/// What the default file says of runc: nothing, but that it says it means that cgroups are not systemd's.
fn runc_options() -> Value {
    serde_json::json!({
        "BinaryName": "", "CriuImagePath": "", "CriuWorkPath": "", "IoGid": 0, "IoUid": 0,
        "NoNewKeyring": false, "Root": "", "ShimCgroup": "", "SystemdCgroup": false,
    })
}

/// A runtime handler: what a RuntimeClass names.
#[derive(Clone, Debug)]
pub struct Handler {
    /// Which shim.
    pub runtime_type: String,
    /// The path of a shim, instead.
    pub runtime_path: String,
    /// Patterns of a pod's annotations that its OCI spec gets.
    pub pod_annotations: Vec<String>,
    /// Patterns of a container's annotations that its OCI spec gets.
    pub container_annotations: Vec<String>,
    /// The shim's options, as they were written.
    pub options: Value,
    /// Whether privileged containers see no devices of the host.
    pub privileged_without_host_devices: bool,
    /// Whether they may use all devices nevertheless.
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Whether /sys/fs/cgroup is writable on cgroup v2.
    pub cgroup_writable: bool,
    /// A file with the spec to begin with.
    pub base_runtime_spec: String,
    /// Networks of its own.
    pub cni_conf_dir: String,
    /// How many of them count.
    pub cni_max_conf_num: usize,
    /// Whose snapshots root filesystems are.
    pub snapshotter: String,
    /// Who makes sandboxes: `podsandbox`, `shim`, or a plugin.
    pub sandboxer: String,
}

impl Default for Handler {
    fn default() -> Self {
        Self {
            runtime_type: "io.containerd.runc.v2".to_owned(),
            runtime_path: String::new(),
            pod_annotations: Vec::new(),
            container_annotations: Vec::new(),
            options: Value::Null,
            privileged_without_host_devices: false,
            privileged_without_host_devices_all_devices_allowed: false,
            cgroup_writable: false,
            base_runtime_spec: String::new(),
            cni_conf_dir: String::new(),
            cni_max_conf_num: 0,
            snapshotter: String::new(),
            sandboxer: "podsandbox".to_owned(),
        }
    }
}

/// Network plugins.
#[derive(Clone, Debug)]
pub struct Network {
    /// Where plugins are.
    pub bin_dirs: Vec<PathBuf>,
    /// Where networks are.
    pub conf_dir: PathBuf,
    /// Where what plugins have added is written down; no key of upstream's.
    pub cache_dir: PathBuf,
    /// How many of them count; 0 for all.
    pub max_conf_num: usize,
    /// Whether a pod's networks are set up one after another.
    pub setup_serially: bool,
    /// A template of a network, filled with the node's pod CIDR.
    pub conf_template: String,
    /// Which address is a pod's first one.
    pub ip_pref: IpPreference,
    /// Whether the daemon brings `lo` up itself.
    pub internal_loopback: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            bin_dirs: vec!["/opt/cni/bin".into()],
            conf_dir: "/etc/cni/net.d".into(),
            cache_dir: "/var/lib/cni".into(),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: String::new(),
            ip_pref: IpPreference::Ipv4,
            internal_loopback: false,
        }
    }
}

/// Which of a pod's addresses is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpPreference {
    /// The first of IPv4.
    Ipv4,
    /// The first of IPv6.
    Ipv6,
    /// The first.
    Cni,
}

/// The server of exec, attach and port-forward.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// Where it listens; empty for the address that the host name has.
    pub address: String,
    /// `0` for any port.
    pub port: String,
    /// Idle connections end after so long.
    pub idle: Duration,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Certificate and key; empty for a certificate of its own making.
    pub certificate: PathBuf,
    /// See [`Streaming::certificate`].
    pub key: PathBuf,
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            port: "0".to_owned(),
            idle: Duration::from_secs(4 * 60 * 60),
            tls: false,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
        }
    }
}
