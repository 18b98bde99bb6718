//! Pods whose sandboxes another process makes (`sandboxer = "vm"`, a proxy plugin): their containers run where that says, outlive the
//! daemon and the sandboxer, and end. A sandboxer that is absent, fails, hangs, lies or is not one leaves nothing behind that nobody sees.

use std::io::Write;
use std::os::unix::net::UnixListener;

use api::containerd::services::sandbox::v1 as controller;
use api::cri as wire;
use containerd_tests::sandboxer::{self, Sandboxer};
use containerd_tests::{Cri, Kubelet, binaries, eventually, proc};
use grpc::sandbox::controller_client::ControllerClient;
use tonic::{Code, Request, Status};
use wire::ContainerState::{ContainerExited, ContainerRunning};
use wire::PodSandboxState::{SandboxNotready, SandboxReady};

/// Executed by name, as a process of its own.
#[test]
fn process() {
    sandboxer::serve();
}

fn start(sandboxer: &Sandboxer) {
    sandboxer.start("pod_sandboxers::process");
}

/// A daemon with a sandboxer that runs.
fn both() -> Option<(Cri, Sandboxer)> {
    let cri = Cri::prepare("")?;
    let sandboxer = Sandboxer::of(&cri);
    start(&sandboxer);
    cri.launch();
    Some((cri, sandboxer))
}

/// A kubelet with a pod, and all that there was before it.
fn with_pod() -> Option<(Kubelet, Sandboxer, std::collections::BTreeSet<String>)> {
    let (cri, sandboxer) = both()?;
    cri.image();
    let before = cri.ledger();
    Some((Kubelet::with(cri), sandboxer, before))
}

fn state(cri: &Cri, id: &str) -> wire::PodSandboxState {
    cri.pod_status(id).unwrap().0.state()
}

fn end(cri: &Cri, id: &str) {
    cri.stop_pod(id).unwrap();
    cri.remove_pod(id).unwrap();
}

#[track_caller]
fn nothing_left(cri: &Cri, sandboxer: &Sandboxer, before: &std::collections::BTreeSet<String>, of: &str) {
    assert_eq!(cri.pods().unwrap(), [], "{of}");
    assert_eq!(sandboxer.left(), [] as [String; 0], "{of}");
    cri.check_ledger(before);
}

#[test]
fn a_pod_runs_containers_where_its_sandboxer_says_and_nothing_is_left() {
    let Some((kubelet, sandboxer, before)) = with_pod() else { return };
    let cri = &kubelet.cri;
    let plugins = cri.daemon.ctr(&["plugins", "ls"]).ok();
    let line = plugins.lines().find(|line| line.contains("io.containerd.sandbox.controller.v1"));
    assert!(line.is_some_and(|line| line.contains(" vm ") && line.trim_end().ends_with("ok")), "{plugins}");
    let pod = kubelet.pod.as_str();
    let (status, info) = cri.pod_status(pod).unwrap();
    assert_eq!(status.state(), SandboxReady);
    assert!(status.network.unwrap().ip.starts_with("10."));
    // What it says comes before what we know.
    assert_eq!((&info["vmPid"], &info["pid"]), (&7.into(), &8.into()));
    assert!(info["cniResult"].is_object(), "{info}");
    let id = kubelet.run("c", "echo hello; exec sleep 1000");
    eventually("it is logged", || kubelet.log("c").ends_with(" stdout F hello\n"));
    let (status, info) = kubelet.verbose(&id).unwrap();
    assert_eq!(
        (status.state(), info["runtimeType"].as_str()),
        (ContainerRunning, Some(sandboxer::RUNTIME_TYPE))
    );
    let namespace = |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(namespace(kubelet.pid(&id), kind), namespace(sandboxer.pid(pod), kind), "{kind}");
    }
    assert_eq!(cri.shims().len(), 1, "there is no shim but the sandboxer's");
    assert_eq!(kubelet.sync(&id, "echo said", 0).unwrap().stdout, b"said\n");
    let request = wire::PodSandboxStatsRequest { pod_sandbox_id: pod.to_owned() };
    let stats = cri.call(cri.client().pod_sandbox_stats(request)).unwrap().stats.unwrap().linux.unwrap();
    assert_eq!(stats.network.unwrap().default_interface.unwrap().name, "eth0");
    assert!(stats.containers[0].memory.as_ref().unwrap().usage_bytes.unwrap().value > 0);
    assert_eq!(kubelet.exits(&kubelet.run("other", "exit 3")).exit_code, 3);
    kubelet.stop(&id, 0).unwrap();
    assert_eq!(kubelet.status(&id).exit_code, 137);
    kubelet.remove(&id).unwrap();
    assert_eq!(state(cri, pod), SandboxReady, "others of the sandbox are not ended with a container");
    kubelet.run("last", "sleep 1000");
    end(cri, pod);
    nothing_left(cri, &sandboxer, &before, "the pod");
    let asked = sandboxer.asked();
    let create = format!(r#"Create {pod} vm {} "k8s.io" ["metadata"]"#, sandboxer::RUNTIME_TYPE);
    assert!(asked.contains(&create), "{asked:?}");
    for method in ["Create", "Start", "Wait", "Stop", "Shutdown"] {
        assert_eq!(sandboxer.count(method), 1, "{method}: {asked:?}");
    }
}

#[test]
fn a_pod_and_its_containers_outlive_the_daemon_and_what_ended_meanwhile_is_told() {
    let Some((kubelet, sandboxer, before)) = with_pod() else { return };
    let (cri, pod) = (&kubelet.cri, kubelet.pod.as_str());
    let (a, b) = (kubelet.run("a", "sleep 1000"), kubelet.run("b", "sleep 1000"));
    let pid = kubelet.pid(&a);
    cri.daemon.kill();
    proc::kill(proc::contained(cri.daemon.namespace()).iter().find(|p| p.cgroups.contains(&b)).unwrap().pid);
    cri.launch();
    assert_eq!((kubelet.status(&a).state(), kubelet.pid(&a)), (ContainerRunning, pid));
    assert_eq!(kubelet.exits(&b).exit_code, 137);
    assert_eq!(state(cri, pod), SandboxReady);
    // It is asked again where tasks are made.
    assert_eq!(kubelet.exits(&kubelet.run("c", "exit 4")).exit_code, 4);
    assert_eq!(kubelet.sync(&a, "echo said", 0).unwrap().stdout, b"said\n");
    // Its end is told to the next daemon too.
    cri.daemon.kill();
    proc::kill(sandboxer.pid(pod));
    cri.launch();
    eventually("the pod is not ready", || cri.pods().unwrap()[0].state() == SandboxNotready);
    assert_eq!(state(cri, pod), SandboxNotready);
    assert_eq!(kubelet.exits(&a).exit_code, 137, "its namespace of processes has ended");
    end(cri, pod);
    nothing_left(cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_sandboxer_that_goes_away_and_comes_back_is_missed_only_by_who_asks_it() {
    let Some((kubelet, sandboxer, before)) = with_pod() else { return };
    let (cri, pod) = (&kubelet.cri, kubelet.pod.as_str());
    let id = kubelet.run("c", "sleep 1000");
    eventually("its end is waited for", || sandboxer.count("Wait") == 1);
    sandboxer.kill();
    assert_eq!(kubelet.sync(&id, "echo said", 0).unwrap().stdout, b"said\n");
    assert_eq!(cri.pods().unwrap()[0].state(), SandboxReady);
    let missed = |error: Status| {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains("sandboxer \"vm\""), "{error}");
    };
    missed(cri.pod_status(pod).unwrap_err());
    missed(kubelet.try_create(kubelet.config("d", "true")).unwrap_err());
    missed(cri.run_pod(cri.pod_config("other")).unwrap_err());
    // A daemon that comes while it is away knows its pods, and waits for it.
    kubelet.restart();
    assert_eq!(kubelet.status(&id).state(), ContainerRunning);
    let pods = cri.pods().unwrap();
    assert_eq!((pods.len(), pods[0].state()), (1, SandboxNotready), "nobody knows whether it runs");
    missed(cri.stop_pod(pod).unwrap_err());
    missed(cri.remove_pod(pod).unwrap_err());
    start(&sandboxer);
    eventually("the pod is ready again, or has been", || sandboxer.count("Status") > 0);
    assert_eq!(state(cri, pod), SandboxReady);
    end(cri, pod);
    nothing_left(cri, &sandboxer, &before, "the pod");
}

#[test]
fn the_end_of_a_sandbox_is_told_when_it_happens() {
    let Some((kubelet, sandboxer, before)) = with_pod() else { return };
    let (cri, pod) = (&kubelet.cri, kubelet.pod.as_str());
    let id = kubelet.run("c", "sleep 1000");
    proc::kill(sandboxer.pid(pod));
    eventually("the pod is not ready", || cri.pods().unwrap()[0].state() == SandboxNotready);
    kubelet.exits(&id);
    assert_eq!(kubelet.try_create(kubelet.config("d", "true")).unwrap_err().code(), Code::FailedPrecondition);
    end(cri, pod);
    nothing_left(cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_task_service_that_is_gone_takes_its_containers_along() {
    let Some((kubelet, sandboxer, before)) = with_pod() else { return };
    let (cri, pod) = (&kubelet.cri, kubelet.pod.as_str());
    let id = kubelet.run("c", "sleep 1000");
    let left: Vec<i32> = proc::contained(cri.daemon.namespace()).iter().map(|p| p.pid).collect();
    proc::kill(cri.shims()[0].pid);
    let ended = kubelet.exits(&id);
    assert_eq!(ended.exit_code, 255, "nobody knows how");
    left.iter().for_each(|pid| assert!(proc::alive(*pid), "what is not ours is not ended by its number"));
    // That is its sandboxer's work, or here ours.
    left.iter().for_each(|pid| proc::kill(*pid));
    for id in [pod, &id] {
        let mut runc = std::process::Command::new("runc");
        runc.env("PATH", binaries::search_path(&binaries::tested().shim_dir));
        let deleted = runc.args(["--root", "/run/containerd/runc/k8s.io", "delete", "--force", id]).status();
        assert!(deleted.unwrap().success());
    }
    end(cri, pod);
    assert_eq!(cri.pods().unwrap(), []);
    assert_eq!(sandboxer.left(), [] as [String; 0]);
    let bundles = cri.daemon.state().join("io.containerd.runtime.v2.task/k8s.io");
    eventually("no bundle is left", || std::fs::read_dir(&bundles).unwrap().next().is_none());
    drop(before);
}

/// What a sandboxer can do wrong before a pod is ready, and what is said of it.
const FAULTS: [(&[&str], &str); 13] = [
    (&["Create fail"], "out of luck"),
    (&["Create late"], "out of luck, late"),
    (&["Create missing"], "never heard of it"),
    (&["Create unknown"], "what is that"),
    (&["Start fail"], "out of luck"),
    (&["Start late"], "out of luck, late"),
    (&["Start say /etc/passwd"], "task API address \"/etc/passwd\""),
    (&["Start say smtp+unix:///a"], "smtp"),
    (&["Start say grpc+unix:///a"], "grpc"),
    (&["Start say ttrpc+unix://../../a"], "not absolute"),
    (&["Start say old"], "containerd client supports only v2 and v3"),
    (&["Start say label long"], "label"),
    // What it does not end, it may still be able to remove.
    (&["Start fail", "Stop fail"], "out of luck"),
];

#[test]
fn a_sandboxer_that_fails_or_lies_leaves_nothing_and_its_words_are_told() {
    let Some((cri, sandboxer)) = both() else { return };
    let before = cri.ledger();
    for (faults, words) in FAULTS {
        sandboxer.fault(faults);
        let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
        assert!(error.message().contains(words), "{faults:?}: {error}");
        assert!(error.message().contains("sandboxer \"vm\": "), "{faults:?}: {error}");
        nothing_left(&cri, &sandboxer, &before, faults[0]);
    }
    sandboxer.fault(&[]);
    let id = cri.pod("web");
    end(&cri, &id);
    nothing_left(&cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_sandbox_that_cannot_be_ended_or_removed_is_there_until_it_can() {
    let Some((cri, sandboxer)) = both() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    let namespaces = || std::fs::read_dir(cri.state().join("netns")).unwrap().count();
    sandboxer.fault(&["Stop fail"]);
    assert!(cri.stop_pod(&id).unwrap_err().message().contains("out of luck"));
    assert_eq!((cri.pods().unwrap().len(), namespaces()), (1, 1), "what may still run has its network");
    assert!(cri.remove_pod(&id).unwrap_err().message().contains("out of luck"));
    sandboxer.fault(&["Shutdown fail"]);
    cri.stop_pod(&id).unwrap();
    assert!(cri.remove_pod(&id).unwrap_err().message().contains("out of luck"));
    assert_eq!((cri.pods().unwrap().len(), state(&cri, &id)), (1, SandboxNotready));
    // What was made and cannot be taken back is there to be seen.
    sandboxer.fault(&["Start fail", "Stop fail", "Shutdown fail"]);
    cri.run_pod(cri.pod_config("other")).unwrap_err();
    assert_eq!(cri.pods().unwrap().len(), 2);
    cri.daemon.kill();
    cri.launch();
    let pods = cri.pods().unwrap();
    assert!(pods.len() == 2 && pods.iter().all(|pod| pod.state() == SandboxNotready), "{pods:?}");
    sandboxer.fault(&[]);
    pods.iter().for_each(|pod| end(&cri, &pod.id));
    nothing_left(&cri, &sandboxer, &before, "both");
}

#[test]
fn a_sandboxer_that_does_not_know_a_sandbox_any_more_has_ended_it() {
    let Some((cri, sandboxer)) = both() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    sandboxer.fault(&["Status missing"]);
    assert_eq!(state(&cri, &id), SandboxNotready);
    // Somebody else has removed it.
    let (sandbox_id, name) = (id.clone(), sandboxer::NAME.to_owned());
    let stop = controller::ControllerStopRequest { sandbox_id, timeout_secs: 1, sandboxer: name.clone() };
    cri.call(client(&cri).stop(of(stop))).unwrap();
    let shutdown = controller::ControllerShutdownRequest { sandbox_id: id.clone(), sandboxer: name };
    cri.call(client(&cri).shutdown(of(shutdown))).unwrap();
    sandboxer.fault(&["Stop missing", "Shutdown missing"]);
    end(&cri, &id);
    nothing_left(&cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_sandboxer_that_hangs_is_given_up_and_holds_up_nobody_else() {
    let Some(cri) = Cri::prepare("") else { return };
    let sandboxer = Sandboxer::of(&cri);
    // Enough for what it does do, on a machine that is busy.
    sandboxer::set_patience(&cri, "4s");
    start(&sandboxer);
    cri.launch();
    let before = cri.ledger();
    for fault in ["Create hang", "Start hang"] {
        sandboxer.fault(&[fault]);
        let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(error.message().contains("no answer within 4s"), "{error}");
        nothing_left(&cri, &sandboxer, &before, fault);
    }
    sandboxer.fault(&["Create hang", "Stop hang", "Shutdown hang"]);
    cri.run_pod(cri.pod_config("web")).unwrap_err();
    let id = cri.pods().unwrap()[0].id.clone();
    assert_eq!(cri.stop_pod(&id).unwrap_err().code(), Code::DeadlineExceeded);
    sandboxer.fault(&["Wait hang", "Status hang"]);
    end(&cri, &id);
    // Whoever never tells of an end is not waited for.
    let id = cri.pod("web");
    assert_eq!(cri.pod_status(&id).unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(cri.pods().unwrap()[0].state(), SandboxReady);
    end(&cri, &id);
    nothing_left(&cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_sandboxer_that_is_not_there_or_is_none_is_named() {
    let Some(cri) = Cri::prepare("") else { return };
    let sandboxer = Sandboxer::of(&cri);
    let keys = "runtime_type = 'io.containerd.runc.v2'\nsandboxer = 'nobody'";
    cri.set("plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.wrong", keys);
    sandboxer::set_patience(&cri, "4s");
    cri.launch();
    let before = cri.ledger();
    let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("dial unix") && error.message().contains("no such file"), "{error}");
    nothing_left(&cri, &sandboxer, &before, "absent");
    let config = Some(cri.pod_config("web"));
    let request = wire::RunPodSandboxRequest { config, runtime_handler: "wrong".into() };
    let error = cri.call(cri.client().run_pod_sandbox(request)).unwrap_err();
    assert!(error.message().contains("failed to get sandbox controller by nobody"), "{error}");
    nothing_left(&cri, &sandboxer, &before, "not configured");
    // Somebody who listens there and speaks something else, or nothing at all.
    for says in [&b"220 mail.example.org ESMTP\r\n"[..], b""] {
        let listener = UnixListener::bind(sandboxer.address()).unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let rubbish = std::thread::spawn(move || {
            listener.set_nonblocking(true).unwrap();
            let mut kept = Vec::new();
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                if let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.write_all(says);
                    kept.push(stream);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let error = cri.run_pod(cri.pod_config("web")).unwrap_err();
        assert!(error.message().contains("sandboxer \"vm\": create"), "{error}");
        drop(stop);
        rubbish.join().unwrap();
        sandboxer.kill();
        // Nobody knows what it has made of that.
        let pods = cri.pods().unwrap();
        assert_eq!((pods.len(), pods[0].state()), (1, SandboxNotready));
        start(&sandboxer);
        end(&cri, &pods[0].id);
        nothing_left(&cri, &sandboxer, &before, "rubbish");
        sandboxer.kill();
    }
}

#[test]
fn a_container_whose_task_service_is_not_there_is_not_started_and_can_be_removed() {
    let Some((cri, sandboxer)) = both() else { return };
    let kubelet = {
        cri.image();
        sandboxer.fault(&["Start say nothing"]);
        Kubelet::with(cri)
    };
    let cri = &kubelet.cri;
    let before = cri.ledger();
    let id = kubelet.create("c", "true");
    let error = kubelet.try_start(&id).unwrap_err();
    assert!(error.message().contains("has not said where tasks"), "{error}");
    assert_eq!(kubelet.status(&id).state(), ContainerExited);
    kubelet.remove(&id).unwrap();
    sandboxer.fault(&["Start say ttrpc+unix:///nowhere"]);
    let other = kubelet.pod(cri.pod_config("other"), "").unwrap();
    let id = other.create("c", "true");
    let error = other.try_start(&id).unwrap_err();
    assert!(error.message().contains("unix:///nowhere"), "{error}");
    other.remove(&id).unwrap();
    sandboxer.fault(&["Platform say windows"]);
    let error = kubelet.try_create(kubelet.config("d", "true")).unwrap_err();
    assert!(error.code() == Code::Unimplemented && error.message().contains("windows"), "{error}");
    sandboxer.fault(&["Platform fail"]);
    assert!(kubelet.try_create(kubelet.config("d", "true")).unwrap_err().message().contains("out of luck"));
    sandboxer.fault(&["Platform unknown"]);
    kubelet.remove(&kubelet.create("d", "true")).unwrap();
    end(cri, &other.pod);
    cri.check_ledger(&before);
    end(cri, &kubelet.pod);
}

#[test]
fn resources_of_a_pod_are_told_to_its_sandboxer() {
    let Some((cri, sandboxer)) = both() else { return };
    let id = cri.pod("web");
    let linux = |cpu_shares| wire::LinuxContainerResources { cpu_shares, ..Default::default() };
    let update = || {
        let (overhead, resources) = (Some(linux(100)), Some(linux(200)));
        let request =
            wire::UpdatePodSandboxResourcesRequest { pod_sandbox_id: id.clone(), overhead, resources };
        cri.call(cri.client().update_pod_sandbox_resources(request))
    };
    update().unwrap();
    let told = format!(r#"Update {id} ["extensions"] ["metadata", "updated-resources"]"#);
    assert!(sandboxer.asked().contains(&told), "{:?}", sandboxer.asked());
    sandboxer.fault(&["Update unknown"]);
    update().unwrap();
    sandboxer.fault(&["Update fail"]);
    assert!(update().unwrap_err().message().contains("out of luck"));
    sandboxer.fault(&[]);
    end(&cri, &id);
}

#[test]
fn a_pod_of_a_sandboxer_that_is_not_configured_any_more_is_seen_and_stays() {
    let Some((cri, sandboxer)) = both() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    cri.daemon.kill();
    let path = cri.daemon.dir().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("proxy_plugins.vm", "proxy_plugins.other")).unwrap();
    cri.launch();
    assert_eq!(cri.pods().unwrap()[0].state(), SandboxNotready);
    for error in [cri.stop_pod(&id).unwrap_err(), cri.remove_pod(&id).unwrap_err()] {
        assert!(error.message().contains("failed to get sandbox controller by vm"), "{error}");
    }
    cri.daemon.kill();
    std::fs::write(&path, config).unwrap();
    cri.launch();
    assert_eq!(state(&cri, &id), SandboxReady);
    end(&cri, &id);
    nothing_left(&cri, &sandboxer, &before, "the pod");
}

#[test]
fn a_daemon_that_is_killed_between_two_steps_leaves_nothing_that_the_kubelet_cannot_remove() {
    let Some(cri) = Cri::prepare_with_crash_points("") else { return };
    let sandboxer = Sandboxer::of(&cri);
    start(&sandboxer);
    cri.launch();
    let image = cri.image();
    cri.knows(image);
    let before = cri.ledger();
    for point in ["netns-made", "sandbox-created", "network-attached", "sandbox-started"] {
        cri.daemon.kill();
        cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        cri.run_pod(cri.pod_config("web")).unwrap_err();
        eventually(&format!("the daemon dies at {point}"), || cri.daemon.ended().is_some());
        cri.launch();
        let pods = cri.pods().unwrap();
        assert_eq!((pods.len(), pods[0].state()), (1, SandboxNotready), "{point}");
        cri.remove_pod(&pods[0].id).unwrap();
        nothing_left(&cri, &sandboxer, &before, point);
    }
    let kubelet = Kubelet::with(cri);
    let cri = &kubelet.cri;
    for point in
        ["bundle-begun", "bundle-made", "address-stored", "created", "cri-task-created", "cri-task-started"]
    {
        cri.daemon.kill();
        cri.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        let id = kubelet.create("c", "sleep 1000");
        kubelet.try_start(&id).unwrap_err();
        eventually(&format!("the daemon dies at {point}"), || cri.daemon.ended().is_some());
        cri.launch();
        assert_eq!(state(cri, &kubelet.pod), SandboxReady, "{point}");
        kubelet.stop(&id, 0).unwrap();
        kubelet.remove(&id).unwrap();
        assert_eq!(kubelet.list(None), [], "{point}");
    }
    end(cri, &kubelet.pod);
    nothing_left(cri, &sandboxer, &before, "the pod");
}

fn client(cri: &Cri) -> ControllerClient<tonic::transport::Channel> {
    let address = format!("unix://{}", cri.daemon.address().display());
    let channel = || tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy();
    ControllerClient::new(cri.block_on(async { channel() }))
}

fn of<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().unwrap());
    request
}

#[test]
fn clients_of_containerds_own_api_reach_a_sandboxer_by_its_name() {
    let Some((cri, sandboxer)) = both() else { return };
    let before = cri.ledger();
    let spec = cri.daemon.dir().join("spec.json");
    let text = serde_json::json!({
        "ociVersion": "1.2.0",
        "linux": {"cgroupsPath": format!("/{}/made", cri.daemon.namespace())},
    });
    std::fs::write(&spec, text.to_string()).unwrap();
    let ctr = |words: &[&str]| cri.daemon.ctr(&[&["-n", "k8s.io", "sandboxes"][..], words].concat());
    let run = ["run", "--sandboxer", "vm", &spec.to_string_lossy(), "made"];
    assert_eq!(ctr(&run).ok().trim(), "made");
    assert!(ctr(&["ls"]).ok().contains("made"));
    let (sandbox_id, name) = ("made".to_owned(), sandboxer::NAME.to_owned());
    let ask = controller::ControllerStatusRequest {
        sandbox_id: sandbox_id.clone(),
        verbose: true,
        sandboxer: name.clone(),
    };
    let status = cri.call(client(&cri).status(of(ask))).unwrap();
    assert_eq!(
        (status.state.as_str(), status.version, status.info["more"].as_str()),
        ("SANDBOX_READY", 3, "of it")
    );
    assert!(status.address.starts_with("ttrpc+unix:///"), "{}", status.address);
    let ask =
        controller::ControllerMetricsRequest { sandbox_id: sandbox_id.clone(), sandboxer: name.clone() };
    assert!(cri.call(client(&cri).metrics(of(ask))).unwrap().metrics.unwrap().data.is_some());
    let ask =
        controller::ControllerPlatformRequest { sandbox_id: sandbox_id.clone(), sandboxer: name.clone() };
    assert_eq!(cri.call(client(&cri).platform(of(ask))).unwrap().platform.unwrap().os, "linux");
    let mut update =
        controller::ControllerUpdateRequest { sandbox_id, sandboxer: name, ..Default::default() };
    assert_eq!(cri.call(client(&cri).update(of(update.clone()))).unwrap_err().code(), Code::Unknown);
    update.sandbox = Some(Default::default());
    cri.call(client(&cri).update(of(update))).unwrap();
    assert_eq!(sandboxer.count("Update"), 1);
    ctr(&["rm", "made"]).ok();
    nothing_left(&cri, &sandboxer, &before, "the sandbox");
    ctr(&["run", "--sandboxer", "nobody", &spec.to_string_lossy(), "made"])
        .fails()
        .says("failed to get sandbox controller by nobody");
}
