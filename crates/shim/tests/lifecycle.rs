//! A container's life: created, started, ended, deleted; each answer and event once and in order; nothing left behind.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use api::containerd::task::v3 as wire;
use api::containerd::v1::types::Status;
use support::{Rig, V2, can_run};
use types::Class;

#[test]
fn a_container_lives_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let mut client = rig.client();
    rig.bundle("c1", &["sh", "-c", "exit 3"]);
    let created: wire::CreateTaskResponse = client.call("Create", &rig.create_request("c1")).unwrap();
    assert_eq!(rig.state("c1", "").unwrap().status, i32::from(Status::Created));
    let wait =
        client.send(V2, "Wait", &wire::WaitRequest { id: "c1".into(), ..Default::default() }, Duration::ZERO);
    let start = client.send(
        V2,
        "Start",
        &wire::StartRequest { id: "c1".into(), ..Default::default() },
        Duration::ZERO,
    );
    let (first, second) = (client.receive(), client.receive());
    assert_eq!((first.0, second.0), (start, wait));
    let exit = <wire::WaitResponse as prost::Message>::decode(second.1.unwrap().as_slice()).unwrap();
    assert_eq!(exit.exit_status, 3);
    let state = rig.state("c1", "").unwrap();
    assert_eq!((state.status, state.exit_status, state.pid), (Status::Stopped.into(), 3, created.pid));
    assert_eq!(rig.kill("c1", "", 15).unwrap_err().to_string(), "process already finished: not found");
    let deleted = rig.delete("c1", "").unwrap();
    assert_eq!((deleted.exit_status, deleted.pid, deleted.exited_at), (3, created.pid, exit.exited_at));
    let again = rig.delete("c1", "").unwrap_err();
    assert_eq!(
        (again.class(), again.to_string()),
        (Class::NotFound, "container not created: not found".into())
    );
    rig.wait_for_topic("/tasks/delete", 1);
    assert_eq!(rig.topics(), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    assert!(rig.mounts().is_empty(), "{:?}", rig.mounts());
    assert_eq!(std::fs::read_dir(rig.path("runc/test")).unwrap().count(), 0);
    rig.shut_down();
}

#[test]
fn a_signal_ends_it_and_is_its_status() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "100"]);
    let running = rig.delete("c1", "").unwrap_err();
    assert_eq!(
        (running.class(), running.to_string()),
        (Class::FailedPrecondition, "cannot delete a running process".into())
    );
    let pids: wire::PidsResponse = rig.client().call("Pids", &wire::PidsRequest { id: "c1".into() }).unwrap();
    assert_eq!(pids.processes.len(), 1);
    // A Wait with a limit ends at it.
    let mut client = rig.client();
    client.send(
        V2,
        "Wait",
        &wire::WaitRequest { id: "c1".into(), ..Default::default() },
        Duration::from_millis(20),
    );
    assert_eq!(client.receive().1.unwrap_err().class(), Class::DeadlineExceeded);
    // Shutdown is ignored while there is a container.
    client.call::<()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
    rig.kill("c1", "", 9).unwrap();
    assert_eq!(rig.wait("c1", ""), 137);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn a_container_that_never_ran_is_deleted() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let created: wire::CreateTaskResponse = rig.client().call("Create", &rig.create_request("c1")).unwrap();
    let again =
        rig.client().call::<wire::CreateTaskResponse>("Create", &rig.create_request("c1")).unwrap_err();
    assert_eq!(again.class(), Class::AlreadyExists);
    assert_eq!(rig.delete("c1", "").unwrap().pid, created.pid);
    rig.wait_for_topic("/tasks/delete", 1);
    assert_eq!(rig.topics(), ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
    assert!(rig.mounts().is_empty());
    rig.shut_down();
}

#[test]
fn what_cannot_be_created_says_why_in_the_runtimes_words_and_is_taken_back() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["no-such-program"]);
    let create = |request: &wire::CreateTaskRequest| {
        rig.client().call::<wire::CreateTaskResponse>("Create", request).unwrap_err().to_string()
    };
    let error = create(&rig.create_request("c1"));
    assert!(error.starts_with("OCI runtime create failed: "), "{error}");
    assert!(error.ends_with("exec: \"no-such-program\": executable file not found in $PATH"), "{error}");
    assert!(rig.mounts().is_empty());
    let mut options = rig.options();
    options.binary_name = "no-such-runtime".into();
    let mut request = rig.create_request("c1");
    request.options = Some(api::any::to_wire(api::any::pack(&options)));
    let error = create(&request);
    assert!(error.ends_with("exec: \"no-such-runtime\": executable file not found in $PATH"), "{error}");
    let mut request = rig.create_request("c1");
    request.rootfs[0].source = "/nonexistent".into();
    assert!(create(&request).starts_with("failed to mount rootfs component"));
    request.stdout = "http://x/y".into();
    assert!(create(&request).contains("unknown STDIO scheme http"));
    request.bundle = "relative".into();
    assert!(create(&request).contains("no absolute path"));
    assert!(rig.mounts().is_empty());
    // And it can be created after all.
    rig.run("c1", &["true"]);
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn fifty_containers_share_a_shim() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c0");
    std::thread::scope(|scope| {
        for worker in 0..5 {
            let rig = &rig;
            scope.spawn(move || {
                for n in 0..10 {
                    let id = format!("c{}", worker * 10 + n);
                    rig.run(&id, &["sh", "-c", &format!("exit {n}")]);
                    assert_eq!(rig.wait(&id, ""), n);
                    assert_eq!(rig.delete(&id, "").unwrap().exit_status, n);
                }
            });
        }
    });
    assert!(rig.mounts().is_empty());
    rig.wait_for_topic("/tasks/delete", 50);
    assert_eq!(rig.topics().len(), 200);
    rig.shut_down();
}

/// Found by the soak: the container ended, and was being removed, while a second kill looked for its cgroups.
#[test]
fn a_kill_that_comes_too_late_says_that_there_is_nothing_to_kill() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["sleep", "1000"]);
    let late = rig.path("late");
    let script = "#!/bin/sh\ncase \" $* \" in *\" kill \"*) runc \"$@\"; sleep 1; echo no cgroup >&2; exit 1;; esac\nexec runc \"$@\"\n";
    std::fs::write(&late, script).unwrap();
    std::fs::set_permissions(&late, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut options = rig.options();
    options.binary_name = late.to_str().unwrap().into();
    let options = Some(api::any::to_wire(api::any::pack(&options)));
    rig.run_as(wire::CreateTaskRequest { options, ..rig.create_request("c1") });
    let error = rig.kill("c1", "", 9).unwrap_err();
    assert_eq!(error.to_string(), "process already finished: not found");
    assert_eq!(rig.wait("c1", ""), 137);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}
