//! What kubelets see of pods, and the kinds of pods that they ask for.

use std::process::Command;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use api::cri as wire;
use api::cri::ContainerEventType as Event;
use containerd_tests::cri::RUNTIME;
use containerd_tests::{Cri, binaries, eventually, proc};
use tonic::Code;

#[test]
fn lists_are_filtered_by_the_beginning_of_an_id_state_and_labels_and_streamed_alike() {
    let Some(cri) = Cri::start() else { return };
    let (a, b) = (cri.pod("a"), cri.pod("b"));
    cri.stop_pod(&b).unwrap();
    let list = |filter: wire::PodSandboxFilter| -> Vec<String> {
        let request = wire::ListPodSandboxRequest { filter: Some(filter.clone()) };
        let listed = cri.call(cri.client().list_pod_sandbox(request)).unwrap().items;
        let request = wire::StreamPodSandboxesRequest { filter: Some(filter) };
        let mut stream = cri.call(cri.client().stream_pod_sandboxes(request)).unwrap();
        let mut streamed = Vec::new();
        cri.block_on(async {
            while let Some(part) = stream.message().await.unwrap() {
                streamed.extend(part.pod_sandboxes);
            }
        });
        assert_eq!(listed, streamed);
        listed.into_iter().map(|pod| pod.id).collect()
    };
    let of_state = |state: wire::PodSandboxState| wire::PodSandboxFilter {
        state: Some(wire::PodSandboxStateValue { state: state.into() }),
        ..Default::default()
    };
    let of_id = |id: &str| wire::PodSandboxFilter { id: id.to_owned(), ..Default::default() };
    let of_app = |app: &str| wire::PodSandboxFilter {
        label_selector: [("app".to_owned(), app.to_owned())].into(),
        ..Default::default()
    };
    assert_eq!(list(wire::PodSandboxFilter::default()).len(), 2);
    assert_eq!(list(of_state(wire::PodSandboxState::SandboxReady)), from_ref(&a));
    assert_eq!(list(of_state(wire::PodSandboxState::SandboxNotready)), from_ref(&b));
    assert_eq!(list(of_id(&a[..10])), from_ref(&a));
    assert_eq!(list(of_id("zz")), [""; 0]);
    assert_eq!(list(of_app("b")), [b]);
    assert_eq!(list(of_app("c")), [""; 0]);
    assert!(cri.daemon.ctr(&["-n", "k8s.io", "sandboxes", "list"]).ok().contains(&a));
}

#[test]
fn every_change_of_a_pod_is_told_to_all_who_listen_and_what_nobody_heard_to_the_first() {
    let Some(cri) = Cri::start() else { return };
    let early = cri.pod("early");
    let subscribe = || cri.call(cri.client().get_container_events(wire::GetEventsRequest {})).unwrap();
    let mut first = subscribe();
    let next = |stream: &mut tonic::Streaming<wire::ContainerEventResponse>| {
        let event = cri.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("an event in time")
        });
        let event = event.unwrap().unwrap();
        let state = event.pod_sandbox_status.as_ref().map(wire::PodSandboxStatus::state);
        (event.container_id.clone(), event.container_event_type(), state)
    };
    let (ready, not_ready) =
        (Some(wire::PodSandboxState::SandboxReady), Some(wire::PodSandboxState::SandboxNotready));
    assert_eq!(next(&mut first), (early.clone(), Event::ContainerCreatedEvent, ready));
    assert_eq!(next(&mut first), (early.clone(), Event::ContainerStartedEvent, ready));
    let mut second = subscribe();
    cri.stop_pod(&early).unwrap();
    cri.remove_pod(&early).unwrap();
    for stream in [&mut first, &mut second] {
        assert_eq!(next(stream), (early.clone(), Event::ContainerStoppedEvent, not_ready));
        assert_eq!(next(stream), (early.clone(), Event::ContainerDeletedEvent, not_ready));
    }
}

#[test]
fn resources_of_a_pod_are_kept_and_shown() {
    let Some(cri) = Cri::start() else { return };
    let id = cri.pod("web");
    let linux = |shares| wire::LinuxContainerResources { cpu_shares: shares, ..Default::default() };
    let request = wire::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.clone(),
        overhead: Some(linux(100)),
        resources: Some(linux(200)),
    };
    cri.call(cri.client().update_pod_sandbox_resources(request)).unwrap();
    let shown = || {
        let (_, info) = cri.pod_status(&id).unwrap();
        let shares = |key: &str| info[key]["linux"]["cpu_shares"].as_i64();
        (shares("overhead"), shares("resources"))
    };
    assert_eq!(shown(), (Some(100), Some(200)));
    cri.daemon.kill();
    cri.launch();
    assert_eq!(shown(), (Some(100), Some(200)), "the next daemon knows them");
    let unknown = wire::UpdatePodSandboxResourcesRequest { pod_sandbox_id: "x".into(), ..Default::default() };
    let error = cri.call(cri.client().update_pod_sandbox_resources(unknown)).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

fn options(config: &mut wire::PodSandboxConfig) -> &mut wire::NamespaceOption {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap()
}

fn namespace(pid: i32, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[test]
fn a_pod_on_the_hosts_namespaces_has_no_network_of_its_own() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let mut config = cri.pod_config("web");
    // As the kubelet: the host's name is not a pod's to set.
    config.hostname.clear();
    let node = wire::NamespaceMode::Node.into();
    *options(&mut config) =
        wire::NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
    let id = cri.run_pod(config).unwrap();
    let (status, _) = cri.pod_status(&id).unwrap();
    assert_eq!(status.network.unwrap().ip, "");
    let (pid, own) = (cri.pod_pid(&id), i32::try_from(std::process::id()).unwrap());
    for kind in ["net", "pid", "ipc", "uts"] {
        assert_eq!(namespace(pid, kind), namespace(own, kind), "{kind}");
    }
    assert!(!cri.ledger().iter().any(|line| line.starts_with("netns ") || line.starts_with("address ")));
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn a_pod_with_a_user_namespace_owns_its_network_namespace() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let mut config = cri.pod_config("web");
    let map = wire::IdMapping { host_id: 200_000, container_id: 0, length: 65536 };
    options(&mut config).userns_options =
        Some(wire::UserNamespace { mode: wire::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] });
    let id = match cri.run_pod(config) {
        Ok(id) => id,
        Err(error) => {
            // Older runtimes cannot join a user namespace that is there.
            eprintln!("skipped: {error}");
            cri.check_ledger(&before);
            return;
        }
    };
    let pid = cri.pod_pid(&id);
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
    assert!(cri.pod_status(&id).unwrap().0.network.unwrap().ip.starts_with("10."));
    // Only who belongs to the owner of a network may change it; what a user namespace has may do that nowhere else.
    let change = |network: &str| {
        let (user, network) = (format!("--user=/proc/{pid}/ns/user"), format!("--net={network}"));
        let mut command = Command::new("nsenter");
        command
            .args([&user, &network, "--preserve-credentials", "--setuid=0", "--setgid=0"])
            .arg(binaries::busybox());
        command.args(["ip", "link", "set", "lo", "mtu", "1400"]).output().unwrap().status.success()
    };
    assert!(change(&format!("/proc/{pid}/ns/net")));
    assert!(!change("/proc/self/ns/net"), "nor the host's");
    cri.stop_pod(&id).unwrap();
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn parameters_of_the_network_are_set_when_its_interfaces_are_there() {
    let Some(cri) = Cri::start() else { return };
    let mut config = cri.pod_config("web");
    let key = "net.ipv4.conf.eth0.proxy_arp";
    config.linux.as_mut().unwrap().sysctls.insert(key.to_owned(), "1".to_owned());
    let id = cri.run_pod(config).unwrap();
    let pid = cri.pod_pid(&id).to_string();
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let read = Command::new("nsenter").args(["-t", &pid, "-n", "cat", &path]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "1");
}

#[test]
fn pods_whose_sandbox_the_shim_makes_live_as_others_do() {
    let section = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.own]\nruntime_type = \"io.containerd.runc.v2\"\n\
         sandboxer = \"shim\"\n";
    let Some(cri) = Cri::configured(section) else { return };
    let before = cri.ledger();
    let run = |name: &str| {
        let config = Some(cri.pod_config(name));
        let request = wire::RunPodSandboxRequest { config, runtime_handler: "own".into() };
        cri.call(cri.client().run_pod_sandbox(request)).unwrap().pod_sandbox_id
    };
    let (a, b) = (run("a"), run("b"));
    let (status, info) = cri.pod_status(&a).unwrap();
    assert_eq!(status.state(), wire::PodSandboxState::SandboxReady);
    assert!(status.network.unwrap().ip.starts_with("10."));
    assert!(proc::alive(i32::try_from(info["pid"].as_i64().unwrap()).unwrap()));
    cri.daemon.kill();
    proc::kill(i32::try_from(info["pid"].as_i64().unwrap()).unwrap());
    cri.launch();
    let state = |id: &str| cri.pod_status(id).unwrap().0.state();
    eventually("the one that ended meanwhile is not ready", || {
        state(&a) == wire::PodSandboxState::SandboxNotready
    });
    assert_eq!(state(&b), wire::PodSandboxState::SandboxReady);
    for id in [&a, &b] {
        cri.stop_pod(id).unwrap();
        cri.remove_pod(id).unwrap();
    }
    cri.check_ledger(&before);
}

#[test]
fn many_pods_at_once_are_made_found_again_and_removed() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let names: Vec<String> = (0..30).map(|number| format!("pod-{number}")).collect();
    let in_parallel = |work: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for worker in 0..5 {
                scope.spawn(move || (worker..30).step_by(5).for_each(work));
            }
        });
    };
    in_parallel(&|number| drop(cri.pod(&names[number])));
    let pods = cri.pods().unwrap();
    assert_eq!(pods.len(), 30);
    let addresses: std::collections::BTreeSet<String> =
        pods.iter().map(|pod| cri.pod_status(&pod.id).unwrap().0.network.unwrap().ip).collect();
    assert_eq!(addresses.len(), 30, "each has an address of its own");
    cri.daemon.kill();
    let start = Instant::now();
    cri.launch();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let pods = cri.pods().unwrap();
    assert!(pods.len() == 30 && pods.iter().all(|pod| pod.state() == wire::PodSandboxState::SandboxReady));
    in_parallel(&|number| cri.remove_pod(&pods[number].id).unwrap());
    cri.check_ledger(&before);
}

#[test]
fn what_others_have_in_the_directory_of_pods_is_not_touched() {
    let Some(cri) = Cri::prepare("") else { return };
    let foreign = cri.root().join("sandboxes/not-a-pod");
    std::fs::create_dir_all(&foreign).unwrap();
    let orphan = cri.root().join("sandboxes").join("0a".repeat(32));
    std::fs::create_dir_all(&orphan).unwrap();
    cri.launch();
    eventually("what was a pod's is removed", || !orphan.exists());
    assert!(foreign.exists());
}

#[test]
fn namespaces_of_networks_that_belong_to_nobody_go_only_where_all_are_ours() {
    for own in [true, false] {
        let Some(cri) = Cri::prepare("") else { return };
        cri.set(RUNTIME, &format!("netns_mounts_under_state_dir = {own}"));
        let dir = cri.daemon.dir().join("run");
        std::fs::create_dir(&dir).unwrap();
        // Its /run is a directory of ours, in which somebody has made a namespace.
        let script = r#"mount --bind "$0" /run && mkdir -p "$1" && touch "$1/somebodys" && unshare --net mount --bind /proc/self/ns/net "$1/somebodys" && shift && exec "$@""#;
        let place = if own { cri.state().join("netns") } else { "/run/netns".into() };
        let (run, place) = (dir.to_string_lossy().into_owned(), place.to_string_lossy().into_owned());
        cri.daemon.set_own_mounts(script, &[&run, &place]);
        cri.launch();
        let root = format!("/proc/{}/root", cri.daemon.pid().unwrap());
        let bound = || std::path::Path::new(&format!("{root}{place}/somebodys")).exists();
        let pod = cri.pod("web");
        if own {
            eventually("it is removed", || !bound());
        }
        cri.remove_pod(&pod).unwrap();
        assert_eq!(bound(), !own);
    }
}

#[test]
fn a_pause_image_that_is_configured_is_what_a_sandbox_runs() {
    use containerd_tests::archive::{Image, Packing, base_layer};
    const NAME: &str = "docker.io/test/pause:1";
    let section = format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = {NAME:?}\n");
    let Some(cri) = Cri::configured(&section) else { return };
    let image = Image::named(NAME).layer(&base_layer(), Packing::Gzip);
    let image = image.config("Entrypoint", serde_json::json!(["busybox", "sleep", "12345"]));
    let image = image.config("Cmd", serde_json::json!([]));
    let archive = cri.daemon.archive("pause.tar", &image.oci());
    cri.daemon.ctr(&["-n", "k8s.io", "images", "import", &archive]).ok();
    eventually("the image is known", || {
        let image = Some(wire::ImageSpec { image: NAME.into(), ..Default::default() });
        let request = wire::ImageStatusRequest { image, verbose: false };
        cri.call(cri.images().image_status(request)).unwrap().image.is_some()
    });
    let before = cri.ledger();
    let id = cri.pod("web");
    let (_, info) = cri.pod_status(&id).unwrap();
    assert_eq!((info["image"].as_str(), info["snapshotKey"].as_str()), (Some(NAME), Some(id.as_str())));
    let command = || std::fs::read(format!("/proc/{}/cmdline", cri.pod_pid(&id))).unwrap();
    eventually("the sandbox runs it", || command() == b"busybox\0sleep\x0012345\0");
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}
