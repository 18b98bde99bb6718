//! The shim's sandbox API: a sandbox is made, started, watched, stopped and goes, and containers run beside it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, Instant};

use api::containerd::runtime::sandbox::v1 as sandbox;
use prost::Message;
use support::{Rig, can_run, eventually, is_gone};
use types::{Class, Result};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

fn call<R: Message + Default>(rig: &Rig, method: &str, request: &impl Message) -> Result<R> {
    rig.client().call_of(SERVICE, method, request)
}

fn create(rig: &Rig, script: &str) {
    rig.bundle("c1", &["sh", "-c", script]);
    let task = rig.create_request("c1");
    let request = sandbox::CreateSandboxRequest {
        sandbox_id: "c1".into(),
        bundle_path: task.bundle,
        rootfs: task.rootfs,
        options: task.options,
        netns_path: "/does/not/matter".into(),
        annotations: [("a".into(), "b".into())].into(),
    };
    call::<sandbox::CreateSandboxResponse>(rig, "CreateSandbox", &request).unwrap();
    assert_eq!(call::<()>(rig, "CreateSandbox", &request).unwrap_err().class(), Class::AlreadyExists);
}

fn start(rig: &Rig) -> sandbox::StartSandboxResponse {
    call(rig, "StartSandbox", &sandbox::StartSandboxRequest { sandbox_id: "c1".into() }).unwrap()
}

fn status(rig: &Rig) -> sandbox::SandboxStatusResponse {
    let request = sandbox::SandboxStatusRequest { sandbox_id: "c1".into(), verbose: true };
    call(rig, "SandboxStatus", &request).unwrap()
}

fn stop(rig: &Rig, timeout_secs: u32) -> Result<sandbox::StopSandboxResponse> {
    call(rig, "StopSandbox", &sandbox::StopSandboxRequest { sandbox_id: "c1".into(), timeout_secs })
}

fn wait(rig: &Rig) -> sandbox::WaitSandboxResponse {
    call(rig, "WaitSandbox", &sandbox::WaitSandboxRequest { sandbox_id: "c1".into() }).unwrap()
}

fn shut_down(rig: &Rig) {
    let request = sandbox::ShutdownSandboxRequest { sandbox_id: "c1".into() };
    call::<sandbox::ShutdownSandboxResponse>(rig, "ShutdownSandbox", &request).unwrap();
}

#[test]
fn a_sandbox_has_a_life_and_the_shim_goes_with_it() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let ping = sandbox::PingRequest { sandbox_id: "c1".into() };
    assert_eq!(call::<()>(&rig, "PingSandbox", &ping).unwrap_err().class(), Class::NotFound);
    create(&rig, "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    let started = start(&rig);
    let now = status(&rig);
    assert_eq!((now.state.as_str(), now.pid), ("SANDBOX_READY", started.pid));
    assert!(now.created_at.unwrap().seconds > 1_700_000_000 && started.created_at.is_some());
    call::<sandbox::PingResponse>(&rig, "PingSandbox", &ping).unwrap();
    let platform: sandbox::PlatformResponse =
        call(&rig, "Platform", &sandbox::PlatformRequest { sandbox_id: "c1".into() }).unwrap();
    assert_eq!(platform.platform.unwrap().os, "linux");
    let request = sandbox::SandboxMetricsRequest { sandbox_id: "c1".into() };
    let metrics: sandbox::SandboxMetricsResponse = call(&rig, "SandboxMetrics", &request).unwrap();
    let metric = metrics.metrics.unwrap();
    assert!(metric.id == "c1" && metric.data.unwrap().type_url.contains("cgroups"));
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    stop(&rig, 20).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(wait(&rig).exit_status, 0);
    let now = status(&rig);
    assert_eq!((now.state.as_str(), now.exited_at), ("SANDBOX_NOTREADY", wait(&rig).exited_at));
    stop(&rig, 1).unwrap();
    shut_down(&rig);
    eventually("the shim's end", || is_gone(rig.pid));
    assert!(rig.mounts().is_empty());
}

#[test]
fn a_sandbox_that_does_not_listen_is_killed_and_the_shim_stays_for_its_containers() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    create(&rig, "while :; do sleep 0.05; done");
    start(&rig);
    rig.run("c2", &["sleep", "1000"]);
    stop(&rig, 1).unwrap();
    assert_eq!(wait(&rig).exit_status, 137);
    shut_down(&rig);
    assert_eq!(stop(&rig, 1).unwrap_err().class(), Class::NotFound);
    assert_eq!(rig.state("c2", "").unwrap().status, 2);
    rig.kill("c2", "", 9).unwrap();
    rig.wait("c2", "");
    rig.delete("c2", "").unwrap();
    eventually("the shim's end", || is_gone(rig.pid));
    assert!(rig.mounts().is_empty());
}

#[test]
fn a_sandbox_without_a_specification_is_refused_by_name() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let bundle_path = rig.path("nothing").to_str().unwrap().to_owned();
    let request = sandbox::CreateSandboxRequest { sandbox_id: "x".into(), bundle_path, ..Default::default() };
    assert_eq!(call::<()>(&rig, "CreateSandbox", &request).unwrap_err().class(), Class::Unimplemented);
    let request = sandbox::StartSandboxRequest { sandbox_id: "x".into() };
    assert_eq!(call::<()>(&rig, "StartSandbox", &request).unwrap_err().class(), Class::NotFound);
    rig.shut_down();
}
