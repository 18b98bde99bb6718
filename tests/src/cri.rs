//! A daemon as a kubelet has it: CRI with a network of its own, and the kubelet's side of the protocol.
//!
//! ```text
//!  <daemon>/cni/bin        Debian's plugins, and those that a test puts there       <daemon>/cni/net.d   one network, of one bridge
//!  <daemon>/cni/cache      what plugins have added                                  <daemon>/cni/ipam    addresses that are taken
//!  <daemon>/state/io.containerd.grpc.v1.cri/netns                                   namespaces of pods
//! ```
//!
//! The control groups of pods are below `/<namespace of the daemon>`, so that what is left behind has an owner. What is left when
//! it is dropped is ended: pods through the daemon if it answers, their processes otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::cri as wire;
use grpc::cri::image_service_client::ImageServiceClient;
use grpc::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::archive::{Image, Packing, base_layer};
use crate::binaries::{self, Suite};
use crate::{Daemon, deadline, ledger, proc};

/// What the kubelet's names are in.
pub const NAMESPACE: &str = "k8s.io";
/// The table of pods and containers in a configuration.
pub const RUNTIME: &str = "plugins.'io.containerd.cri.v1.runtime'";
/// The table of images.
pub const IMAGES: &str = "plugins.'io.containerd.cri.v1.images'";
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with CRI, and a kubelet's connection.
pub struct Cri {
    /// The daemon. Its own namespace is where control groups of pods are.
    pub daemon: Daemon,
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    network: String,
}

impl Cri {
    /// Starts one with a network; `None`, said aloud, where there are no CNI plugins or where the suite is upstream's of 1.6.
    ///
    /// # Panics
    /// If it does not serve.
    pub fn start() -> Option<Self> {
        Self::configured("")
    }

    /// As [`Cri::start`], with more in the configuration.
    ///
    /// # Panics
    /// As that.
    pub fn configured(section: &str) -> Option<Self> {
        let cri = Self::prepare(section)?;
        cri.launch();
        Some(cri)
    }

    /// As [`Cri::configured`], and starts nothing.
    ///
    /// # Panics
    /// If something cannot be written.
    pub fn prepare(section: &str) -> Option<Self> {
        Self::prepare_programs(binaries::tested(), section)
    }

    /// As [`Cri::prepare`], with a daemon that can be killed between two of its steps, which only debug builds can be. The shim is
    /// the one under test: a debug shim is no sandbox's program.
    ///
    /// # Panics
    /// As that.
    pub fn prepare_with_crash_points(section: &str) -> Option<Self> {
        let shim_dir = binaries::tested().shim_dir;
        Self::prepare_programs(binaries::Binaries { shim_dir, ..binaries::debug() }, section)
    }

    /// As [`Cri::prepare`], with these programs: ours, or upstream's since 2.0.
    ///
    /// # Panics
    /// As that.
    pub fn prepare_programs(programs: binaries::Binaries, section: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(plugins) = std::env::var_os("CNI_DIR").map(PathBuf::from) else {
            eprintln!("skipped: CNI_DIR does not name unpacked CNI plugins");
            return None;
        };
        if binaries::suite() == Suite::Upstream {
            eprintln!("skipped: the configuration is of version 3");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = format!("ct{}n{number}", std::process::id());
        let daemon = Daemon::prepare(programs, binaries::suite());
        let config = config(&daemon, section);
        let daemon = daemon.with_config(&config).with_own_sockets();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let channel = {
            let _inside = runtime.enter();
            let address = format!("unix://{}", daemon.address().display());
            Endpoint::from_shared(address).expect("a path").connect_lazy()
        };
        let cri = Self { daemon, runtime, channel, network };
        cri.make_network(&plugins.join("usr/lib/cni"), number);
        Some(cri)
    }

    /// Sets keys of a table of its configuration, such as [`RUNTIME`], before it is started; those of the harness itself are
    /// replaced.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    pub fn set(&self, table: &str, keys: &str) {
        let path = self.daemon.dir().join("config.toml");
        let config = fs::read_to_string(&path).expect("read the configuration");
        let head = format!("[{table}]\n");
        let Some(at) = config.find(&head) else {
            return fs::write(&path, format!("{config}{head}{keys}\n")).expect("write the configuration");
        };
        let (before, rest) = config.split_at(at + head.len());
        let (own, after) = rest.split_at(rest.find("\n[").map_or(rest.len(), |end| end + 1));
        let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
        let replaced: Vec<_> = keys.lines().map(key).collect();
        let own: String = own
            .lines()
            .filter(|line| !replaced.contains(&key(line)))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&path, format!("{before}{keys}\n{own}{after}")).expect("write the configuration");
    }

    /// Starts the daemon, and returns when CRI answers.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn launch(&self) {
        self.launch_with(&[]);
    }

    /// As [`Cri::launch`], with variables in its environment.
    ///
    /// # Panics
    /// As that.
    #[track_caller]
    pub fn launch_with(&self, variables: &[(&str, &str)]) {
        self.daemon.launch_with(variables);
        deadline::eventually("CRI answers", || self.pods().is_ok());
    }

    fn make_network(&self, plugins: &Path, number: u32) {
        let dir = self.cni();
        for place in ["bin", "net.d"] {
            fs::create_dir_all(dir.join(place)).expect("create a directory");
        }
        for plugin in fs::read_dir(plugins).expect("plugins").flatten() {
            std::os::unix::fs::symlink(plugin.path(), dir.join("bin").join(plugin.file_name()))
                .expect("link a plugin");
        }
        let subnet = format!("10.{}.{}.0/24", 64 + std::process::id() % 128, number % 250);
        let plugins = serde_json::json!([{
            "type": "bridge", "bridge": self.network, "isGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": dir.join("ipam")},
        }]);
        self.write_network(&plugins);
    }

    /// Replaces the network by one of these plugins.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_network(&self, plugins: &serde_json::Value) {
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": self.network, "plugins": plugins});
        let path = self.cni().join("net.d/10-test.conflist");
        fs::write(path.with_extension("new"), list.to_string()).expect("write the network");
        fs::rename(path.with_extension("new"), path).expect("replace the network");
    }

    /// The network as it is.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read_network(&self) -> serde_json::Value {
        let list = fs::read(self.cni().join("net.d/10-test.conflist")).expect("read the network");
        let list: serde_json::Value = serde_json::from_slice(&list).expect("a network");
        list["plugins"].clone()
    }

    /// Puts a plugin there: a script for a shell.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_plugin(&self, name: &str, script: &str) {
        let path = self.cni().join("bin").join(name);
        fs::write(path.with_extension("new"), format!("#!/bin/sh\n{script}\n")).expect("write a plugin");
        fs::set_permissions(path.with_extension("new"), fs::Permissions::from_mode(0o755))
            .expect("make it a program");
        fs::rename(path.with_extension("new"), path).expect("put the plugin there");
    }

    /// Where plugins, networks, addresses and results are.
    pub fn cni(&self) -> PathBuf {
        self.daemon.dir().join("cni")
    }

    /// Where CRI has files that a reboot ends.
    pub fn state(&self) -> PathBuf {
        self.daemon.state().join("io.containerd.grpc.v1.cri")
    }

    /// Where CRI has files that outlive a reboot.
    pub fn root(&self) -> PathBuf {
        self.daemon.root().join("io.containerd.grpc.v1.cri")
    }

    /// The kubelet's side of the runtime.
    pub fn client(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    /// The kubelet's side of images.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    /// Runs a call to its end.
    ///
    /// # Errors
    /// What the daemon answers.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    #[track_caller]
    pub fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        let limited = async { tokio::time::timeout(deadline::patient(PATIENCE), call).await };
        let answer = self.runtime.block_on(limited).expect("an answer within a minute");
        answer.map(Response::into_inner)
    }

    /// Runs whatever a test needs to run, with clients of its own.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Imports the image of the suite as Kubernetes' own; gives its name.
    ///
    /// # Panics
    /// If it cannot be imported.
    #[track_caller]
    pub fn image(&self) -> &'static str {
        let archive = self.daemon.archive("standard.tar", &Image::standard().oci());
        self.daemon.ctr(&["-n", NAMESPACE, "images", "import", &archive]).ok();
        crate::archive::IMAGE
    }

    /// Waits until an image that was imported is known.
    ///
    /// # Panics
    /// If it does not become so.
    #[track_caller]
    pub fn knows(&self, image: &str) {
        crate::eventually("the image is known", || {
            let image = Some(wire::ImageSpec { image: image.to_owned(), ..Default::default() });
            let request = wire::ImageStatusRequest { image, verbose: false };
            self.call(self.images().image_status(request)).expect("a status").image.is_some()
        });
    }

    /// Imports a pause image of this name, whose program sleeps.
    ///
    /// # Panics
    /// If it does not become known.
    #[track_caller]
    pub fn pause_image(&self, name: &str) {
        let image = Image::named(name).layer(&base_layer(), Packing::Gzip);
        let image = image.config("Entrypoint", serde_json::json!(["sleep", "1000"]));
        let image = image.config("Cmd", serde_json::json!([]));
        let archive = self.daemon.archive("pause.tar", &image.oci());
        self.daemon.ctr(&["-n", NAMESPACE, "images", "import", &archive]).ok();
        self.knows(name);
    }

    /// What a kubelet asks for in the pod `name`.
    pub fn pod_config(&self, name: &str) -> wire::PodSandboxConfig {
        let logs = self.daemon.dir().join("logs").join(name);
        fs::create_dir_all(&logs).expect("create a directory for logs");
        wire::PodSandboxConfig {
            metadata: Some(wire::PodSandboxMetadata {
                name: name.to_owned(),
                namespace: "default".to_owned(),
                uid: format!("uid-{name}"),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: logs.to_string_lossy().into_owned(),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            linux: Some(wire::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.daemon.namespace()),
                security_context: Some(wire::LinuxSandboxSecurityContext {
                    namespace_options: Some(wire::NamespaceOption::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Runs the pod `name`.
    ///
    /// # Panics
    /// If that does not work.
    #[track_caller]
    pub fn pod(&self, name: &str) -> String {
        self.run_pod(self.pod_config(name)).unwrap_or_else(|status| panic!("run the pod {name}: {status}"))
    }

    /// RunPodSandbox.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn run_pod(&self, config: wire::PodSandboxConfig) -> Result<String, Status> {
        let request = wire::RunPodSandboxRequest { config: Some(config), ..Default::default() };
        self.call(self.client().run_pod_sandbox(request)).map(|answer| answer.pod_sandbox_id)
    }

    /// StopPodSandbox.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call(self.client().stop_pod_sandbox(request)).map(drop)
    }

    /// RemovePodSandbox.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call(self.client().remove_pod_sandbox(request)).map(drop)
    }

    /// ListPodSandbox, without a filter.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn pods(&self) -> Result<Vec<wire::PodSandbox>, Status> {
        self.call(self.client().list_pod_sandbox(wire::ListPodSandboxRequest::default()))
            .map(|answer| answer.items)
    }

    /// PodSandboxStatus, verbose.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn pod_status(&self, id: &str) -> Result<(wire::PodSandboxStatus, serde_json::Value), Status> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer = self.call(self.client().pod_sandbox_status(request))?;
        let info = answer.info.get("info").map(|info| serde_json::from_str(info).expect("info is JSON"));
        Ok((answer.status.expect("a status"), info.unwrap_or_default()))
    }

    /// The pid of a pod's sandbox.
    ///
    /// # Panics
    /// If there is no such pod.
    #[track_caller]
    pub fn pod_pid(&self, id: &str) -> i32 {
        let (_, info) = self.pod_status(id).expect("a status");
        info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
    }

    /// The shims of this daemon's pods.
    pub fn shims(&self) -> Vec<proc::Process> {
        let address = format!("-address {} ", self.daemon.address().display());
        proc::shims(NAMESPACE).into_iter().filter(|shim| shim.cmdline.contains(&address)).collect()
    }

    /// Everything that pods can leave behind, each line with its kind.
    pub fn ledger(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for process in self.shims().iter().chain(&proc::contained(self.daemon.namespace())) {
            lines.insert(format!("process {} {}", process.pid, process.cmdline));
        }
        lines.extend(
            proc::mounts_below(self.daemon.dir()).iter().map(|path| format!("mount {}", path.display())),
        );
        let groups = proc::cgroups(self.daemon.namespace());
        let groups = groups.iter().filter(|path| !path.ends_with(self.daemon.namespace()));
        lines.extend(groups.map(|path| format!("cgroup {}", path.display())));
        let (root, state, tasks) = (self.root(), self.state(), "io.containerd.runtime.v2.task/k8s.io");
        for dir in [
            root.join("sandboxes"),
            root.join("containers"),
            state.join("sandboxes"),
            state.join("containers"),
        ] {
            list("file", &dir, &mut lines);
        }
        list("bundle", &self.daemon.state().join(tasks), &mut lines);
        list("bundle", &self.daemon.root().join(tasks), &mut lines);
        list("netns", &state.join("netns"), &mut lines);
        list("result", &self.cni().join("cache/results"), &mut lines);
        list("address", &self.cni().join("ipam").join(&self.network), &mut lines);
        lines.retain(|line| !line.ends_with("/lock") && !line.contains("last_reserved_ip"));
        for kind in ["containers", "leases", "snapshots"] {
            let listed = self.daemon.ctr(&["-n", NAMESPACE, kind, "list"]).ok();
            let ids = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
            lines.extend(ids.map(|id| format!("row {kind} {id}")));
        }
        lines
    }

    /// Checks that nothing was added since `before`; what goes by itself may need a moment.
    ///
    /// # Panics
    /// With the list of what is left behind.
    #[track_caller]
    pub fn check_ledger(&self, before: &BTreeSet<String>) {
        ledger::nothing_added(before, || self.ledger(), deadline::patient(Duration::from_secs(10)));
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        if self.daemon.pid().is_some() && !std::thread::panicking() {
            for pod in self.pods().unwrap_or_default() {
                let _ = self.remove_pod(&pod.id);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.daemon.log());
        }
        self.daemon.kill();
        for process in self.shims() {
            proc::kill(process.pid);
        }
        for process in proc::contained(self.daemon.namespace()) {
            proc::kill(process.pid);
        }
        // The kernel takes the other ends of what pods were attached by.
        let _ = std::process::Command::new("ip").args(["link", "delete", &self.network]).output();
        let busybox = binaries::busybox();
        let _ = std::process::Command::new(busybox).args(["ip", "link", "delete", &self.network]).output();
    }
}

fn list(kind: &str, dir: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        lines.insert(format!("{kind} {}", entry.path().display()));
    }
}

fn config(daemon: &Daemon, section: &str) -> String {
    let cni = daemon.dir().join("cni");
    let place = |name: &str| format!("{:?}", cni.join(name));
    // Its socket would be the machine's, unless a test says where it is.
    let nri =
        if section.contains("io.containerd.nri.v1.nri") { "" } else { "\"io.containerd.nri.v1.nri\", " };
    format!(
        r#"version = 3
disabled_plugins = [{nri}"io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]
[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.runtime']
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{}]
conf_dir = {}
cache_dir = {}
{section}
"#,
        place("bin"),
        place("net.d"),
        place("cache"),
    )
}
