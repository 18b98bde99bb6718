//! A runtime that hangs while it makes a container, or a hook of it, or while it deletes one: the container can be ended,
//! and made again.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use api::containerd::task::v3 as wire;
use support::{Client, Rig, V3, can_run, eventually, is_gone};
use types::Class;

const SIGKILL: u32 = 9;

/// The pid that something wrote when it began to hang.
fn hanging(file: &Path) -> u32 {
    let mut pid = None;
    eventually("something hangs", || {
        pid = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

/// Hangs with a child of its own, which holds its streams.
const HANGS: &str = "sleep 1000 & echo $! > PID.new; mv PID.new PID; wait; exit 1";

/// A program that does `what` instead of the step `when`, and is runc otherwise.
fn runtime(rig: &Rig, when: &str, what: &str) -> String {
    let path = rig.path("hangs");
    let what = what.replace("PID", rig.path("pid").to_str().unwrap());
    let script = format!("#!/bin/sh\ncase \" $* \" in *\" {when} \"*) {what};; esac\nexec runc \"$@\"\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn begin(rig: &Rig, runtime: Option<String>, limit: Duration) -> (Client, u32) {
    let mut options = rig.options();
    options.binary_name = runtime.unwrap_or_default();
    let request = wire::CreateTaskRequest {
        options: Some(api::any::to_wire(api::any::pack(&options))),
        ..rig.create_request("c1")
    };
    let mut client = rig.client();
    let stream = client.send(V3, "Create", &request, limit);
    (client, stream)
}

/// Nothing is left of the container, and it can be made and run after all.
fn run_after_all(rig: &Rig) {
    assert!(rig.mounts().is_empty(), "{:?}", rig.mounts());
    assert_eq!(
        std::fs::read_dir(rig.path("runc/test")).map_or(0, Iterator::count),
        0,
        "runc keeps something"
    );
    rig.run("c1", &["true"]);
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn a_kill_ends_what_a_runtime_hangs_over() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["true"]);
    let (mut client, stream) = begin(&rig, Some(runtime(&rig, "create", HANGS)), Duration::ZERO);
    let child = hanging(&rig.path("pid"));
    // As with upstream for any other signal, and for any other question.
    assert_eq!(rig.kill("c1", "", 15).unwrap_err().to_string(), "container not created: not found");
    assert_eq!(rig.state("c1", "").unwrap_err().class(), Class::NotFound);
    rig.kill("c1", "", SIGKILL).unwrap();
    let (answered, result) = client.receive();
    assert_eq!(answered, stream);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("OCI runtime create failed: "), "{error}");
    eventually("what the runtime started is gone", || is_gone(child));
    run_after_all(&rig);
}

#[test]
fn a_kill_ends_what_a_hook_hangs_over() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let config = rig.bundle("c1", &["true"]).join("config.json");
    let pid = rig.path("pid");
    let script = format!("echo $$ > {pid:?}.new; mv {pid:?}.new {pid:?}; exec sleep 1000");
    let hook =
        format!(r#"{{"hooks":{{"createRuntime":[{{"path":"/bin/sh","args":["sh","-c",{script:?}]}}]}},"#);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen('{', &hook, 1)).unwrap();
    let (mut client, _) = begin(&rig, None, Duration::ZERO);
    let hook = hanging(&pid);
    rig.kill("c1", "", SIGKILL).unwrap();
    client.receive().1.unwrap_err();
    eventually("the hook is gone", || is_gone(hook));
    let group = format!("containerd-rs-test-{}-c1", std::process::id());
    let cgroups = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path().join(&group));
    let left: Vec<_> = cgroups.filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::write(&config, text).unwrap();
    run_after_all(&rig);
}

#[test]
fn a_create_with_a_limit_ends_at_it() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["true"]);
    let (mut client, _) = begin(&rig, Some(runtime(&rig, "create", HANGS)), Duration::from_millis(500));
    client.receive().1.unwrap_err();
    eventually("what the runtime started is gone", || is_gone(hanging(&rig.path("pid"))));
    run_after_all(&rig);
}

#[test]
fn a_runtime_that_goes_on_hanging_is_killed_itself() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["true"]);
    let stubborn = "while :; do sleep 1000 & echo $! > PID.new; mv PID.new PID; wait; done";
    let (mut client, _) = begin(&rig, Some(runtime(&rig, "create", stubborn)), Duration::ZERO);
    hanging(&rig.path("pid"));
    // What it waits for is killed, and two seconds later the runtime.
    rig.kill("c1", "", SIGKILL).unwrap();
    client.receive().1.unwrap_err();
    run_after_all(&rig);
}

#[test]
fn a_deletion_ends_though_the_runtime_hangs_over_it() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["sleep", "1000"]);
    let (mut client, _) = begin(&rig, Some(runtime(&rig, "delete", HANGS)), Duration::ZERO);
    client.receive().1.unwrap();
    rig.kill("c1", "", SIGKILL).unwrap();
    rig.wait("c1", "");
    let child = hanging(&rig.path("pid"));
    let error = rig.delete("c1", "").unwrap_err();
    assert!(error.to_string().starts_with("failed to delete task: "), "{error}");
    eventually("its children have ended", || is_gone(child));
    // What hung once need not hang again.
    runtime(&rig, "nothing", "exit");
    rig.delete("c1", "").unwrap();
    run_after_all(&rig);
}
