//! A container whose making hangs, here in a hook, can be seen and ended: by a kill, by its client going away, by a restart
//! of the daemon. Nothing of it is left, and its id is free.

use std::path::PathBuf;

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::rpc::{self, Labels};
use containerd_tests::{Daemon, Ledger, Rpc, eventually, proc};
use tokio::task::JoinHandle;

/// A daemon, and a client of it that has a hanging Create under way.
struct Hanging {
    daemon: Daemon,
    before: Ledger,
    runtime: tokio::runtime::Runtime,
    id: String,
    hook: i32,
    creating: JoinHandle<rpc::Answer<u32>>,
}

impl Hanging {
    fn begin() -> Self {
        let daemon = Daemon::start();
        let image = daemon.image();
        let before = Ledger::take(&daemon);
        let id = daemon.id("hangs");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let rpc = runtime.block_on(async { Rpc::new(&daemon.address(), daemon.namespace()) });
        let pid_file = daemon.dir().join("hook.pid");
        let mut spec = rpc::spec(daemon.namespace(), &id, &["/bin/true"]);
        spec["hooks"] = hook(&pid_file);
        let parent = top_layer(&daemon, image);
        let mounts = runtime.block_on(async {
            rpc.create_container(&id, spec).await.unwrap();
            rpc.prepare(&id, &parent, Labels::new()).await.unwrap()
        });
        let creating = runtime.spawn({
            let (rpc, id) = (rpc.clone(), id.clone());
            async move { rpc.create_task(&id, mounts).await }
        });
        let mut hook = None;
        eventually("the hook hangs", || {
            hook = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
            hook.is_some()
        });
        Self { before, runtime, id, hook: hook.unwrap(), creating, daemon }
    }

    /// Nothing of the task is left, and a container of this id runs.
    fn ended(self) {
        let Self { daemon, before, runtime, id, hook, .. } = self;
        // The daemon may be another one by now.
        let rpc = runtime.block_on(async { Rpc::new(&daemon.address(), daemon.namespace()) });
        eventually("the hook is gone", || !proc::alive(hook));
        eventually("the task is gone", || daemon.task(&id).is_none());
        runtime.block_on(async {
            rpc.delete_container(&id).await.unwrap();
            rpc.remove_snapshot(&id).await.unwrap();
        });
        Ledger::check(&before, &daemon);
        assert_eq!(
            daemon.ctr(&["run", "--rm", daemon.image(), &id, "echo", "after all"]).ok(),
            "after all\n"
        );
        Ledger::check(&before, &daemon);
    }
}

/// The committed snapshot that a container of the image stands on.
fn top_layer(daemon: &Daemon, image: &str) -> String {
    let id = daemon.id("probe");
    daemon.ctr(&["containers", "create", image, &id]).ok();
    let list = daemon.ctr(&["snapshots", "list"]).ok();
    daemon.ctr(&["containers", "delete", &id]).ok();
    let line = list.lines().find(|line| line.starts_with(&id)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn hook(pid_file: &PathBuf) -> serde_json::Value {
    let script = format!("echo $$ > {pid_file:?}.new; mv {pid_file:?}.new {pid_file:?}; exec sleep 1000");
    serde_json::json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
}

#[test]
fn a_kill_ends_it_and_its_client_is_told() {
    if beyond_upstream("a hung create can be killed") {
        return;
    }
    let mut hanging = Hanging::begin();
    assert_eq!(hanging.daemon.task(&hanging.id), Some((0, "UNKNOWN".to_owned())));
    hanging.daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", &hanging.id]).ok();
    let status = hanging.runtime.block_on(&mut hanging.creating).unwrap().unwrap_err();
    assert!(status.message().contains("OCI runtime create failed"), "{status:?}");
    hanging.ended();
}

#[test]
fn a_client_that_goes_away_ends_it() {
    if beyond_upstream("a hung create leaves nothing when its client goes away") {
        return;
    }
    let hanging = Hanging::begin();
    hanging.creating.abort();
    hanging.ended();
}

#[test]
fn a_restart_ends_it() {
    if beyond_upstream("a hung create leaves nothing after a restart") {
        return;
    }
    let hanging = Hanging::begin();
    hanging.daemon.kill();
    hanging.daemon.launch();
    hanging.ended();
}
