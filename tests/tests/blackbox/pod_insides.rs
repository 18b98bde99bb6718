//! What containers of pods have inside, as they see it themselves: processes of others, devices, limits, volumes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use api::cri as wire;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::cri::{IMAGES, RUNTIME};
use containerd_tests::tar::Entry;
use containerd_tests::{Cri, Kubelet};
use tonic::Code;

/// A device of the host that no container has of itself and that its root may open; `None`, said aloud, where there is none.
fn device() -> Option<(&'static str, String)> {
    let found = ["/dev/fuse", "/dev/net/tun", "/dev/loop-control"].into_iter().find_map(|path| {
        let number = fs::metadata(path).ok()?.rdev();
        Some((path, format!("{} {}", rustix::fs::major(number), rustix::fs::minor(number))))
    });
    if found.is_none() {
        eprintln!("skipped: this machine has no device to try with");
    }
    found
}

fn security(config: &mut wire::ContainerConfig) -> &mut wire::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn resources(config: &mut wire::ContainerConfig) -> &mut wire::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

#[test]
fn processes_of_a_target_are_seen_by_who_names_it() {
    let Some(kubelet) = Kubelet::start() else { return };
    let mut target = kubelet.config("target", "exec sleep 4711");
    let pid = wire::NamespaceMode::Container.into();
    security(&mut target).namespace_options = Some(wire::NamespaceOption { pid, ..Default::default() });
    let target = kubelet.run_config(target);
    let config = |target: &str| {
        let mut config =
            kubelet.config("debugger", "cat /proc/1/cmdline | tr '\\0' ' '; echo; exec sleep 1000");
        security(&mut config).namespace_options = Some(wire::NamespaceOption {
            pid: wire::NamespaceMode::Target.into(),
            target_id: target.to_owned(),
            ..Default::default()
        });
        config
    };
    let id = kubelet.run_config(config(&target));
    containerd_tests::eventually("it is logged", || kubelet.log("debugger").ends_with(" F sleep 4711 \n"));
    let namespace = |id: &str| fs::read_link(format!("/proc/{}/ns/pid", kubelet.pid(id))).unwrap();
    assert_eq!(namespace(&id), namespace(&target));
    kubelet.remove(&id).unwrap();
    // A namespace of another pod is nobody's to see.
    let other = kubelet.pod(kubelet.cri.pod_config("other"), "").unwrap();
    let refused = other.try_create(config(&target)).unwrap_err();
    assert!(refused.message().contains("does not belong to sandbox"), "{refused}");
    // It must run when the one that sees it is made, and still when that one is started.
    let late = kubelet.try_create(config(&target)).unwrap();
    kubelet.stop(&target, 0).unwrap();
    assert_eq!(kubelet.try_start(&late).unwrap_err().code(), Code::FailedPrecondition);
    kubelet.remove(&late).unwrap();
    let refused = kubelet.try_create(config(&target)).unwrap_err();
    assert!(refused.message().contains("is not running - in state CONTAINER_EXITED"), "{refused}");
}

/// Says how the device `$1` can be opened.
const OPENS: &str = "opens() { \
     if [ ! -e $1 ]; then echo absent; return; fi; \
     (: < $1) 2>/dev/null && echo reads || echo no; (: >> $1) 2>/dev/null && echo writes || echo no; }; ";

#[test]
fn a_device_is_there_under_its_name_with_its_permissions_and_for_nobody_else() {
    let Some((host, _)) = device() else { return };
    let Some(kubelet) = Kubelet::start() else { return };
    let device = |permissions: &str| wire::Device {
        container_path: "/dev/inside".to_owned(),
        host_path: host.to_owned(),
        permissions: permissions.to_owned(),
    };
    let says = |name: &str, devices: Vec<wire::Device>| {
        let mut config = kubelet.config(name, &format!("{OPENS} opens /dev/inside; opens {host}"));
        config.devices = devices;
        kubelet.says(config)
    };
    assert_eq!(says("none", vec![]), ["absent", "absent"]);
    assert_eq!(says("r", vec![device("r")]), ["reads", "no", "absent"]);
    assert_eq!(says("rw", vec![device("rw")]), ["reads", "writes", "absent"]);
    let mut config = kubelet.config("wrong", "true");
    config.devices = vec![device("x")];
    assert_eq!(kubelet.try_create(config).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_device_belongs_to_who_runs_there_if_that_is_set() {
    let Some((host, _)) = device() else { return };
    for (owned, expected) in [(false, "0:0"), (true, "1000:50")] {
        let Some(cri) = Cri::prepare("") else { return };
        cri.set(RUNTIME, &format!("device_ownership_from_security_context = {owned}"));
        cri.launch();
        let kubelet = Kubelet::with(cri);
        let mut config = kubelet.config("c", "stat -c %u:%g /dev/inside");
        let (container_path, permissions) = ("/dev/inside".to_owned(), "rw".to_owned());
        config.devices = vec![wire::Device { container_path, host_path: host.to_owned(), permissions }];
        security(&mut config).run_as_user = Some(wire::Int64Value { value: 1000 });
        security(&mut config).run_as_group = Some(wire::Int64Value { value: 50 });
        assert_eq!(kubelet.says(config), [expected]);
    }
}

#[test]
fn who_is_privileged_has_the_devices_of_the_host_unless_its_handler_says_otherwise() {
    let Some((host, number)) = device() else { return };
    let section = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.without]\nruntime_type = 'io.containerd.runc.v2'\n\
         privileged_without_host_devices = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.allowed]\nruntime_type = 'io.containerd.runc.v2'\n\
         privileged_without_host_devices = true\nprivileged_without_host_devices_all_devices_allowed = true\n";
    let Some(cri) = Cri::configured(section) else { return };
    let kubelet = Kubelet::with(cri);
    let script = format!("{OPENS} opens {host}; mknod /made c {number} && opens /made");
    for (handler, expected) in [
        ("runc", &["reads", "writes", "reads", "writes"][..]),
        ("without", &["absent", "no", "no"]),
        ("allowed", &["absent", "reads", "writes"]),
    ] {
        let mut pod = kubelet.cri.pod_config(handler);
        pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let pod = kubelet.pod(pod, handler).unwrap();
        let mut config = pod.config("c", &script);
        security(&mut config).privileged = true;
        assert_eq!(pod.says(config), expected, "{handler}");
    }
}

#[test]
fn a_device_of_a_vendor_brings_what_its_file_says() {
    let Some((host, _)) = device() else { return };
    let Some(cri) = Cri::prepare("") else { return };
    let dir = cri.daemon.dir().join("cdi");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("library"), "of the vendor\n").unwrap();
    let file = serde_json::json!({
        "cdiVersion": "0.6.0", "kind": "vendor.example/card",
        "containerEdits": {"env": ["CARDS=all"]},
        "devices": [{"name": "one", "containerEdits": {
            "env": ["CARD=one"],
            "deviceNodes": [{"path": "/dev/card", "hostPath": host, "permissions": "r"}],
            "mounts": [{"hostPath": dir.join("library"), "containerPath": "/lib/vendor", "options": ["ro", "bind"]}],
            "hooks": [{"hookName": "createRuntime", "path": "/bin/sh",
                       "args": ["sh", "-c", format!("touch {}", dir.join("hooked").display())]}],
        }}, {"name": "two", "containerEdits": {"env": ["CARD=two"]}}],
    });
    fs::write(dir.join("vendor.json"), file.to_string()).unwrap();
    cri.set(RUNTIME, &format!("cdi_spec_dirs = [{dir:?}]"));
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let script = format!(
        "{OPENS} echo $CARDS $CARD; opens /dev/card; cat /lib/vendor; touch /lib/vendor 2>/dev/null || echo fixed"
    );
    let mut config = kubelet.config("field", &script);
    config.cdi_devices = vec![wire::CdiDevice { name: "vendor.example/card=one".to_owned() }];
    assert_eq!(kubelet.says(config), ["all one", "reads", "no", "of the vendor", "fixed"]);
    assert!(dir.join("hooked").exists());
    let mut config = kubelet.config("annotation", "echo $CARDS $CARD");
    config.annotations.insert("cdi.k8s.io/plugin".to_owned(), "vendor.example/card=two".to_owned());
    assert_eq!(kubelet.says(config), ["all two"]);
    let mut config = kubelet.config("none", "true");
    config.cdi_devices = vec![wire::CdiDevice { name: "vendor.example/card=three".to_owned() }];
    let refused = kubelet.try_create(config).unwrap_err();
    assert!(refused.message().contains("vendor.example/card=three"), "{refused}");
}

/// Says what is in the file of cgroup v1 `$1`, or in that of v2 `$2`.
const READS: &str =
    "reads() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2 2>/dev/null || echo missing; }; ";

#[test]
fn limits_are_seen_inside() {
    let Some(kubelet) = Kubelet::start() else { return };
    let script = format!(
        "{READS} reads cpu/cpu.shares cpu.weight; reads cpu/cpu.cfs_quota_us cpu.max; reads cpuset/cpuset.cpus cpuset.cpus; \
         reads memory/memory.limit_in_bytes memory.max; reads memory/memory.memsw.limit_in_bytes memory.swap.max; \
         reads memory/memory.memsw.limit_in_bytes memory.swap.max; cat /proc/self/oom_score_adj"
    );
    let mut config = kubelet.config("c", &script);
    *resources(&mut config) = wire::LinuxContainerResources {
        cpu_shares: 512,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpuset_cpus: "0".to_owned(),
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 96 << 20,
        oom_score_adj: 500,
        ..Default::default()
    };
    let said = kubelet.says(config);
    let any = |place: usize, expected: &[&str]| {
        assert!(expected.contains(&said[place].as_str()), "{place}: {said:?} is none of {expected:?}");
    };
    any(0, &["512", "20", "59"]);
    any(1, &["50000", "50000 100000"]);
    any(2, &["0"]);
    any(3, &["67108864"]);
    // Memory and swap, or swap; a kernel may keep no account of it.
    any(4, &["100663296", "33554432", "missing"]);
    any(6, &["500"]);
}

#[test]
fn pages_that_are_huge_are_limited_where_that_is_not_turned_off() {
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let controlled = fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|mounts| mounts.contains("hugetlb"))
        || fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|all| all.contains("hugetlb"));
    let limits = [("2MB", 4 << 20)]
        .map(|(size, limit)| wire::HugepageLimit { page_size: size.to_owned(), limit })
        .to_vec();
    for (tolerated, disabled) in [(true, false), (false, false), (false, true)] {
        let Some(cri) = Cri::prepare("") else { return };
        let keys = format!(
            "tolerate_missing_hugetlb_controller = {tolerated}\ndisable_hugetlb_controller = {disabled}"
        );
        cri.set(RUNTIME, &keys);
        cri.launch();
        let kubelet = Kubelet::with(cri);
        let script = format!("{READS} reads hugetlb/hugetlb.2MB.limit_in_bytes hugetlb.2MB.max");
        let mut config = kubelet.config("c", &script);
        resources(&mut config).hugepage_limits = limits.clone();
        match (controlled, tolerated, disabled) {
            (true, _, false) => assert_eq!(kubelet.says(config), ["4194304"], "{controllers}"),
            (false, false, false) => {
                let refused = kubelet.try_create(config).unwrap_err();
                assert!(refused.message().contains("hugetlb cgroup controller is missing"), "{refused}");
            }
            _ => {
                let id = kubelet.try_create(config).unwrap();
                let asked = kubelet.spec(&id)["linux"]["resources"]["hugepageLimits"].clone();
                assert_eq!(asked, serde_json::Value::Null);
                kubelet.try_start(&id).unwrap();
                assert_eq!(kubelet.exits(&id).exit_code, 0);
            }
        }
    }
}

#[test]
fn the_last_to_be_killed_is_only_who_may_be() {
    let own: i64 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    // As much as a daemon without privileges may do.
    let free = fs::write("/proc/self/oom_score_adj", (own - 1).to_string()).is_ok();
    for restricted in [true, false] {
        if !restricted && !free {
            eprintln!("skipped: nobody may be less likely killed than we are");
            return;
        }
        let Some(cri) = Cri::prepare("") else { return };
        cri.set(RUNTIME, &format!("restrict_oom_score_adj = {restricted}"));
        cri.launch();
        let kubelet = Kubelet::with(cri);
        let mut config = kubelet.config("c", "cat /proc/self/oom_score_adj");
        resources(&mut config).oom_score_adj = -998;
        let expected = if restricted { own.max(-998) } else { -998 };
        assert_eq!(kubelet.says(config), [expected.to_string()]);
    }
}

#[test]
fn volumes_of_an_image_are_made_unless_they_are_to_be_ignored() {
    const NAME: &str = "docker.io/library/volumes:1";
    let image = Image::named(NAME).layer(&base_layer(), Packing::Gzip);
    let image = image.layer(&[Entry::dir("data"), Entry::file("data/file", "of the image\n")], Packing::Gzip);
    let image = image.config("Volumes", serde_json::json!({"/data": {}}));
    for ignored in [false, true] {
        let Some(cri) = Cri::prepare("") else { return };
        cri.set(RUNTIME, &format!("ignore_image_defined_volumes = {ignored}"));
        cri.launch();
        let kubelet = Kubelet::with(cri);
        kubelet.import(NAME, &image);
        let mut config = kubelet.config("c", "cat /data/file; grep -c ' /data ' /proc/mounts || true");
        config.image.as_mut().unwrap().image = NAME.to_owned();
        assert_eq!(kubelet.says(config), ["of the image", if ignored { "0" } else { "1" }]);
    }
}

/// A range of ids, and a user namespace that has them.
fn user_namespace() -> (Vec<wire::IdMapping>, wire::NamespaceOption) {
    let map = vec![wire::IdMapping { host_id: 200_000, container_id: 0, length: 65536 }];
    let mode = wire::NamespaceMode::Pod.into();
    let user = wire::UserNamespace { mode, uids: map.clone(), gids: map.clone() };
    (map, wire::NamespaceOption { userns_options: Some(user), ..Default::default() })
}

/// Whether pods can have user namespaces here; said aloud if not.
fn has_user_namespaces(kubelet: &Kubelet) -> bool {
    let status = kubelet.cri.call(kubelet.cri.client().status(wire::StatusRequest::default())).unwrap();
    let able =
        |handler: &wire::RuntimeHandler| handler.features.is_some_and(|features| features.user_namespaces);
    let has = status.runtime_handlers.iter().any(able);
    if !has {
        eprintln!("skipped: the runtime says that it cannot mount with other ids");
    }
    has
}

#[test]
fn a_pod_on_the_hosts_network_may_have_a_user_namespace_which_changes_nothing_of_the_hosts() {
    let Some(kubelet) = Kubelet::start() else { return };
    if !has_user_namespaces(&kubelet) {
        return;
    }
    let (_, mut options) = user_namespace();
    options.set_network(wire::NamespaceMode::Node);
    let mut config = kubelet.cri.pod_config("users");
    config.hostname.clear();
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(options.clone());
    let pod = kubelet.pod(config, "").unwrap();
    let script = "hostname; cat /proc/self/uid_map; ls -d /sys/class/net/lo; \
         (echo 9999 > /sys/class/net/lo/tx_queue_len) 2>/dev/null && echo changed; \
         busybox ip link set lo mtu 1234 2>/dev/null && echo changed; \
         hostname other 2>/dev/null && echo renamed; mkdir /made && stat -c '%u:%g' /made; exec sleep 1000";
    let mut config = pod.config("c", script);
    security(&mut config).namespace_options = Some(options);
    // Everything that root can have: it counts in its own namespace, and not in the host's.
    security(&mut config).capabilities =
        Some(wire::Capability { add_capabilities: vec!["ALL".to_owned()], ..Default::default() });
    let id = pod.run_config(config);
    containerd_tests::eventually("it has said so", || pod.log("c").ends_with(" F 0:0\n"));
    let log = pod.log("c");
    let said = log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
    let said: Vec<_> = said.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(said, [own.as_str(), "0 200000 65536", "/sys/class/net/lo", "0:0"]);
    let namespace = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for pid in [kubelet.cri.pod_pid(&pod.pod), pod.pid(&id)] {
        assert_eq!(namespace(&pid.to_string(), "net"), namespace("self", "net"));
        assert_ne!(namespace(&pid.to_string(), "user"), namespace("self", "user"));
    }
}

#[test]
fn everything_belongs_to_who_it_should_in_a_user_namespace() {
    let Some(kubelet) = Kubelet::start() else { return };
    belongs_to_who_it_should(&kubelet, "users");
}

#[test]
fn so_it_does_where_the_snapshotter_cannot_shift_owners() {
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(IMAGES, "snapshotter = 'native'");
    cri.launch();
    cri.image();
    let kubelet = Kubelet::with(cri);
    let snapshots = || {
        let listed =
            kubelet.cri.daemon.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", "native", "list"]).ok();
        listed.lines().count()
    };
    if !belongs_to_who_it_should(&kubelet, "users") {
        return;
    }
    let many = snapshots();
    belongs_to_who_it_should(&kubelet, "more-users");
    assert_eq!(
        snapshots(),
        many + 2,
        "a container and its volume are new, the copies that they stand on are not"
    );
}

/// Looks at who has what in a new pod of this name; false if pods cannot have user namespaces here.
fn belongs_to_who_it_should(kubelet: &Kubelet, name: &str) -> bool {
    const VOLUME: &str = "docker.io/library/files:1";
    let image = Image::named(VOLUME).layer(&[Entry::file("file", "of the volume\n")], Packing::Gzip);
    kubelet.import(VOLUME, &image.layer(&[Entry::file("alices", "x").owner(1000, 1000)], Packing::Gzip));
    let (map, options) = user_namespace();
    let mut config = kubelet.cri.pod_config(name);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(options.clone());
    if !has_user_namespaces(kubelet) {
        return false;
    }
    let pod = kubelet.pod(config, "").unwrap();
    let shared = kubelet.cri.daemon.dir().join(name);
    fs::create_dir(&shared).unwrap();
    let mount = |path: &str| wire::Mount {
        container_path: path.to_owned(),
        uid_mappings: map.clone(),
        gid_mappings: map.clone(),
        ..Default::default()
    };
    let volume = wire::Mount {
        image: Some(wire::ImageSpec { image: VOLUME.to_owned(), ..Default::default() }),
        readonly: true,
        ..mount("/vol")
    };
    let script = "stat -c '%u:%g' /vol/file /vol/alices /shared / /etc/passwd /dev/shm /etc/hostname /etc/hosts /etc/resolv.conf; \
         touch /shared/new /dev/shm/new; stat -c '%u:%g' /shared/new /dev/shm/new; cat /vol/file";
    let mut config = pod.config("c", script);
    security(&mut config).namespace_options = Some(options);
    config.mounts =
        vec![volume, wire::Mount { host_path: shared.to_string_lossy().into_owned(), ..mount("/shared") }];
    let said = pod.says(config);
    // /dev/shm is nobody's, as upstream: whoever is there may write to it all the same.
    let (root, nobody) = ("0:0", "65534:65534");
    let expected =
        [root, "1000:1000", root, root, root, nobody, root, root, root, root, root, "of the volume"];
    assert_eq!(said, expected);
    assert_eq!(fs::metadata(shared.join("new")).unwrap().uid(), 0, "it is the host's that is mapped there");
    true
}
