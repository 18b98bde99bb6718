//! Pods whose groups systemd keeps (`SystemdCgroup = true`), as most nodes have it: the sandbox and each container are a scope in the
//! slice that the kubelet names, with their limits; they outlive a restart of the unit and leave nothing to systemd.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::cri as wire;
use containerd_tests::cri::RUNTIME;
use containerd_tests::{Cri, Kubelet, deadline, eventually, ledger, proc};

use super::{property_of, run};

/// Where the one tree of version 2 is.
const TREE: &str = "/sys/fs/cgroup";

/// What a shim that died has left is ended by a program, which may need longer here than elsewhere.
const PATIENCE: &str = "[timeouts]\n'io.containerd.timeout.shim.cleanup' = '2m'\n";

/// A daemon that is a unit of its own, with runc told that systemd keeps the groups, and the slice of its pods.
struct Unit {
    cri: Arc<Cri>,
    name: String,
    file: PathBuf,
    /// The name of the slice alone.
    slice: String,
    /// The slice as a kubelet names it.
    path: String,
    before: BTreeSet<String>,
}

impl Unit {
    /// `None`, said aloud, where this is not the guest.
    fn start(uid: &str) -> Option<Self> {
        let Some(programs) = std::env::var_os("TEST_SYSTEMD").map(PathBuf::from) else {
            eprintln!("skipped: only under systemd in the guest: cargo xtask guest systemd");
            return None;
        };
        let cri = Cri::prepare(PATIENCE)?;
        cri.set(&format!("{RUNTIME}.containerd.runtimes.runc"), "runtime_type = 'io.containerd.runc.v2'");
        cri.set(&format!("{RUNTIME}.containerd.runtimes.runc.options"), "SystemdCgroup = true");
        let name = format!("{}.service", cri.daemon.namespace());
        let file = Path::new("/run/systemd/system").join(&name);
        let shipped = fs::read_to_string(programs.join("containerd.service")).unwrap();
        fs::write(&file, unit(&shipped, &cri.daemon.command())).unwrap();
        run("systemctl", &["daemon-reload"]);
        let slice = format!("kubepods-burstable-pod{uid}.slice");
        let path = format!("/kubepods.slice/kubepods-burstable.slice/{slice}");
        let mut unit = Self { cri: Arc::new(cri), name, file, slice, path, before: BTreeSet::new() };
        unit.systemctl("start");
        let image = unit.cri.image();
        unit.cri.knows(image);
        unit.before = unit.ledger();
        Some(unit)
    }

    /// Has the unit do something, and returns when CRI answers.
    fn systemctl(&self, verb: &str) {
        run("systemctl", &[verb, &self.name]);
        eventually("CRI answers", || self.cri.pods().is_ok());
    }

    /// A pod below this parent, on the network of the host.
    fn pod(&self, name: &str, cgroup_parent: &str) -> Kubelet {
        let config = self.config(name, cgroup_parent);
        let pod = self.cri.run_pod(config.clone()).unwrap_or_else(|status| panic!("run {name}: {status}"));
        Kubelet { cri: Arc::clone(&self.cri), pod, pod_config: config }
    }

    fn config(&self, name: &str, cgroup_parent: &str) -> wire::PodSandboxConfig {
        let mut config = self.cri.pod_config(name);
        config.hostname.clear();
        let linux = config.linux.as_mut().unwrap();
        cgroup_parent.clone_into(&mut linux.cgroup_parent);
        let options = linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
        options.set_network(wire::NamespaceMode::Node);
        config
    }

    /// What pods can leave behind, the scopes that systemd knows and the directories of groups among it.
    fn ledger(&self) -> BTreeSet<String> {
        let mut lines = self.cri.ledger();
        lines.extend(scopes().into_iter().map(|line| format!("unit {line}")));
        let found = run("find", &[TREE, "-name", "cri-containerd*", "-type", "d"]);
        lines.extend(found.lines().map(|line| format!("cgroup {line}")));
        lines
    }

    /// Removes all pods, and checks that nothing is left of them.
    #[track_caller]
    fn leaves_nothing(&self) {
        for pod in self.cri.pods().unwrap() {
            // A runtime on a slow machine may need longer to kill than a call waits: a kubelet asks again.
            eventually("the pod is stopped", || self.cri.stop_pod(&pod.id).is_ok());
            self.cri.remove_pod(&pod.id).unwrap();
        }
        ledger::nothing_added(&self.before, || self.ledger(), deadline::patient(Duration::from_secs(5)));
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for pod in self.cri.pods().unwrap_or_default() {
            let _ = self.cri.remove_pod(&pod.id);
        }
        let _ = Command::new("systemctl").args(["stop", &self.name, &self.slice]).output();
        if std::thread::panicking() {
            let journal = Command::new("journalctl").args(["--no-pager", "--unit", &self.name]).output();
            let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            eprintln!("--- the unit's journal\n{}---", journal.unwrap_or_default());
        }
        let _ = fs::remove_file(&self.file);
        let _ = Command::new("systemctl").arg("daemon-reload").output();
    }
}

/// The unit that we ship, with another command and its PATH.
fn unit(shipped: &str, command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let path = command.get_envs().find_map(|(key, value)| value.filter(|_| key == "PATH"));
    let start = format!("ExecStart={}\nEnvironment=PATH={}", words.join(" "), path.unwrap().display());
    let changed = shipped.replace("ExecStart=/usr/local/bin/containerd", &start);
    assert_ne!(changed, shipped, "the unit starts the daemon in another way");
    changed
}

/// The scopes of containers that systemd knows, also those that have failed.
fn scopes() -> Vec<String> {
    let units = ["list-units", "--all", "--plain", "--no-legend", "cri-containerd-*"];
    run("systemctl", &units).lines().map(str::to_owned).collect()
}

/// The group of a process, as the whole machine sees it.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim().strip_prefix("0::").expect("only cgroup v2").to_owned()
}

/// What systemd says of a scope.
fn property(id: &str, name: &str) -> String {
    property_of(&format!("cri-containerd-{id}.scope"), name)
}

fn limits(memory: i64, quota: i64, pids: u32) -> wire::LinuxContainerResources {
    wire::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: quota,
        cpu_shares: 512,
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: memory,
        unified: [("pids.max".to_owned(), pids.to_string())].into(),
        ..Default::default()
    }
}

/// A container that sleeps, with limits.
fn limited(pod: &Kubelet, name: &str, resources: wire::LinuxContainerResources) -> String {
    let mut config = pod.config(name, "exec sleep 100000");
    config.linux.as_mut().unwrap().resources = Some(resources);
    pod.run_config(config)
}

fn pod_stats(pod: &Kubelet) -> wire::LinuxPodSandboxStats {
    let request = wire::PodSandboxStatsRequest { pod_sandbox_id: pod.pod.clone() };
    pod.cri.call(pod.cri.client().pod_sandbox_stats(request)).unwrap().stats.unwrap().linux.unwrap()
}

/// What a group uses of processors and memory is told, and is more than nothing.
#[track_caller]
fn assert_used(cpu: Option<wire::CpuUsage>, memory: Option<wire::MemoryUsage>) -> u64 {
    assert!(cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let used = memory.unwrap().working_set_bytes.unwrap().value;
    assert!(used > 0);
    used
}

#[test]
fn a_pod_is_scopes_in_the_slice_that_the_kubelet_names_and_leaves_none() {
    let Some(unit) = Unit::start("1a") else { return };
    let told = unit.cri.call(unit.cri.client().runtime_config(wire::RuntimeConfigRequest {})).unwrap();
    assert_eq!(told.linux.unwrap().cgroup_driver(), wire::CgroupDriver::Systemd);
    let pod = unit.pod("named", &unit.path);
    assert_eq!(
        group_of(unit.cri.pod_pid(&pod.pod)),
        format!("{}/cri-containerd-{}.scope", unit.path, pod.pod)
    );
    let id = limited(&pod, "limited", limits(64 << 20, 50_000, 77));
    let group = group_of(pod.pid(&id));
    assert_eq!(group, format!("{}/cri-containerd-{id}.scope", unit.path));
    let read = |file: &str| {
        let text = fs::read_to_string(Path::new(TREE).join(&group[1..]).join(file)).unwrap();
        text.trim().to_owned()
    };
    let files = || ["cpu.max", "memory.max", "memory.swap.max", "pids.max"].map(read);
    let systemds = || ["CPUQuotaPerSecUSec", "MemoryMax", "TasksMax"].map(|name| property(&id, name));
    let mib = |n: u64| (n << 20).to_string();
    assert_eq!(files(), ["50000 100000".to_owned(), mib(64), "0".to_owned(), "77".to_owned()]);
    // What systemd knows holds also after its own reload.
    assert_eq!(systemds(), ["500ms".to_owned(), mib(64), "77".to_owned()]);
    assert_eq!(property(&id, "ActiveState"), "active");

    pod.update(&id, limits(96 << 20, 25_000, 78)).unwrap();
    assert_eq!(files(), ["25000 100000".to_owned(), mib(96), "0".to_owned(), "78".to_owned()]);
    assert_eq!(systemds(), ["250ms".to_owned(), mib(96), "78".to_owned()]);
    run("systemctl", &["daemon-reload"]);
    assert_eq!(files()[..2], ["25000 100000".to_owned(), mib(96)]);

    // An exec is in the scope, which it sees as the root.
    let said = pod.sync(&id, "cat /proc/self/cgroup", 0).unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "0::/\n");

    let request = wire::ContainerStatsRequest { container_id: id.clone() };
    let stats = unit.cri.call(unit.cri.client().container_stats(request)).unwrap().stats.unwrap();
    let of_container = assert_used(stats.cpu, stats.memory);
    let stats = pod_stats(&pod);
    let of_pod = assert_used(stats.cpu, stats.memory);
    assert!(of_pod > of_container, "{of_pod} {of_container}: the sandbox is the pod's as well");
    unit.leaves_nothing();
}

#[test]
fn a_slice_may_be_named_without_those_above_it_and_without_one_a_pod_is_the_systems() {
    let Some(unit) = Unit::start("2b") else { return };
    let pod = unit.pod("short", &unit.slice);
    let id = pod.run("c", "exec sleep 100000");
    assert_eq!(group_of(pod.pid(&id)), format!("{}/cri-containerd-{id}.scope", unit.path));
    let stats = pod_stats(&pod);
    assert_used(stats.cpu, stats.memory);

    let pod = unit.pod("none", "");
    let id = pod.run("c", "exec sleep 100000");
    for (id, pid) in [(&pod.pod, unit.cri.pod_pid(&pod.pod)), (&id, pod.pid(&id))] {
        assert_eq!(group_of(pid), format!("/system.slice/cri-containerd-{id}.scope"));
    }

    // A kubelet with the other driver is told so, and nothing is made.
    let refused = unit.cri.run_pod(unit.config("other", "/kubepods/burstable/pod3c")).unwrap_err();
    assert!(refused.message().contains("slice:prefix:name"), "{refused}");
    unit.leaves_nothing();
}

#[test]
fn a_scope_without_memory_and_one_without_its_shim_are_told_of_and_go() {
    let Some(unit) = Unit::start("4d") else { return };
    let pod = unit.pod("harmed", &unit.path);
    let eats = "x=a; while true; do x=$x$x; done";
    for (name, script, code) in
        [("init", eats.to_owned(), 137), ("child", format!("sh -c '{eats}'; exit 5"), 5)]
    {
        let mut config = pod.config(name, &script);
        config.linux.as_mut().unwrap().resources = Some(limits(16 << 20, 0, 50));
        let id = pod.run_config(config);
        let ended = pod.exits(&id);
        assert_eq!((ended.reason.as_str(), ended.exit_code), ("OOMKilled", code), "{name}");
        pod.remove(&id).unwrap();
    }

    let id = pod.run("orphan", "exec sleep 100000");
    for shim in unit.cri.shims() {
        proc::kill(shim.pid);
    }
    let ended = pod.exits(&id);
    assert_eq!(ended.exit_code, 137);
    eventually("its scope is gone", || !scopes().iter().any(|line| line.contains(&id)));
    unit.leaves_nothing();
}

#[test]
fn pods_outlive_a_restart_of_the_unit_in_their_scopes() {
    let Some(unit) = Unit::start("5e") else { return };
    let pod = unit.pod("lasting", &unit.path);
    let id = limited(&pod, "c", limits(64 << 20, 50_000, 77));
    let seen = || {
        let (sandbox, container) = (unit.cri.pod_pid(&pod.pod), pod.pid(&id));
        (sandbox, container, group_of(sandbox), group_of(container))
    };
    let before = seen();
    for verb in ["restart", "reload-or-restart"] {
        unit.systemctl(verb);
        assert_eq!(seen(), before, "{verb}");
    }
    run("systemctl", &["kill", "--kill-who=main", "--signal=KILL", &unit.name]);
    eventually("systemd has started it again", || {
        property_of(&unit.name, "ActiveState") == "active" && unit.cri.pods().is_ok()
    });
    assert_eq!(seen(), before);
    assert_eq!(pod.status(&id).state(), wire::ContainerState::ContainerRunning);
    pod.update(&id, limits(96 << 20, 25_000, 78)).unwrap();
    assert_eq!(property(&id, "MemoryMax"), (96u64 << 20).to_string());
    let stats = pod_stats(&pod);
    assert_used(stats.cpu, stats.memory);
    eventually("it is stopped", || pod.stop(&id, 1).is_ok());
    eventually("its scope is gone", || !scopes().iter().any(|line| line.contains(&id)));
    unit.leaves_nothing();
}
