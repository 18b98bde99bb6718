//! Pods of which a step fails: plugins and runtimes that fail, hang or answer rubbish, requests that mean harm, and a daemon that
//! is killed at each step. Nothing is left, or what is left is there to be seen and removed.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use api::cri as wire;
use containerd_tests::{Chance, Cri, Kubelet, eventually, proc};
use serde_json::json;
use tonic::Code;

/// A plugin that writes down what it was asked, and then does what a file beside it says.
const FAULTY: &str = r#"dir=$(dirname "$0")
echo "$CNI_COMMAND" >> "$dir/../asked"
cat > /dev/null
. "$dir/../fault""#;

/// What [`FAULTY`] does.
fn fault(cri: &Cri, script: &str) {
    fs::write(cri.cni().join("fault"), script).unwrap();
}

/// Nothing but an address. (It should hand on what the one before has given, but a shell reads no JSON.)
const FINE: &str = r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}'"#;

/// A daemon whose network has a plugin of ours behind the bridge.
fn with_faulty_plugin() -> Option<Cri> {
    with_faulty_plugin_and("")
}

/// The same, with more in its configuration.
fn with_faulty_plugin_and(section: &str) -> Option<Cri> {
    let cri = Cri::configured(section)?;
    cri.write_plugin("faulty", FAULTY);
    let mut plugins = cri.read_network();
    plugins.as_array_mut().unwrap().push(json!({"type": "faulty"}));
    cri.write_network(&plugins);
    fault(&cri, FINE);
    Some(cri)
}

/// How often [`FAULTY`] was asked for a verb.
fn asked(cri: &Cri, verb: &str) -> usize {
    let asked = fs::read_to_string(cri.cni().join("asked")).unwrap_or_default();
    asked.lines().filter(|line| *line == verb).count()
}

#[test]
fn a_plugin_that_fails_or_answers_rubbish_leaves_nothing_and_its_words_are_told() {
    let Some(cri) = with_faulty_plugin() else { return };
    let before = cri.ledger();
    let faults = [
        (
            r#"if [ $CNI_COMMAND = ADD ]; then echo '{"code": 100, "msg": "out of luck"}'; exit 1; fi"#,
            "out of luck",
        ),
        ("if [ $CNI_COMMAND = ADD ]; then echo rubbish; fi", "faulty"),
        ("if [ $CNI_COMMAND = ADD ]; then kill -9 $$; fi", "faulty"),
        (
            r#"if [ $CNI_COMMAND = ADD ]; then echo '{"cniVersion": "1.0.0", "ips": []}'; fi"#,
            "failed to find network info",
        ),
    ];
    for (script, words) in faults {
        fault(&cri, script);
        let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
        assert!(error.message().contains(words), "{script}: {error}");
        assert_eq!(cri.pods().unwrap(), [], "{script}");
        cri.check_ledger(&before);
    }
    assert!(asked(&cri, "DEL") >= 4);
}

#[test]
fn what_a_plugin_does_not_take_back_stays_to_be_seen_and_is_retried() {
    let Some(cri) = with_faulty_plugin() else { return };
    let before = cri.ledger();
    fault(&cri, r#"echo '{"code": 100, "msg": "never"}'; exit 1"#);
    cri.run_pod(cri.pod_config("web")).unwrap_err();
    let pods = cri.pods().unwrap();
    assert_eq!((pods.len(), pods[0].state()), (1, wire::PodSandboxState::SandboxNotready));
    let id = &pods[0].id;
    assert!(cri.run_pod(cri.pod_config("web")).unwrap_err().message().contains("reserve"));
    // The kubelet goes on, but does not get rid of it before its address is free.
    cri.stop_pod(id).unwrap();
    assert!(cri.remove_pod(id).unwrap_err().message().contains("never"));
    cri.daemon.kill();
    cri.launch();
    assert_eq!(cri.pods().unwrap().len(), 1, "it outlives the daemon");
    cri.stop_pod(id).unwrap();
    assert!(cri.remove_pod(id).unwrap_err().message().contains("never"));
    fault(&cri, FINE);
    cri.remove_pod(id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn a_pod_whose_del_fails_is_stopped_when_it_works_again() {
    let Some(cri) = with_faulty_plugin() else { return };
    let before = cri.ledger();
    fault(&cri, &format!("if [ $CNI_COMMAND = DEL ]; then exit 1; fi; {FINE}"));
    let id = cri.pod("web");
    cri.stop_pod(&id).unwrap_err();
    let (status, _) = cri.pod_status(&id).unwrap();
    assert_eq!(status.state(), wire::PodSandboxState::SandboxNotready, "its sandbox has ended all the same");
    fault(&cri, FINE);
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn a_plugin_that_hangs_holds_up_no_list_and_no_other_pod() {
    let Some(cri) = with_faulty_plugin() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    fault(&cri, "if [ $CNI_COMMAND = DEL ]; then echo $$ > \"$dir/../hangs\"; exec sleep 1000; fi");
    let hangs =
        || fs::read_to_string(cri.cni().join("hangs")).ok().and_then(|pid| pid.trim().parse::<i32>().ok());
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| cri.stop_pod(&id));
        eventually("the plugin hangs", || hangs().is_some());
        fault(&cri, FINE);
        let start = Instant::now();
        assert_eq!(cri.pods().unwrap().len(), 1);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        let other = cri.pod("other");
        cri.remove_pod(&other).unwrap();
        proc::kill(hangs().unwrap());
        stopping.join().unwrap().unwrap_err();
    });
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn a_runtime_that_fails_leaves_nothing() {
    let section = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bad]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bad.options]\nBinaryName = \"/bin/false\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.none]\nruntime_type = \"io.containerd.nobody.v7\"\n";
    let Some(cri) = Cri::configured(section) else { return };
    let before = cri.ledger();
    for handler in ["bad", "none", "missing"] {
        let config = Some(cri.pod_config("web"));
        let request = wire::RunPodSandboxRequest { config, runtime_handler: handler.into() };
        cri.call(cri.client().run_pod_sandbox(request)).unwrap_err();
        assert_eq!(cri.pods().unwrap(), [], "{handler}");
        cri.check_ledger(&before);
    }
}

/// The shim starts while a pod's files are written: it is sent away if they cannot be.
#[test]
fn a_pod_whose_files_cannot_be_written_leaves_no_shim_and_is_there_until_its_place_is_free() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let files = cri.daemon.root().join("io.containerd.grpc.v1.cri/sandboxes");
    fs::create_dir_all(&files).unwrap();
    fs::remove_dir(&files).unwrap();
    fs::write(&files, "in the way").unwrap();
    let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
    assert!(error.message().contains("io.containerd.grpc.v1.cri/sandboxes"), "{error}");
    eventually("no shim is left", || cri.shims().is_empty());
    let bundles = cri.daemon.state().join("io.containerd.runtime.v2.task/k8s.io");
    assert_eq!(fs::read_dir(bundles).unwrap().count(), 0);
    let pods = cri.pods().unwrap();
    assert_eq!((pods.len(), pods[0].state()), (1, wire::PodSandboxState::SandboxNotready));
    cri.remove_pod(&pods[0].id).unwrap_err();
    fs::remove_file(&files).unwrap();
    cri.remove_pod(&pods[0].id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn requests_that_mean_harm_are_refused_by_the_name_of_the_field_and_make_nothing() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    type Spoil = fn(&mut wire::PodSandboxConfig, &str);
    let fields: [(&str, Spoil); 8] = [
        ("metadata.name", |c, s| c.metadata.as_mut().unwrap().name = s.into()),
        ("metadata.namespace", |c, s| c.metadata.as_mut().unwrap().namespace = s.into()),
        ("metadata.uid", |c, s| c.metadata.as_mut().unwrap().uid = s.into()),
        ("hostname", |c, s| c.hostname = s.into()),
        ("log_directory", |c, s| c.log_directory = s.into()),
        ("dns_config.servers", |c, s| {
            c.dns_config = Some(wire::DnsConfig { servers: vec![s.into()], ..Default::default() });
        }),
        ("labels", |c, s| drop(c.labels.insert("key".into(), s.into()))),
        ("linux.cgroup_parent", |c, s| c.linux.as_mut().unwrap().cgroup_parent = s.into()),
    ];
    for (field, spoil) in fields {
        for hostile in ["/../x\0", "a\nnameserver 6.6.6.6", "\u{1b}[31m", &"x".repeat(1 << 20)] {
            let mut config = cri.pod_config("web");
            spoil(&mut config, hostile);
            let error = cri.run_pod(config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error}");
            assert!(error.message().starts_with(field), "{field}: {error}");
        }
    }
    let nothing = wire::RunPodSandboxRequest::default();
    assert_eq!(cri.call(cri.client().run_pod_sandbox(nothing)).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(cri.ledger(), before);
}

/// A pod that is being made, with this plugin's ADD hanging for ever.
const HANGING: &str = "if [ $CNI_COMMAND = ADD ]; then echo $$ > \"$dir/../hangs\"; exec sleep 1000; fi";

/// The process of the plugin that hangs.
fn hanging(cri: &Cri) -> Option<i32> {
    fs::read_to_string(cri.cni().join("hangs")).ok()?.trim().parse().ok()
}

#[test]
fn a_pod_whose_daemon_ends_in_the_middle_of_its_networks_stays_with_them_until_the_kubelet_ends_it() {
    let Some(cri) = with_faulty_plugin() else { return };
    let before = cri.ledger();
    let ends: [fn(&Cri); 2] = [|cri| cri.daemon.kill(), |cri| cri.daemon.stop()];
    for end in ends {
        fault(&cri, HANGING);
        let _ = fs::remove_file(cri.cni().join("hangs"));
        std::thread::scope(|scope| {
            let making = scope.spawn(|| cri.run_pod(cri.pod_config("web")));
            eventually("the plugin hangs", || hanging(&cri).is_some());
            let start = Instant::now();
            end(&cri);
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            making.join().unwrap().unwrap_err();
        });
        fault(&cri, FINE);
        cri.launch();
        let pods = cri.pods().unwrap();
        assert_eq!((pods.len(), pods[0].state()), (1, wire::PodSandboxState::SandboxNotready));
        assert_eq!(pods[0].metadata, cri.pod_config("web").metadata);
        let (status, info) = cri.pod_status(&pods[0].id).unwrap();
        assert_eq!(status.labels, cri.pod_config("web").labels);
        assert_eq!(info["netNamespaceClosed"], false);
        let netns = info["sandboxMetadata"]["Metadata"]["NetNSPath"].as_str().unwrap().to_owned();
        assert!(fs::exists(&netns).unwrap());
        assert!(cri.run_pod(cri.pod_config("web")).unwrap_err().message().contains("reserve"));
        cri.stop_pod(&pods[0].id).unwrap();
        assert!(!hanging(&cri).is_some_and(proc::alive), "its plugin would add what nobody takes away");
        assert!(!fs::exists(&netns).unwrap());
        cri.remove_pod(&pods[0].id).unwrap();
        cri.check_ledger(&before);
    }
}

#[test]
fn what_networks_have_given_a_pod_that_cannot_be_taken_back_is_told_until_it_is_removed() {
    let section = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bad]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bad.options]\nBinaryName = \"/bin/false\"\n";
    let Some(cri) = with_faulty_plugin_and(section) else { return };
    let before = cri.ledger();
    fault(&cri, &format!("if [ $CNI_COMMAND = DEL ]; then exit 1; fi; {FINE}"));
    let request =
        wire::RunPodSandboxRequest { config: Some(cri.pod_config("web")), runtime_handler: "bad".into() };
    cri.call(cri.client().run_pod_sandbox(request)).unwrap_err();
    let seen = || {
        let pods = cri.pods().unwrap();
        assert_eq!((pods.len(), pods[0].state()), (1, wire::PodSandboxState::SandboxNotready));
        let (status, _) = cri.pod_status(&pods[0].id).unwrap();
        (pods[0].id.clone(), status.network.unwrap().ip)
    };
    let (id, ip) = seen();
    assert_eq!(ip, "10.9.9.9");
    cri.daemon.kill();
    cri.launch();
    assert_eq!(seen(), (id.clone(), ip));
    cri.remove_pod(&id).unwrap_err();
    fault(&cri, FINE);
    cri.remove_pod(&id).unwrap();
    assert_eq!(cri.pods().unwrap(), []);
    cri.check_ledger(&before);
}

/// Steps at which a daemon can be killed while it makes a pod. After the first one there is a record alone.
const MAKING: [&str; 8] = [
    "sandbox-row",
    "netns-made",
    "network-attached",
    "container-row",
    "shim-started",
    "created",
    "sandbox-created",
    "sandbox-started",
];

#[test]
fn a_pod_whose_daemon_is_killed_while_it_makes_it_is_there_until_the_kubelet_removes_it() {
    let Some(cri) = Cri::prepare_with_crash_points("") else { return };
    cri.launch();
    let before = cri.ledger();
    for point in MAKING {
        cri.daemon.kill();
        cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        cri.run_pod(cri.pod_config("web")).unwrap_err();
        eventually(&format!("the daemon dies at {point}"), || cri.daemon.ended().is_some());
        cri.launch();
        if point == MAKING[0] {
            eventually("a record alone goes by itself", || cri.pods().unwrap().is_empty());
        } else {
            let pods = cri.pods().unwrap();
            // Of the last one everything is there, but nobody was told.
            let state = match point {
                "sandbox-started" => wire::PodSandboxState::SandboxReady,
                _ => wire::PodSandboxState::SandboxNotready,
            };
            assert_eq!((pods.len(), pods[0].state()), (1, state), "{point}");
            // As a kubelet, or somebody who only removes it.
            if point.len() % 2 == 0 {
                cri.stop_pod(&pods[0].id).unwrap();
            }
            cri.remove_pod(&pods[0].id).unwrap();
        }
        assert_eq!(cri.pods().unwrap(), [], "{point}");
        cri.check_ledger(&before);
        let id = cri.pod("web");
        cri.remove_pod(&id).unwrap();
        cri.check_ledger(&before);
    }
}

#[test]
fn a_daemon_that_is_killed_while_it_removes_a_pod_lets_the_kubelet_go_on() {
    let Some(cri) = Cri::prepare_with_crash_points("") else { return };
    cri.launch();
    let before = cri.ledger();
    for point in ["network-detached", "deleted", "container-row-deleted", "sandbox-row-deleted"] {
        cri.daemon.kill();
        cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        let id = cri.pod("web");
        cri.remove_pod(&id).unwrap_err();
        eventually(&format!("the daemon dies at {point}"), || cri.daemon.ended().is_some());
        cri.launch();
        cri.stop_pod(&id).unwrap();
        cri.remove_pod(&id).unwrap();
        assert_eq!(cri.pods().unwrap(), [], "{point}");
        cri.check_ledger(&before);
    }
}

#[test]
fn pods_outlive_their_daemon_and_what_ended_meanwhile_is_told() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let ids: Vec<String> = ["a", "b", "c"].map(|name| cri.pod(name)).to_vec();
    let network = |id: &str| cri.pod_status(id).unwrap().0.network;
    let addresses: Vec<_> = ids.iter().map(|id| network(id)).collect();
    let ended = cri.pod_pid(&ids[1]);
    cri.daemon.kill();
    proc::kill(ended);
    cri.launch();
    let states: Vec<_> = ids.iter().map(|id| cri.pod_status(id).unwrap().0.state()).collect();
    let (ready, not_ready) = (wire::PodSandboxState::SandboxReady, wire::PodSandboxState::SandboxNotready);
    assert_eq!(states, [ready, not_ready, ready]);
    assert_eq!(ids.iter().map(|id| network(id)).collect::<Vec<_>>(), addresses);
    let again = cri.run_pod(cri.pod_config("a")).unwrap_err();
    assert!(again.message().contains("reserve"), "{again}");
    for id in &ids {
        cri.stop_pod(id).unwrap();
        cri.remove_pod(id).unwrap();
    }
    cri.check_ledger(&before);
}

#[test]
fn a_shim_that_hangs_holds_up_neither_the_start_nor_other_pods() {
    let Some(cri) = Cri::start() else { return };
    let (good, bad) = (cri.pod("good"), cri.pod("bad"));
    let shims: BTreeSet<i32> = cri.shims().iter().map(|shim| shim.pid).collect();
    let hung = proc::shim("k8s.io", &bad).unwrap().pid;
    assert!(shims.contains(&hung));
    cri.daemon.kill();
    let signal = |signal| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(hung).unwrap(), signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let start = Instant::now();
    cri.launch();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let state = |id: &str| cri.pod_status(id).unwrap().0.state();
    assert_eq!(state(&good), wire::PodSandboxState::SandboxReady);
    assert_eq!(state(&bad), wire::PodSandboxState::SandboxNotready);
    cri.remove_pod(&good).unwrap();
    signal(rustix::process::Signal::CONT);
    eventually("the shim answers again", || state(&bad) == wire::PodSandboxState::SandboxReady);
    cri.remove_pod(&bad).unwrap();
}

/// As a kubelet: what failed is looked for, removed and asked for again.
fn insist(cri: &Cri, name: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if let Ok(id) = cri.run_pod(cri.pod_config(name)) {
            return id;
        }
        let pods = cri.pods().unwrap_or_default();
        for pod in pods.iter().filter(|pod| pod.metadata.as_ref().is_some_and(|about| about.name == name)) {
            let _ = cri.remove_pod(&pod.id);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no pod {name} in two minutes")
}

/// At least `rounds` pods of each of so many workers come and go, until the daemon was killed after each of `pauses`, in
/// milliseconds. Nothing is left of them.
fn come_and_go(workers: usize, rounds: usize, pauses: &[u64]) {
    let Some(cri) = Cri::prepare("") else { return };
    cri.launch();
    let before = cri.ledger();
    let kills = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (cri, kills) = (&cri, &kills);
            scope.spawn(move || {
                let mut round = 0;
                while round < rounds || kills.load(Ordering::SeqCst) < pauses.len() {
                    let id = insist(cri, &format!("pod-{worker}-{round}"));
                    eventually("the pod is removed", || cri.remove_pod(&id).is_ok());
                    round += 1;
                }
            });
        }
        for pause in pauses {
            std::thread::sleep(Duration::from_millis(*pause));
            cri.daemon.kill();
            cri.launch();
            kills.fetch_add(1, Ordering::SeqCst);
        }
    });
    for pod in cri.pods().unwrap() {
        cri.remove_pod(&pod.id).unwrap();
    }
    cri.check_ledger(&before);
}

#[test]
fn pods_that_come_and_go_while_the_daemon_is_killed_again_and_again_leave_nothing() {
    come_and_go(4, 6, &[700, 300, 1100, 500, 900]);
}

#[test]
#[ignore = "takes a minute: `./x soak pods`"]
fn a_hundred_pods_that_come_and_go_ten_at_a_time_leave_nothing() {
    come_and_go(10, 10, &[]);
}

#[test]
#[ignore = "takes a minute: `./x soak pods`"]
fn a_hundred_pods_that_come_and_go_while_the_daemon_is_killed_at_random_five_times_leave_nothing() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut chance = Chance::new(since.as_secs());
    let pauses: Vec<u64> = (0..5).map(|_| 100 + chance.number() % 1400).collect();
    eprintln!("killed after {pauses:?} ms");
    come_and_go(10, 10, &pauses);
}

#[test]
fn after_a_reboot_pods_are_not_ready_their_containers_have_ended_and_both_can_be_removed() {
    let Some(cri) = Cri::start() else { return };
    cri.image();
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let (running, created) = (kubelet.run("running", "exec sleep 1000"), kubelet.create("created", "true"));
    let cri = &kubelet.cri;
    cri.daemon.kill();
    // What a reboot takes along: processes, mounts, links, and what is in /run.
    let processes = cri.shims().into_iter().chain(proc::contained(cri.daemon.namespace()));
    let pids: Vec<i32> = processes.map(|process| process.pid).collect();
    pids.iter().for_each(|pid| proc::kill(*pid));
    eventually("all processes are gone", || !pids.iter().any(|pid| proc::alive(*pid)));
    for mount in proc::mounts_below(cri.daemon.dir()) {
        rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    proc::cgroups(cri.daemon.namespace()).iter().for_each(|group| drop(fs::remove_dir(group)));
    fs::remove_dir_all(cri.daemon.state()).unwrap();
    fs::remove_dir_all(cri.daemon.sockets()).unwrap();
    cri.launch();
    let pods = cri.pods().unwrap();
    assert_eq!((pods.len(), pods[0].state()), (1, wire::PodSandboxState::SandboxNotready));
    let ended = kubelet.status(&running);
    assert_eq!((ended.state(), ended.exit_code), (wire::ContainerState::ContainerExited, 255));
    assert_eq!(kubelet.status(&created).state(), wire::ContainerState::ContainerCreated);
    assert_eq!(kubelet.try_start(&created).unwrap_err().code(), Code::FailedPrecondition);
    // As a kubelet: it is stopped, and made again under the next number.
    cri.stop_pod(&kubelet.pod).unwrap();
    let mut again = kubelet.pod_config.clone();
    again.metadata.as_mut().unwrap().attempt = 1;
    let again = kubelet.pod(again, "").unwrap();
    assert_eq!(again.says(again.config("again", "echo here")), ["here"]);
    for pod in [&kubelet.pod, &again.pod] {
        cri.remove_pod(pod).unwrap();
    }
    assert_eq!(kubelet.list(None), []);
    cri.check_ledger(&before);
}
