//! Ends of pods whose containers run, or are just being made: all of them end with it, and nothing is made in a pod that ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use api::cri as wire;
use api::nri;
use containerd_tests::cri::RUNTIME;
use containerd_tests::nri::{Answer, Plugin};
use containerd_tests::{Cri, Kubelet, binaries, eventually, proc};
use tonic::Code;
use wire::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};

#[test]
fn a_pod_that_is_stopped_takes_its_containers_along_and_takes_no_more() {
    let Some(kubelet) = Kubelet::start() else { return };
    let before = kubelet.cri.ledger();
    let deaf = kubelet.run("deaf", "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    let other = kubelet.run("other", "exec sleep 1000");
    let created = kubelet.create("created", "exec sleep 1000");
    eventually("it is ready", || kubelet.log("deaf").contains("ready"));
    let pids = [kubelet.pid(&deaf), kubelet.pid(&other)];
    kubelet.cri.stop_pod(&kubelet.pod).unwrap();
    assert!(!pids.iter().any(|pid| proc::alive(*pid)));
    for id in [&deaf, &other] {
        let ended = kubelet.status(id);
        assert_eq!((ended.state(), ended.exit_code), (ContainerExited, 137));
    }
    assert_eq!(kubelet.status(&created).state(), ContainerCreated);
    for refused in [kubelet.try_start(&created), kubelet.try_create(kubelet.config("late", "true")).map(drop)]
    {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("is not running"), "{refused}");
    }
    kubelet.cri.remove_pod(&kubelet.pod).unwrap();
    assert_eq!(kubelet.list(None), []);
    let after = kubelet.cri.ledger();
    assert!(after.is_subset(&before), "{:?}", after.difference(&before).collect::<Vec<_>>());
}

/// A runtime that holds starts up as long as a file is there.
const SLOW: &str = r#"#!/bin/sh
dir=$(dirname "$0")
case " $* " in
*" start "*)
    touch "$dir/starts"
    while [ -e "$dir/hold" ]; do sleep 0.01; done
    ;;
esac
exec runc "$@"
"#;

/// A plugin that holds up the end of a pod, when it has told that this has begun.
fn holding(begun: Sender<()>, go_on: Receiver<()>) -> Box<Answer> {
    Box::new(move |method, _| {
        if method == "StopPodSandbox" {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        None
    })
}

#[test]
fn a_container_that_is_started_while_its_pod_is_stopped_does_not_stay() {
    if binaries::beyond_upstream("a start that races a stop of its pod") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let section = format!(
        "[plugins.'io.containerd.nri.v1.nri']\nsocket_path = {:?}\nplugin_path = {:?}\nplugin_request_timeout = '60s'\n",
        place("nri.sock"),
        place("plugins"),
    );
    let Some(cri) = Cri::prepare(&section) else { return };
    fs::write(place("runc"), SLOW).unwrap();
    fs::set_permissions(place("runc"), fs::Permissions::from_mode(0o755)).unwrap();
    let table = format!("{RUNTIME}.containerd.runtimes.runc");
    cri.set(&table, "runtime_type = 'io.containerd.runc.v2'");
    cri.set(&format!("{table}.options"), &format!("BinaryName = {:?}", place("runc")));
    cri.launch();
    cri.image();
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let options = kubelet.cri.pod_status(&kubelet.pod).unwrap().1["runtimeOptions"].to_string();
    assert!(options.contains(place("runc").to_str().unwrap()), "{options}");
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let events = [nri::Event::StopPodSandbox];
    let plugin = Plugin::connect(&place("nri.sock"), "10-holds", &events, holding(begun, may_go_on));
    eventually("the plugin is synchronized", || plugin.has_heard("Synchronize"));
    // Processes of its own, which the end of the sandbox does not take along.
    let mut config = kubelet.config("c", "exec sleep 1000");
    let pid = wire::NamespaceMode::Container.into();
    config.linux.get_or_insert_default().security_context.get_or_insert_default().namespace_options =
        Some(wire::NamespaceOption { pid, ..Default::default() });
    let id = kubelet.try_create(config).unwrap();
    fs::write(place("hold"), "").unwrap();
    fs::remove_file(place("starts")).unwrap();
    thread::scope(|scope| {
        let starting = scope.spawn(|| kubelet.try_start(&id));
        eventually("it is being started", || place("starts").exists());
        let stopping = scope.spawn(|| kubelet.cri.stop_pod(&kubelet.pod));
        // From here on the stop has found no container that runs.
        has_begun.recv_timeout(Duration::from_secs(20)).unwrap();
        let late = kubelet.try_create(kubelet.config("late", "true")).unwrap_err();
        assert!(late.message().contains("is being stopped"), "{late}");
        fs::remove_file(place("hold")).unwrap();
        eventually("it runs, or has ended", || {
            matches!(kubelet.status(&id).state(), ContainerRunning | ContainerExited)
        });
        go_on.send(()).unwrap();
        stopping.join().unwrap().unwrap();
        let refused = starting.join().unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    });
    let ended = kubelet.status(&id);
    assert_eq!((ended.state(), ended.reason.as_str()), (ContainerExited, "StartError"));
    let left = proc::contained(kubelet.cri.daemon.namespace());
    assert!(left.is_empty(), "{left:?}");
    kubelet.cri.remove_pod(&kubelet.pod).unwrap();
    kubelet.cri.check_ledger(&before);
}
