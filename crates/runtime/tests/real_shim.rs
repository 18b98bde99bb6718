//! A real shim with a real runc: `CONTAINERD_SHIM_BIN=/path/to/containerd-shim-runc-v2 cargo test -p containerd-runtime`.
//!
//! Promised: a task runs to its end with its code kept, events come in order, a second daemon on the same state finds
//! the tasks of the first, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod house;

use std::path::Path;
use std::time::Duration;

use house::{House, eventually, namespace, process};
use runtime::Signal;
use types::any::{RUNTIME_PROCESS, RUNTIME_SPEC};
use types::task::{Exec, Status, Stdio};
use types::{Any, Class};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_to_its_end_and_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let mut daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let pid = runtime.create(&ns, "c1", house.create("exit 7")).await.unwrap();
    assert_eq!(runtime.state(&ns, "c1", "").await.unwrap().status, Status::Created);
    let again = runtime.create(&ns, "c1", house.create("exit 7")).await.unwrap_err();
    assert_eq!(again.class(), Class::AlreadyExists);
    assert_eq!(runtime.start(&ns, "c1", "").await.unwrap(), pid);
    assert_eq!(runtime.wait(&ns, "c1", "").await.unwrap().status, 7);
    let state = runtime.state(&ns, "c1", "").await.unwrap();
    assert_eq!((state.status, state.exit.unwrap().status), (Status::Stopped, 7));
    let deleted = runtime.delete(&ns, "c1").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit.status), (pid, 7));
    assert!(runtime.state(&ns, "c1", "").await.unwrap_err().is_not_found());
    assert_eq!(daemon.topics(4).await, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_kill_and_the_refusal_to_delete_what_runs() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    runtime.create(&ns, "c2", house.create("sleep 1000")).await.unwrap();
    runtime.start(&ns, "c2", "").await.unwrap();
    let exec = Exec {
        id: "e1".into(),
        stdio: Stdio::default(),
        process: Some(Any::new(RUNTIME_PROCESS, process("exit 3").to_string())),
    };
    runtime.exec(&ns, "c2", exec).await.unwrap();
    runtime.start(&ns, "c2", "e1").await.unwrap();
    assert_eq!(runtime.wait(&ns, "c2", "e1").await.unwrap().status, 3);
    assert_eq!(runtime.delete_process(&ns, "c2", "e1").await.unwrap().exit.status, 3);
    assert!(!runtime.pids(&ns, "c2").await.unwrap().is_empty());
    assert_eq!(runtime.delete(&ns, "c2").await.unwrap_err().class(), Class::FailedPrecondition);
    runtime.kill(&ns, "c2", "", Signal { number: 9, all: false }).await.unwrap();
    assert_eq!(runtime.wait(&ns, "c2", "").await.unwrap().status, 137);
    runtime.delete(&ns, "c2").await.unwrap();
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_finds_running_and_ended_tasks() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    for (id, script) in [("run", "sleep 1000"), ("ended", "exit 5")] {
        daemon.runtime.create(&ns, id, house.create(script)).await.unwrap();
        daemon.runtime.start(&ns, id, "").await.unwrap();
    }
    let pid = daemon.runtime.state(&ns, "run", "").await.unwrap().pid;
    drop(daemon);
    let daemon = house.daemon().await;
    let runtime = daemon.runtime.clone();
    assert_eq!(runtime.list(&ns), ["ended", "run"]);
    assert_eq!(runtime.state(&ns, "run", "").await.unwrap().pid, pid);
    assert_eq!(runtime.wait(&ns, "ended", "").await.unwrap().status, 5);
    assert_eq!(runtime.delete(&ns, "ended").await.unwrap().exit.status, 5);
    runtime.kill(&ns, "run", "", Signal { number: 9, all: true }).await.unwrap();
    assert_eq!(runtime.wait(&ns, "run", "").await.unwrap().status, 137);
    runtime.delete(&ns, "run").await.unwrap();
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_is_killed_ends_its_task() {
    let Some(house) = House::build() else { return };
    for daemon_is_up in [true, false] {
        let mut daemon = house.daemon().await;
        let ns = namespace();
        daemon.runtime.create(&ns, "c4", house.create("sleep 1000")).await.unwrap();
        let pid = daemon.runtime.start(&ns, "c4", "").await.unwrap();
        assert_eq!(daemon.topics(2).await, ["/tasks/create", "/tasks/start"]);
        let shim = daemon.runtime.connect(&ns, "c4").await.unwrap().shim_pid;
        let shim = rustix::process::Pid::from_raw(shim.cast_signed()).unwrap();
        if daemon_is_up {
            let mut waiting = std::pin::pin!(daemon.runtime.wait(&ns, "c4", ""));
            let moment = Duration::from_millis(1);
            assert!(tokio::time::timeout(moment, &mut waiting).await.is_err(), "nothing has ended yet");
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            assert_eq!(waiting.await.unwrap().status, 137);
        } else {
            drop(daemon);
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            daemon = house.daemon().await;
        }
        assert_eq!(daemon.topics(2).await, ["/tasks/exit", "/tasks/delete"]);
        assert!(daemon.runtime.state(&ns, "c4", "").await.unwrap_err().is_not_found());
        eventually("init is gone", || !Path::new(&format!("/proc/{pid}")).exists()).await;
        house.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_the_runtime_refuses_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let mut create = house.create("true");
    let text = String::from_utf8(create.spec.unwrap().value).unwrap().replace("/bin/sh", "/no/such/program");
    create.spec = Some(Any::new(RUNTIME_SPEC, text));
    let error = daemon.runtime.create(&namespace(), "c5", create).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to create shim task: "), "{error}");
    assert!(error.contains("/no/such/program"), "{error}");
    house.assert_nothing_left().await;
}
