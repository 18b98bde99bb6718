//! SELinux: processes and files of a pod have a label whose level no other pod has, and the kernel keeps pods from each other's
//! files by it. `./x guest selinux` has a policy for that (`tests/guest/selinux`) and enforces it; elsewhere these tests say that
//! they were skipped.

use std::fs;
use std::path::Path;

use api::cri as wire;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::cri::{IMAGES, RUNTIME};
use containerd_tests::tar::Entry;
use containerd_tests::{Cri, Kubelet, binaries};
use tonic::{Code, Status};
use wire::NamespaceMode::Node;

/// What the policy gives to containers, without levels.
const PROCESS: &str = "system_u:system_r:container_t";
const FILE: &str = "system_u:object_r:container_file_t";
/// What files of the machine have where nobody has said otherwise.
const OF_HOST: &str = "system_u:object_r:tmpfs_t:s0";
/// What the policy gives to layers.
const OF_LAYERS: &str = "system_u:object_r:container_file_t:s0";

/// Whether the policy that these tests are written for is in force; said aloud if not, and wrong where it should be.
fn has_selinux() -> bool {
    let config = fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let enforces = fs::read_to_string("/sys/fs/selinux/enforce").unwrap_or_default();
    let has = config.contains("SELINUXTYPE=containerd-rs-guest") && enforces.trim() == "1";
    if !has {
        assert!(
            std::env::var_os("TEST_SELINUX").is_none(),
            "the policy is not in force: {enforces:?}, {config:?}"
        );
        eprintln!("skipped: the policy of tests/guest/selinux is not in force here");
    }
    has
}

/// A daemon that uses SELinux, not started yet.
fn prepare() -> Option<Cri> {
    if !has_selinux() {
        return None;
    }
    let cri = Cri::prepare("")?;
    cri.set(RUNTIME, "enable_selinux = true");
    Some(cri)
}

fn start() -> Option<Kubelet> {
    let cri = prepare()?;
    cri.launch();
    Some(Kubelet::with(cri))
}

fn options(user: &str, role: &str, kind: &str, level: &str) -> wire::SeLinuxOption {
    let [user, role, r#type, level] = [user, role, kind, level].map(str::to_owned);
    wire::SeLinuxOption { user, role, r#type, level }
}

/// Another pod, whose security is something else.
fn pod(
    kubelet: &Kubelet,
    name: &str,
    change: impl FnOnce(&mut wire::LinuxSandboxSecurityContext),
) -> Result<Kubelet, Status> {
    let mut config = kubelet.cri.pod_config(name);
    change(config.linux.as_mut().unwrap().security_context.as_mut().unwrap());
    kubelet.pod(config, "")
}

/// A container that sleeps, whose security is something else.
fn sleeper(
    kubelet: &Kubelet,
    name: &str,
    change: impl FnOnce(&mut wire::LinuxContainerSecurityContext),
) -> wire::ContainerConfig {
    let mut config = kubelet.config(name, "exec sleep 1000");
    change(config.linux.get_or_insert_default().security_context.get_or_insert_default());
    config
}

fn mount(host: &Path, selinux_relabel: bool) -> wire::Mount {
    let (host_path, container_path) = (host.display().to_string(), "/vol".to_owned());
    wire::Mount { host_path, container_path, selinux_relabel, ..Default::default() }
}

/// Of a process, as the kernel tells it.
fn label(pid: i32) -> String {
    clean(&fs::read(format!("/proc/{pid}/attr/current")).unwrap())
}

/// Of a file, or of a link itself.
fn label_of(path: impl AsRef<Path>) -> String {
    let mut value = Vec::with_capacity(256);
    let path = path.as_ref();
    rustix::fs::lgetxattr(path, "security.selinux", rustix::buffer::spare_capacity(&mut value))
        .unwrap_or_else(|errno| panic!("the label of {}: {errno}", path.display()));
    clean(&value)
}

fn clean(label: &[u8]) -> String {
    String::from_utf8_lossy(label).trim_end_matches('\0').trim().to_owned()
}

/// The level, which must be two categories.
fn level(label: &str) -> String {
    let level = label.splitn(4, ':').nth(3).unwrap_or_default().to_owned();
    let pair = level.strip_prefix("s0:c").and_then(|pair| pair.split_once(",c"));
    let (low, high) = pair.unwrap_or_else(|| panic!("{label:?} has no level of its own"));
    assert!(low.parse::<u32>().unwrap() < high.parse::<u32>().unwrap(), "{label}");
    level
}

/// What all files of a process's root have, if that is said at its mount.
fn label_of_root(pid: i32) -> Option<String> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let (_, rest) = root.split_once("context=")?;
    Some(rest.trim_start_matches('"').split(['"', ' ']).next().unwrap().to_owned())
}

/// What a second process in the container does; its output, or what it complains about.
fn does(kubelet: &Kubelet, id: &str, script: &str) -> Result<String, String> {
    let done = kubelet.sync(id, script, 0).unwrap();
    if done.exit_code == 0 { Ok(clean(&done.stdout)) } else { Err(clean(&done.stderr)) }
}

#[test]
fn each_pod_has_a_level_of_its_own_which_its_containers_have_and_whoever_enters_them() {
    let Some(one) = start() else { return };
    let other = pod(&one, "other", |_| {}).unwrap();
    let sandbox = label(one.cri.pod_pid(&one.pod));
    assert_eq!(sandbox, format!("{PROCESS}:{}", level(&sandbox)));
    for name in ["a", "b"] {
        let id = one.run(name, "exec sleep 1000");
        assert_eq!(label(one.pid(&id)), sandbox);
        assert_eq!(does(&one, &id, "cat /proc/self/attr/current").unwrap(), sandbox);
        assert_eq!(label_of_root(one.pid(&id)), Some(format!("{FILE}:{}", level(&sandbox))));
    }
    let id = other.run("c", "exec sleep 1000");
    assert_eq!(label(other.pid(&id)), label(other.cri.pod_pid(&other.pod)));
    assert_ne!(level(&label(other.pid(&id))), level(&sandbox));
}

#[test]
fn what_a_request_says_of_the_label_is_in_it() {
    let Some(kubelet) = start() else { return };
    let asked = options("other_u", "other_r", "container_other_t", "s0:c5,c6");
    let named = pod(&kubelet, "named", |pod| pod.selinux_options = Some(asked)).unwrap();
    let whole = "other_u:other_r:container_other_t:s0:c5,c6";
    assert_eq!(label(named.cri.pod_pid(&named.pod)), whole);
    let id = named.run("as-its-pod", "exec sleep 1000");
    assert_eq!(label(named.pid(&id)), whole);
    assert_eq!(does(&named, &id, "cat /proc/self/attr/current").unwrap(), whole);
    // Roles and types of processes are not those of files.
    let files = "other_u:object_r:container_file_t:s0:c5,c6".to_owned();
    assert_eq!(label_of_root(named.pid(&id)), Some(files));
    // Whoever names something gets nothing from the pod, not even its level.
    let asked = options("", "", "spc_t", "");
    let own = named.run_config(sleeper(&named, "own", |own| own.selinux_options = Some(asked)));
    let own = label(named.pid(&own));
    assert_eq!(own, format!("system_u:system_r:spc_t:{}", level(&own)));
    assert_ne!(level(&own), "s0:c5,c6");
}

#[test]
fn a_privileged_container_is_the_runtimes_and_its_files_are_the_pods() {
    let Some(kubelet) = start() else { return };
    let privileged = pod(&kubelet, "privileged", |pod| pod.privileged = true).unwrap();
    let runtime = label(std::process::id().try_into().unwrap());
    assert_eq!(label(privileged.cri.pod_pid(&privileged.pod)), runtime);
    let id = privileged.run_config(sleeper(&privileged, "a", |own| own.privileged = true));
    assert_eq!(label(privileged.pid(&id)), runtime);
    assert_eq!(does(&privileged, &id, "cat /proc/self/attr/current").unwrap(), runtime);
    let files = label_of_root(privileged.pid(&id)).unwrap();
    assert_eq!(files, format!("{FILE}:{}", level(&files)));
    // The pod has a level for those that are not privileged.
    let id = privileged.run("b", "exec sleep 1000");
    assert_eq!(label(privileged.pid(&id)), format!("{PROCESS}:{}", level(&files)));
}

#[test]
fn pods_with_the_hosts_processes_and_memory_have_labels_and_the_hosts_memory_keeps_its_own() {
    let Some(kubelet) = start() else { return };
    let before = label_of("/dev/shm");
    let mut namespaces = wire::NamespaceOption::default();
    (namespaces.pid, namespaces.ipc) = (Node.into(), Node.into());
    let host = pod(&kubelet, "host", |pod| pod.namespace_options = Some(namespaces.clone())).unwrap();
    let sandbox = label(host.cri.pod_pid(&host.pod));
    let config = sleeper(&host, "a", |own| own.namespace_options = Some(namespaces));
    let id = host.run_config(config);
    assert_eq!(sandbox, format!("{PROCESS}:{}", level(&sandbox)));
    assert_eq!(label(host.pid(&id)), sandbox);
    assert_eq!(label_of("/dev/shm"), before);
}

#[test]
fn where_it_is_not_enabled_nobody_has_a_label_of_a_container() {
    if !has_selinux() {
        return;
    }
    let Some(kubelet) = Kubelet::start() else { return };
    let volume = kubelet.cri.daemon.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let asked = options("", "", "spc_t", "s0:c1,c2");
    let mut config = sleeper(&kubelet, "a", |own| own.selinux_options = Some(asked));
    config.mounts = vec![mount(&volume, true)];
    let id = kubelet.run_config(config);
    let runtime = label(std::process::id().try_into().unwrap());
    assert_eq!(label(kubelet.cri.pod_pid(&kubelet.pod)), runtime);
    assert_eq!(label(kubelet.pid(&id)), runtime);
    assert_eq!(label_of_root(kubelet.pid(&id)), None);
    assert_eq!(label_of(&volume), OF_HOST);
    assert!(kubelet.spec(&id)["linux"]["mountLabel"].as_str().unwrap_or_default().is_empty());
}

#[test]
fn a_containers_files_and_its_pods_memory_are_its_own_to_change() {
    let Some(kubelet) = start() else { return };
    let id = kubelet.run("a", "exec sleep 1000");
    let own = format!("{FILE}:{}", level(&label(kubelet.pid(&id))));
    does(&kubelet, &id, "for dir in / /etc /dev /dev/shm; do echo x > $dir/new || exit 1; done").unwrap();
    does(&kubelet, &id, "cat /etc/hosts /etc/hostname /etc/resolv.conf /proc/self/status /etc/new").unwrap();
    let memory = kubelet.cri.state().join("sandboxes").join(&kubelet.pod).join("shm");
    assert_eq!(label_of(&memory), own);
    assert_eq!(label_of(memory.join("new")), own);
    for file in ["hosts", "hostname", "resolv.conf"] {
        assert_eq!(
            label_of(kubelet.cri.root().join("sandboxes").join(&kubelet.pod).join(file)),
            own,
            "{file}"
        );
    }
    // Whatever else runc mounts, it mounts with the label.
    let inside = format!("/proc/{}/root/dev", kubelet.pid(&id));
    assert_eq!((label_of(&inside), label_of(format!("{inside}/new"))), (own.clone(), own));
}

#[test]
fn a_volume_is_relabelled_whole_if_the_request_says_so() {
    let Some(kubelet) = start() else { return };
    let dir = kubelet.cri.daemon.dir();
    let (volume, canary) = (dir.join("volume"), dir.join("canary"));
    fs::create_dir_all(volume.join("deep/er")).unwrap();
    fs::write(volume.join("deep/er/file"), "in the volume").unwrap();
    fs::write(&canary, "outside").unwrap();
    std::os::unix::fs::symlink(&canary, volume.join("deep/link")).unwrap();
    let mut config = kubelet.config("a", "exec sleep 1000");
    config.mounts = vec![mount(&volume, true)];
    let id = kubelet.run_config(config);
    let own = format!("{FILE}:{}", level(&label(kubelet.pid(&id))));
    for path in ["", "deep", "deep/er", "deep/er/file", "deep/link"] {
        assert_eq!(label_of(volume.join(path)), own, "{path}");
    }
    assert_eq!(label_of(&canary), OF_HOST, "the link was followed");
    assert_eq!(does(&kubelet, &id, "cat /vol/deep/er/file; echo x > /vol/new").unwrap(), "in the volume");
}

#[test]
fn a_volume_that_is_not_to_be_relabelled_keeps_its_label_and_the_kernel_keeps_containers_out() {
    let Some(kubelet) = start() else { return };
    let volume = kubelet.cri.daemon.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "of the host").unwrap();
    let with_volume = |kubelet: &Kubelet, name: &str, relabel| {
        let mut config = kubelet.config(name, "exec sleep 1000");
        config.mounts = vec![mount(&volume, relabel)];
        kubelet.run_config(config)
    };
    let denied = |kubelet: &Kubelet, id: &str| {
        let refused = does(kubelet, id, "cat /vol/file").unwrap_err();
        assert!(refused.contains("Permission denied"), "{refused}");
        let refused = does(kubelet, id, "ls /vol").unwrap_err();
        assert!(refused.contains("Permission denied"), "{refused}");
    };
    let a = with_volume(&kubelet, "a", false);
    assert_eq!((label_of(&volume), label_of(volume.join("file"))), (OF_HOST.to_owned(), OF_HOST.to_owned()));
    denied(&kubelet, &a);
    // It becomes the first pod's. The other's containers have the same type, and another level.
    with_volume(&kubelet, "b", true);
    assert_eq!(does(&kubelet, &a, "cat /vol/file").unwrap(), "of the host");
    let other = pod(&kubelet, "other", |_| {}).unwrap();
    let c = with_volume(&other, "c", false);
    denied(&other, &c);
}

#[test]
fn directories_of_the_host_itself_are_not_relabelled() {
    let Some(kubelet) = start() else { return };
    let before = kubelet.cri.ledger();
    let label = label_of("/etc");
    let mut config = kubelet.config("a", "true");
    config.mounts = vec![mount(Path::new("/etc"), true)];
    let refused = kubelet.try_create(config).unwrap_err();
    assert!(refused.message().contains("SELinux relabeling of /etc is not allowed"), "{refused}");
    assert_eq!(label_of("/etc"), label);
    kubelet.cri.check_ledger(&before);
}

#[test]
fn volumes_of_images_have_the_label_and_images_keep_theirs() {
    let Some(kubelet) = start() else { return };
    let name = "docker.io/library/volumes:1";
    let files = [Entry::dir("data"), Entry::file("data/file", "of the image")];
    let image = Image::named(name).layer(&base_layer(), Packing::Gzip).layer(&files, Packing::Gzip);
    kubelet.import(name, &image.config("Volumes", serde_json::json!({"/data": {}})));
    let volume = |selinux_relabel| wire::Mount {
        container_path: "/vol".to_owned(),
        image: Some(wire::ImageSpec { image: name.to_owned(), ..Default::default() }),
        readonly: true,
        selinux_relabel,
        ..Default::default()
    };
    let started = |name_of: &str, relabel| {
        let mut config = kubelet.config(name_of, "exec sleep 1000");
        config.image.as_mut().unwrap().image = name.to_owned();
        config.mounts = vec![volume(relabel)];
        kubelet.run_config(config)
    };
    let id = started("a", false);
    let own = format!("{FILE}:{}", level(&label(kubelet.pid(&id))));
    // What the image declares is copied for the container, and the container's.
    assert_eq!(does(&kubelet, &id, "cat /data/file && echo x > /data/new").unwrap(), "of the image");
    let data = format!("/proc/{}/root/data", kubelet.pid(&id));
    for path in ["", "/file", "/new"] {
        assert_eq!(label_of(format!("{data}{path}")), own, "{path}");
    }
    // What is mounted of another image is as every other volume.
    let inside = |id: &str, path: &str| format!("/proc/{}/root{path}", kubelet.pid(id));
    assert_eq!(label_of(inside(&id, "/vol/data/file")), OF_LAYERS);
    let id = started("b", true);
    assert_eq!(label_of(inside(&id, "/vol/data/file")), own);
    assert_eq!(does(&kubelet, &id, "cat /vol/data/file").unwrap(), "of the image");
    // The next pod gets it unlabelled again: the layers are as they were.
    let other = pod(&kubelet, "other", |_| {}).unwrap();
    let mut config = other.config("c", "exec sleep 1000");
    config.mounts = vec![volume(false)];
    let id = other.run_config(config);
    assert_eq!(label_of(format!("/proc/{}/root/vol/data/file", other.pid(&id))), OF_LAYERS);
}

#[test]
fn a_sandbox_of_an_image_has_the_label_and_so_have_its_files() {
    const PAUSE: &str = "docker.io/test/pause:1";
    let Some(cri) = prepare() else { return };
    cri.set(&format!("{IMAGES}.pinned_images"), &format!("sandbox = {PAUSE:?}"));
    cri.launch();
    cri.pause_image(PAUSE);
    let id = cri.pod("a");
    let sandbox = label(cri.pod_pid(&id));
    assert_eq!(sandbox, format!("{PROCESS}:{}", level(&sandbox)));
    assert_eq!(label_of_root(cri.pod_pid(&id)), Some(format!("{FILE}:{}", level(&sandbox))));
}

#[test]
fn an_image_of_more_layers_than_fit_into_a_page_has_the_label_too() {
    let Some(kubelet) = start() else { return };
    let name = "docker.io/library/layers:1";
    let mut image = Image::named(name).layer(&base_layer(), Packing::Gzip);
    for n in 0..70 {
        image = image.layer(&[Entry::file(format!("file{n}"), "x")], Packing::Gzip);
    }
    kubelet.import(name, &image);
    let mut config = kubelet.config("a", "exec sleep 1000");
    config.image.as_mut().unwrap().image = name.to_owned();
    let id = kubelet.run_config(config);
    let own = format!("{FILE}:{}", level(&label(kubelet.pid(&id))));
    assert_eq!(label_of_root(kubelet.pid(&id)), Some(own));
    assert_eq!(does(&kubelet, &id, "cat /file0 /file69").unwrap(), "xx");
}

/// A daemon with one level to give away: one pair there is of two categories.
fn with_two_categories() -> Option<Cri> {
    if binaries::beyond_upstream("upstream looks for a free level for ever") {
        return None;
    }
    let cri = prepare()?;
    cri.set(RUNTIME, "enable_selinux = true\nselinux_category_range = 2");
    cri.launch();
    cri.image();
    Some(cri)
}

/// That all levels are taken.
fn is_exhausted(pod: Result<String, Status>) {
    let refused = pod.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("all levels of 2 SELinux categories are taken"), "{refused}");
}

#[test]
fn a_level_is_taken_as_long_as_its_pod_is_known_also_to_the_next_daemon() {
    let Some(cri) = with_two_categories() else { return };
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let cri = &kubelet.cri;
    assert_eq!(label(cri.pod_pid(&kubelet.pod)), format!("{PROCESS}:s0:c0,c1"));
    let (made, id) = (cri.ledger(), kubelet.run("a", "exec sleep 1000"));
    assert_eq!(label(kubelet.pid(&id)), format!("{PROCESS}:s0:c0,c1"));
    is_exhausted(cri.run_pod(cri.pod_config("second")));
    kubelet.remove(&id).unwrap();
    is_exhausted(cri.run_pod(cri.pod_config("second")));
    cri.check_ledger(&made);
    kubelet.restart();
    is_exhausted(cri.run_pod(cri.pod_config("second")));
    cri.stop_pod(&kubelet.pod).unwrap();
    is_exhausted(cri.run_pod(cri.pod_config("second")));
    kubelet.restart();
    is_exhausted(cri.run_pod(cri.pod_config("second")));
    cri.remove_pod(&kubelet.pod).unwrap();
    let second = cri.run_pod(cri.pod_config("second")).unwrap();
    assert_eq!(label(cri.pod_pid(&second)), format!("{PROCESS}:s0:c0,c1"));
    cri.remove_pod(&second).unwrap();
    // A pod that could not be made holds none.
    let mut broken = cri.pod_config("broken");
    broken.linux.as_mut().unwrap().sysctls.insert("net.no.such.key".to_owned(), "1".to_owned());
    cri.run_pod(broken).unwrap_err();
    let third = cri.run_pod(cri.pod_config("third")).unwrap();
    cri.remove_pod(&third).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn a_label_of_a_container_alone_is_taken_until_it_is_removed_also_for_the_next_daemon() {
    let Some(cri) = with_two_categories() else { return };
    cri.knows(containerd_tests::archive::IMAGE);
    // The pod's own is none of the two categories'.
    let mut config = cri.pod_config("a");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.selinux_options = Some(options("", "", "", "s0:c5,c6"));
    let pod = cri.run_pod(config.clone()).unwrap();
    let kubelet = Kubelet { cri: std::sync::Arc::new(cri), pod, pod_config: config };
    let asked = || Some(options("", "", "container_other_t", ""));
    let id = kubelet.run_config(sleeper(&kubelet, "a", |own| own.selinux_options = asked()));
    assert_eq!(level(&label(kubelet.pid(&id))), "s0:c0,c1");
    kubelet.restart();
    is_exhausted(kubelet.cri.run_pod(kubelet.cri.pod_config("second")));
    kubelet.remove(&id).unwrap();
    let second = kubelet.cri.run_pod(kubelet.cri.pod_config("second")).unwrap();
    kubelet.cri.remove_pod(&second).unwrap();
}

#[test]
fn what_is_no_label_is_refused_by_name_and_leaves_nothing() {
    let Some(kubelet) = start() else { return };
    let before = kubelet.cri.ledger();
    let known = !binaries::beyond_upstream("upstream finds out when the process is made");
    let cases = [
        (options("", "", "", "nope"), "the format of 'level' \"nope\" is not correct"),
        (options("", "", "nowhere_t", ""), "the machine's SELinux policy has no label"),
        (options("nobody_u", "", "", ""), "the machine's SELinux policy has no label"),
        (options("", "nobody_r", "", ""), "the machine's SELinux policy has no label"),
        (options("", "", "", "s0:c5000"), "the machine's SELinux policy has no label"),
        (options("", "", "a:b", ""), "is no plain name"),
    ];
    for (asked, why) in cases.into_iter().filter(|(_, why)| known || why.contains("format")) {
        let check = |refused: &Status| {
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(refused.message().contains(why), "{refused}");
        };
        check(&pod(&kubelet, "refused", |pod| pod.selinux_options = Some(asked.clone())).err().unwrap());
        let config = sleeper(&kubelet, "refused", |own| own.selinux_options = Some(asked.clone()));
        check(&kubelet.try_create(config).unwrap_err());
    }
    kubelet.cri.check_ledger(&before);
    // Nothing of it is remembered.
    let other = pod(&kubelet, "refused", |_| {}).unwrap();
    kubelet.cri.remove_pod(&other.pod).unwrap();
}
