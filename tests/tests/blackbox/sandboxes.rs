//! The sandbox API: records of sandboxes, and sandboxes that shims make by themselves.

use std::fs;

use api::containerd::services::sandbox::v1 as wire;
use containerd_tests::{Cri, Daemon, Ledger, binaries, eventually, proc};
use grpc::sandbox::controller_client::ControllerClient;
use serde_json::json;

/// Writes a sandbox's spec; gives its path.
fn spec(daemon: &Daemon, id: &str, args: &[&str]) -> String {
    let rootfs = daemon.dir().join(id);
    fs::create_dir_all(rootfs.join("proc")).unwrap();
    fs::copy(binaries::busybox(), rootfs.join("busybox")).unwrap();
    let namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts"].iter().map(|kind| json!({"type": kind})).collect();
    let spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": rootfs},
        "process": {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{}/{id}", daemon.namespace())},
    });
    let path = daemon.dir().join(format!("{id}.json"));
    fs::write(&path, spec.to_string()).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn a_sandbox_is_run_listed_shown_and_removed_and_nothing_is_left() {
    if binaries::beyond_upstream("1.6 has no sandboxes") {
        return;
    }
    let daemon = Daemon::start();
    let before = Ledger::take(&daemon);
    let id = daemon.id("sandbox");
    let spec = spec(&daemon, &id, &["/busybox", "sleep", "1000"]);
    assert_eq!(daemon.ctr(&["sandboxes", "run", &spec, &id]).ok().trim(), id);
    let list = daemon.ctr(&["sb", "ls"]).ok();
    assert!(list.starts_with("ID") && list.contains(&id), "{list}");
    assert!(daemon.ctr(&["s", "info", &id]).ok().contains("io.containerd.runc.v2"));
    assert_eq!(daemon.ctr(&["tasks", "list"]).ok().lines().count(), 1, "a sandbox is no task");
    assert!(proc::contained(daemon.namespace()).iter().any(|process| process.cmdline.contains("sleep")));
    daemon.ctr(&["namespaces", "remove", daemon.namespace()]).fails().says("sandboxes");
    daemon.ctr(&["sandbox", "rm", &id]).ok();
    assert!(!daemon.ctr(&["sandboxes", "list"]).ok().contains(&id));
    eventually("its process is gone", || proc::contained(daemon.namespace()).is_empty());
    Ledger::check(&before, &daemon);
}

#[test]
fn a_sandbox_that_is_not_there_is_told_by_name() {
    if binaries::beyond_upstream("1.6 has no sandboxes") {
        return;
    }
    let daemon = Daemon::shared();
    daemon.ctr(&["sandboxes", "info", "nobody"]).fails().says("failed to load sandbox nobody");
    assert!(!daemon.ctr(&["sandboxes", "list"]).ok().contains("nobody"));
}

#[test]
fn sandboxes_of_pods_are_looked_at_waited_for_and_ended_as_others_are() {
    let Some(cri) = Cri::start() else { return };
    let pod = cri.pod("web");
    let channel = || {
        let address = format!("unix://{}", cri.daemon.address().display());
        tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy()
    };
    let client = || ControllerClient::new(cri.block_on(async { channel() }));
    fn of<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().unwrap());
        request
    }
    let (sandboxer, sandbox_id) = ("podsandbox".to_owned(), pod.clone());
    let status = || {
        let (sandboxer, sandbox_id) = (sandboxer.clone(), sandbox_id.clone());
        let request = wire::ControllerStatusRequest { sandbox_id, verbose: true, sandboxer };
        cri.call(client().status(of(request))).unwrap()
    };
    let ready = status();
    assert_eq!((ready.state.as_str(), ready.pid.cast_signed()), ("SANDBOX_READY", cri.pod_pid(&pod)));
    assert!(ready.created_at.is_some() && ready.info["info"].contains("\"cniResult\""), "{ready:?}");
    let request = wire::ControllerPlatformRequest { sandbox_id: pod.clone(), sandboxer: sandboxer.clone() };
    assert_eq!(cri.call(client().platform(of(request))).unwrap().platform.unwrap().os, "linux");
    let request = wire::ControllerMetricsRequest { sandbox_id: pod.clone(), sandboxer: sandboxer.clone() };
    assert!(cri.call(client().metrics(of(request))).unwrap().metrics.unwrap().data.is_some());
    let request = wire::ControllerWaitRequest { sandbox_id: pod.clone(), sandboxer: sandboxer.clone() };
    let wait = || cri.call(client().wait(of(request.clone()))).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        let (sandbox_id, sandboxer) = (pod.clone(), sandboxer.clone());
        let stop = wire::ControllerStopRequest { sandbox_id, timeout_secs: 5, sandboxer };
        for _ in 0..2 {
            cri.call(client().stop(of(stop.clone()))).unwrap();
        }
        assert_eq!(waiting.join().unwrap().exit_status, 137);
    });
    assert_eq!(wait().exit_status, 137, "whoever asks later is told, too");
    assert_eq!((status().state.as_str(), status().pid), ("SANDBOX_NOTREADY", 0));
    assert!(
        cri.pod_status(&pod).unwrap().0.network.unwrap().ip.starts_with("10."),
        "its network is there still"
    );
    let request = wire::ControllerShutdownRequest { sandbox_id: pod.clone(), sandboxer };
    assert_eq!(cri.call(client().shutdown(of(request))).unwrap_err().code(), tonic::Code::Unimplemented);
    let request = wire::ControllerStopRequest {
        sandbox_id: pod.clone(),
        sandboxer: "nobody".into(),
        ..Default::default()
    };
    assert_eq!(cri.call(client().stop(of(request))).unwrap_err().code(), tonic::Code::NotFound);
    cri.remove_pod(&pod).unwrap();
}
