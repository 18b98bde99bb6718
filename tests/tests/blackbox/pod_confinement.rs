//! What confines a container of a pod where the kernel has it: AppArmor's profile, and the files of cgroup v2. `./x guest blackbox`
//! has both; elsewhere these tests say that they were skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::cri as wire;
use containerd_tests::cri::RUNTIME;
use containerd_tests::{Cri, eventually, proc};
use tonic::{Code, Status};
use wire::security_profile::ProfileType;

/// What the kernel says of the process that asks.
const OWN_PROFILE: &str = "/proc/self/attr/current";
/// The profile of whoever names none.
const DEFAULT_PROFILE: &str = "cri-containerd.apparmor.d (enforce)\n";

/// A pod, and how a container of it is made and started.
struct Pod {
    cri: Cri,
    id: String,
    config: wire::PodSandboxConfig,
}

impl Pod {
    fn start() -> Option<Self> {
        Some(Self::with(Cri::start()?, |_| {}))
    }

    /// A pod of a daemon that runs, with something else in its configuration.
    fn with(cri: Cri, change: impl FnOnce(&mut wire::PodSandboxConfig)) -> Self {
        let spec = wire::ImageSpec { image: cri.image().to_owned(), ..Default::default() };
        let known = wire::ImageStatusRequest { image: Some(spec), verbose: false };
        eventually("the image is known", || {
            cri.call(cri.images().image_status(known.clone())).unwrap().image.is_some()
        });
        let mut config = cri.pod_config("confined");
        change(&mut config);
        Self { id: cri.run_pod(config.clone()).unwrap(), config, cri }
    }

    fn run(&self, name: &str, linux: wire::LinuxContainerConfig) -> Result<String, Status> {
        let image = wire::ImageSpec { image: self.cri.image().to_owned(), ..Default::default() };
        let config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(image),
            command: ["sleep", "1000"].map(str::to_owned).to_vec(),
            linux: Some(linux),
            ..Default::default()
        };
        let create = wire::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let container_id = self.cri.call(self.cri.client().create_container(create))?.container_id;
        let start = wire::StartContainerRequest { container_id: container_id.clone() };
        self.cri.call(self.cri.client().start_container(start))?;
        Ok(container_id)
    }

    /// What a second process in the container reads.
    fn reads(&self, id: &str, path: &str) -> String {
        String::from_utf8_lossy(&self.executes(id, &["cat", path]).stdout).into_owned()
    }

    fn executes(&self, id: &str, command: &[&str]) -> wire::ExecSyncResponse {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = wire::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 0 };
        self.cri.call(self.cri.client().exec_sync(request)).unwrap()
    }

    /// What the kernel says of the container's first process.
    fn profile(&self, id: &str) -> String {
        fs::read_to_string(format!("/proc/{}/attr/current", self.pid(id))).unwrap()
    }

    fn pid(&self, id: &str) -> i64 {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.cri.call(self.cri.client().container_status(request)).unwrap();
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        info["pid"].as_i64().unwrap()
    }

    /// The container's directory in the hierarchy.
    fn group(&self, id: &str) -> PathBuf {
        let groups = proc::cgroups(self.cri.daemon.namespace());
        groups.into_iter().find(|path| path.ends_with(id)).unwrap()
    }
}

/// A container whose profile is named by today's field.
fn under(kind: ProfileType, localhost_ref: &str) -> wire::LinuxContainerConfig {
    let profile =
        wire::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.to_owned() };
    let security = wire::LinuxContainerSecurityContext { apparmor: Some(profile), ..Default::default() };
    wire::LinuxContainerConfig { security_context: Some(security), ..Default::default() }
}

/// Whether containers can have profiles here; said aloud if not.
fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let has = enabled.starts_with('Y') && Path::new("/sbin/apparmor_parser").exists();
    if !has {
        eprintln!("skipped: there is no AppArmor here, or no apparmor_parser");
    }
    has
}

#[test]
fn a_container_and_whoever_enters_it_has_the_default_profile_unless_it_names_another_or_none() {
    if !has_apparmor() {
        return;
    }
    let Some(pod) = Pod::start() else { return };
    let both = |id: &str| (pod.profile(id), pod.reads(id, OWN_PROFILE));
    let confined = (DEFAULT_PROFILE.to_owned(), DEFAULT_PROFILE.to_owned());
    let unnamed = pod.run("unnamed", wire::LinuxContainerConfig::default()).unwrap();
    assert_eq!(both(&unnamed), confined);
    let default = pod.run("default", under(ProfileType::RuntimeDefault, "")).unwrap();
    assert_eq!(both(&default), confined);
    // By its name the same profile is an administrator's: the kernel has it by now.
    let named =
        pod.run("named", under(ProfileType::Localhost, "localhost/cri-containerd.apparmor.d")).unwrap();
    assert_eq!(both(&named), confined);
    let free = pod.run("free", under(ProfileType::Unconfined, "")).unwrap();
    assert_eq!(both(&free), ("unconfined\n".to_owned(), "unconfined\n".to_owned()));
    let unknown = pod.run("unknown", under(ProfileType::Localhost, "localhost/nowhere")).unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert!(unknown.message().contains("apparmor profile not found nowhere"), "{unknown}");
}

/// Whether this machine has cgroup v2; said aloud if not.
fn has_cgroup_v2() -> bool {
    let has = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !has {
        eprintln!("skipped: this machine has cgroup v1");
    }
    has
}

#[test]
fn where_profiles_are_turned_off_nobody_has_one_and_who_asks_for_one_is_refused() {
    if !has_apparmor() {
        return;
    }
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(RUNTIME, "disable_apparmor = true");
    cri.launch();
    let pod = Pod::with(cri, |_| {});
    let unnamed = pod.run("unnamed", wire::LinuxContainerConfig::default()).unwrap();
    let free = pod.run("free", under(ProfileType::Unconfined, "")).unwrap();
    for id in [unnamed, free] {
        assert_eq!(pod.profile(&id), "unconfined\n");
        assert_eq!(pod.reads(&id, OWN_PROFILE), "unconfined\n");
    }
    for (kind, name) in [(ProfileType::RuntimeDefault, ""), (ProfileType::Localhost, "localhost/x")] {
        let refused = pod.run("refused", under(kind, name)).unwrap_err();
        assert!(refused.message().contains("apparmor is not supported"), "{refused}");
    }
}

#[test]
fn on_cgroup_v2_a_container_makes_groups_below_its_own_only_where_that_is_set() {
    if !has_cgroup_v2() {
        return;
    }
    for writable in [false, true] {
        let Some(cri) = Cri::prepare("") else { return };
        let keys = format!("runtime_type = 'io.containerd.runc.v2'\ncgroup_writable = {writable}");
        cri.set(&format!("{RUNTIME}.containerd.runtimes.runc"), &keys);
        cri.launch();
        let pod = Pod::with(cri, |_| {});
        let id = pod.run("c", wire::LinuxContainerConfig::default()).unwrap();
        let made = pod.executes(&id, &["mkdir", "/sys/fs/cgroup/own"]);
        assert_eq!(made.exit_code == 0, writable, "{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(pod.group(&id).join("own").is_dir(), writable);
        let above = pod.executes(&id, &["ls", "/sys/fs/cgroup/own/..", "/sys/fs/cgroup/.."]);
        assert!(!String::from_utf8_lossy(&above.stdout).contains(&pod.id), "it sees none above its own");
    }
}

#[test]
fn on_cgroup_v2_a_privileged_container_sees_all_groups_and_may_change_them() {
    if !has_cgroup_v2() {
        return;
    }
    let Some(cri) = Cri::start() else { return };
    let pod = Pod::with(cri, |config| {
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    });
    let security = wire::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    let linux = wire::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    let id = pod.run("c", linux).unwrap();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    assert_eq!(namespace(&pod.pid(&id).to_string()), namespace("self"));
    let group = format!("/{}/{id}", pod.cri.daemon.namespace());
    assert_eq!(pod.reads(&id, "/proc/self/cgroup"), format!("0::{group}\n"));
    let made = pod.executes(&id, &["mkdir", &format!("/sys/fs/cgroup{group}/own")]);
    assert_eq!(made.exit_code, 0, "{}", String::from_utf8_lossy(&made.stderr));
    assert!(pod.group(&id).join("own").is_dir());
}

#[test]
fn on_cgroup_v2_limits_are_files_of_the_containers_group_which_it_sees_as_its_root() {
    if !has_cgroup_v2() {
        return;
    }
    let Some(pod) = Pod::start() else { return };
    let resources = wire::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        cpuset_cpus: "0".to_owned(),
        memory_limit_in_bytes: 64 << 20,
        unified: BTreeMap::from([("memory.high".to_owned(), (48 << 20).to_string())]),
        ..Default::default()
    };
    let linux = wire::LinuxContainerConfig { resources: Some(resources), ..Default::default() };
    let id = pod.run("limited", linux).unwrap();
    let group = pod.group(&id);
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap().trim().to_owned();
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("cpuset.cpus"), "0");
    assert_eq!(read("memory.max"), (64 << 20).to_string());
    assert_eq!(read("memory.high"), (48 << 20).to_string());
    // Runtimes differ in how they convert shares, but less than usual (100) is less.
    let weight: u32 = read("cpu.weight").parse().unwrap();
    assert!((1..100).contains(&weight), "{weight}");
    assert_eq!(pod.reads(&id, "/proc/self/cgroup"), "0::/\n");
    let stats = wire::ContainerStatsRequest { container_id: id.clone() };
    let stats = pod.cri.call(pod.cri.client().container_stats(stats)).unwrap().stats.unwrap();
    let memory = stats.memory.unwrap();
    assert!(memory.working_set_bytes.is_some_and(|used| used.value > 0 && used.value < 64 << 20));
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.is_some_and(|used| used.value > 0));
}
