//! Calls of a hostile stranger: each is refused by name, hurts nobody, and leaves nothing.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use api::containerd::task::v3 as wire;
use api::containerd::v1::types::Status;
use prost::Message;
use support::{Client, Rig, can_run, eventually};
use types::Class;

const SLEEPS: &str = r#"{"user":{"uid":0,"gid":0},"args":["sleep","1000"],"env":["PATH=/bin"],"cwd":"/"}"#;

#[track_caller]
fn refused(client: &mut Client, method: &str, message: &impl Message, class: Class, words: &str) {
    let error = client.call::<()>(method, message).unwrap_err();
    assert_eq!(error.class(), class, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

fn exec_request(exec: &str, spec: &str) -> wire::ExecProcessRequest {
    let spec = types::Any::new(types::any::RUNTIME_PROCESS, spec.to_owned());
    let spec = Some(api::any::to_wire(spec));
    wire::ExecProcessRequest { id: "c1".into(), exec_id: exec.into(), spec, ..Default::default() }
}

fn start(exec: &str) -> wire::StartRequest {
    wire::StartRequest { id: "c1".into(), exec_id: exec.into() }
}

fn kill(exec: &str, signal: u32) -> wire::KillRequest {
    wire::KillRequest { id: "c1".into(), exec_id: exec.into(), signal, all: false }
}

/// Output and input that cannot be, why, and whether the request itself is wrong.
const STREAMS: [(&str, &str, Class, &str); 13] = [
    ("binary://", "", Class::InvalidArgument, "no absolute path"),
    (
        "binary:///no/such",
        "",
        Class::Unknown,
        "failed to start binary process: fork/exec /no/such: no such file or directory",
    ),
    ("binary-v2:///bin/true", "", Class::Unknown, "logging binary did not call ready"),
    ("file://relative", "", Class::InvalidArgument, "no absolute path"),
    ("file:///proc/1/x/y", "", Class::Unknown, "/proc/1/x/y"),
    ("file:///etc", "", Class::Unknown, "/etc"),
    ("nosuch://x", "", Class::Unknown, "unknown STDIO scheme nosuch"),
    ("/no/such/fifo", "", Class::Unknown, "/no/such/fifo"),
    ("relative", "", Class::Unknown, "relative"),
    ("a\0b", "", Class::Unknown, "Invalid argument"),
    ("/etc", "", Class::Unimplemented, "is no FIFO"),
    ("", "/no/such/fifo", Class::Unknown, "/no/such/fifo"),
    ("", "file:///x", Class::InvalidArgument, "input comes from a FIFO"),
];

#[test]
fn what_cannot_be_made_is_never_said_to_be_missing_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let mut client = rig.client();
    for id in ["", "a/b", "..", "a\0b", &"x".repeat(300)] {
        let request = wire::CreateTaskRequest { id: id.into(), ..rig.create_request("c1") };
        refused(&mut client, "Create", &request, Class::InvalidArgument, "invalid container id");
    }
    for bundle in ["", "relative", "/a/../b"] {
        let request = wire::CreateTaskRequest { bundle: bundle.into(), ..rig.create_request("c1") };
        refused(&mut client, "Create", &request, Class::InvalidArgument, "is no absolute path");
    }
    for (stdout, stdin, class, words) in STREAMS {
        let mut request = rig.create_request("c1");
        (request.stdout, request.stdin) = (stdout.into(), stdin.into());
        refused(&mut client, "Create", &request, class, words);
        request.terminal = true;
        refused(&mut client, "Create", &request, class, words);
    }
    let mut request = rig.create_request("c1");
    request.rootfs[0].source = rig.path("nowhere").to_str().unwrap().into();
    refused(&mut client, "Create", &request, Class::Unknown, "failed to mount rootfs component");
    let options = Some(api::ProtoAny { type_url: "x".into(), value: vec![1] });
    let request = wire::CreateTaskRequest { options, ..rig.create_request("c1") };
    refused(&mut client, "Create", &request, Class::InvalidArgument, "but got x");
    assert!(rig.mounts().is_empty() && rig.topics().is_empty(), "{:?}", rig.mounts());
    assert!(!rig.path("runc/test/c1").exists());
    rig.shut_down();
}

#[test]
fn execs_that_cannot_be_leave_the_container_as_it_was() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let mut client = rig.client();
    let files =
        || std::fs::read_dir(rig.path("c1")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let before = files();
    for exec in ["", "a/b", "..", "a\0b", &"x".repeat(300)] {
        refused(&mut client, "Exec", &exec_request(exec, SLEEPS), Class::InvalidArgument, "invalid exec id");
    }
    for spec in ["", "{", "[]", "7", "null"] {
        refused(&mut client, "Exec", &exec_request("e", spec), Class::InvalidArgument, "invalid JSON");
    }
    for spec in ["{}", r#"{"args":1}"#, r#"{"args":["true"],"cwd":"x","user":{"uid":0,"gid":0}}"#] {
        client.call::<()>("Exec", &exec_request("e", spec)).unwrap();
        refused(&mut client, "Start", &start("e"), Class::Unknown, "OCI runtime exec failed");
        refused(&mut client, "Kill", &kill("e", 9), Class::FailedPrecondition, "process not created");
        assert_eq!(rig.state("c1", "e").unwrap().status, i32::from(Status::Created));
        rig.delete("c1", "e").unwrap();
    }
    for (stdout, stdin, class, words) in STREAMS {
        let request = exec_request("io", SLEEPS);
        let request = wire::ExecProcessRequest { stdout: stdout.into(), stdin: stdin.into(), ..request };
        client.call::<()>("Exec", &request).unwrap();
        refused(&mut client, "Start", &start("io"), class, words);
        rig.delete("c1", "io").unwrap();
    }
    refused(&mut client, "Start", &start("none"), Class::NotFound, "process does not exist none");
    refused(&mut client, "Kill", &kill("none", 9), Class::NotFound, "process does not exist none");
    assert_eq!(files(), before);
    rig.end("c1");
}

#[test]
fn odd_signals_sizes_and_limits_are_refused_and_an_exec_stands_still_with_its_container() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let pid = rig.run("c1", &["sleep", "1000"]);
    let mut client = rig.client();
    for signal in [65, 1000, u32::MAX] {
        refused(&mut client, "Kill", &kill("", signal), Class::Unknown, "unknown error after kill");
    }
    client.call::<()>("Kill", &kill("", 0)).unwrap();
    refused(&mut client, "Start", &start(""), Class::FailedPrecondition, "cannot start a running process");
    let resize = |width| wire::ResizePtyRequest { id: "c1".into(), width, height: 1, ..Default::default() };
    client.call::<()>("ResizePty", &resize(80)).unwrap();
    client.call::<()>("ResizePty", &resize(u32::MAX)).unwrap();
    for limits in ["", "{"] {
        let value = limits.as_bytes().to_vec();
        let resources = Some(api::ProtoAny { type_url: "t".into(), value });
        let request = wire::UpdateTaskRequest { id: "c1".into(), resources, ..Default::default() };
        refused(&mut client, "Update", &request, Class::InvalidArgument, "invalid JSON");
    }
    let none = wire::UpdateTaskRequest { id: "c1".into(), ..Default::default() };
    refused(&mut client, "Update", &none, Class::InvalidArgument, "invalid JSON");
    let ended = rig.exec("c1", "ended", &["true"]).map(|_| rig.wait("c1", "ended")).unwrap();
    assert_eq!(ended, 0);
    rig.exec("c1", "e", &["sleep", "1000"]).unwrap();
    client.call::<()>("Pause", &wire::PauseRequest { id: "c1".into() }).unwrap();
    let status = |exec: &str| rig.state("c1", exec).unwrap().status;
    assert_eq!(
        ["", "e", "ended"].map(status),
        [Status::Paused, Status::Paused, Status::Stopped].map(i32::from)
    );
    refused(
        &mut client,
        "Pause",
        &wire::PauseRequest { id: "c1".into() },
        Class::Unknown,
        "cannot pause a paused",
    );
    let delete = wire::DeleteRequest { id: "c1".into(), ..Default::default() };
    refused(&mut client, "Delete", &delete, Class::FailedPrecondition, "cannot delete a paused process");
    client.call::<()>("Resume", &wire::ResumeRequest { id: "c1".into() }).unwrap();
    assert_eq!(status("e"), i32::from(Status::Running));
    eventually("it runs", || !support::is_gone(pid));
    rig.end("c1");
}
