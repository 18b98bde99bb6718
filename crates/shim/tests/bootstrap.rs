//! `start`, `delete` and the other ways to execute the shim: who calls decides the answer.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use api::containerd::task::v3 as wire;
use api::containerd::types::RuntimeInfo;
use prost::Message;
use support::{Client, Rig, SHIM, can_run, checked, eventually, is_gone};

fn with_input(mut command: Command, input: &[u8]) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn each_daemon_gets_the_answer_that_it_understands_and_all_the_same_shim() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    // containerd 1.6: the address alone, and a file of it.
    let plain = checked(&rig.command("c1", "start").output().unwrap());
    assert_eq!(plain, rig.address);
    assert_eq!(std::fs::read_to_string(rig.path("c1/address")).unwrap(), rig.address);
    // 1.7 to 2.2: JSON; they say that they know version 2.
    let json = checked(&rig.command("c1", "start").env("MAX_SHIM_VERSION", "2").output().unwrap());
    assert_eq!(json, format!(r#"{{"version":2,"address":"{plain}","protocol":"ttrpc"}}"#));
    // 2.3: protobuf, on the parameters with our id.
    let params = BootstrapParams {
        instance_id: "c1".into(),
        namespace: "test".into(),
        containerd_grpc_address: rig.path("d.sock").to_str().unwrap().into(),
        ..Default::default()
    };
    let mut command = rig.command("c1", "start");
    command.env("MAX_SHIM_VERSION", "2");
    let result = BootstrapResult::decode(with_input(command, &params.encode_to_vec()).as_slice()).unwrap();
    assert_eq!((result.version, result.address, result.protocol.as_str()), (3, plain.clone(), "ttrpc"));
    // A second container of the group joins the first one's shim; options in an Any are no parameters.
    rig.bundle("c2", &["true"]);
    let options = api::any::to_wire(api::any::pack(&rig.options())).encode_to_vec();
    assert_eq!(with_input(rig.command("c2", "start"), &options), plain.as_bytes());
    let name = std::fs::read_to_string(format!("/proc/{}/cmdline", rig.pid)).unwrap();
    assert!(name.starts_with("containerd-shim-runc-v2\0-namespace\0test\0-id\0c1\0-address\0"), "{name}");
    rig.shut_down();
}

#[test]
fn the_socket_may_be_elsewhere_and_a_leftover_is_replaced() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let params = BootstrapParams {
        instance_id: "c1".into(),
        containerd_grpc_address: rig.path("d.sock").to_str().unwrap().into(),
        socket_dir: Some(rig.path("sockets").to_str().unwrap().into()),
        ..Default::default()
    };
    let start = || with_input(rig.command("c1", "start"), &params.encode_to_vec());
    let address = BootstrapResult::decode(start().as_slice()).unwrap().address;
    assert!(address.starts_with(&format!("unix://{}/", rig.path("sockets").display())));
    assert_eq!(std::fs::read_link(rig.path("c1/s")).unwrap(), rig.path("sockets"));
    let pid = |address: &str| {
        let connect = wire::ConnectRequest::default();
        Client::connect(address).call::<wire::ConnectResponse>("Connect", &connect).unwrap().shim_pid
    };
    let first = pid(&address);
    Command::new("kill").args(["-9", &first.to_string()]).status().unwrap();
    eventually("its end", || is_gone(first));
    assert!(Path::new(&address["unix://".len()..]).exists());
    let again = BootstrapResult::decode(start().as_slice()).unwrap().address;
    assert_eq!(again, address);
    assert_ne!(pid(&address), first);
    Client::connect(&address).call::<()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
    eventually("the socket's end", || !Path::new(&address["unix://".len()..]).exists());
    rig.shut_down();
}

#[test]
fn delete_removes_what_a_killed_shim_left() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let pid = rig.run("c1", &["sleep", "1000"]);
    Command::new("kill").args(["-9", &rig.pid.to_string()]).status().unwrap();
    eventually("its end", || is_gone(rig.pid));
    assert!(!is_gone(pid), "the container lives on");
    let output = rig.command("c1", "delete").arg("-ignored").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let response = wire::DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    assert!(rig.mounts().is_empty());
    assert!(!Path::new(&rig.address["unix://".len()..]).exists());
    eventually("the container's end", || is_gone(pid));
}

#[test]
fn version_info_and_mistakes_need_no_daemon() {
    let text = checked(&Command::new(SHIM).arg("-v").output().unwrap());
    assert!(text.starts_with("containerd-shim-runc-v2:\n  Version:  v2."), "{text}");
    let output = Command::new(SHIM).arg("-nope").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(SHIM).arg("start").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"io.containerd.runc.v2: shim namespace cannot be empty");
    if can_run() {
        let mut command = Command::new(SHIM);
        command.arg("-info");
        let info = RuntimeInfo::decode(with_input(command, b"").as_slice()).unwrap();
        assert_eq!(info.name, "io.containerd.runc.v2");
        assert!(info.features.unwrap().value.starts_with(b"{"));
    }
}
