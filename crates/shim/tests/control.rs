//! A container as a whole: paused, resumed, limited, measured; and memory that runs out.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::Write;
use std::time::Duration;

use api::cgroups::{v1, v2};
use api::containerd::task::v3 as wire;
use api::containerd::v1::types::Status;
use support::{Rig, V3, can_run, eventually};
use types::{Any, Result};

fn pause(rig: &Rig) -> Result<()> {
    rig.client().call("Pause", &wire::PauseRequest { id: "c1".into() })
}

fn resume(rig: &Rig) -> Result<()> {
    rig.client().call("Resume", &wire::ResumeRequest { id: "c1".into() })
}

fn update(rig: &Rig, resources: &str) -> Result<()> {
    let any = Any::new("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources);
    let resources = Some(api::any::to_wire(any));
    rig.client().call("Update", &wire::UpdateTaskRequest { id: "c1".into(), resources, ..Default::default() })
}

fn status(rig: &Rig) -> i32 {
    rig.state("c1", "").unwrap().status
}

/// What the container uses, whichever version: processes now and at most, and memory at most.
fn figures(rig: &Rig) -> (u64, u64, u64) {
    let request = wire::StatsRequest { id: "c1".into() };
    let stats = rig.client().call::<wire::StatsResponse>("Stats", &request).unwrap().stats.unwrap();
    let any = api::any::from_wire(stats);
    if any.is("io.containerd.cgroups.v1.Metrics") {
        let metrics: v1::Metrics = api::any::unpack(&any).unwrap();
        assert!(metrics.cpu.unwrap().usage.unwrap().total > 0);
        let (pids, memory) = (metrics.pids.unwrap(), metrics.memory.unwrap());
        (pids.current, pids.limit, memory.usage.unwrap().limit)
    } else {
        let metrics: v2::Metrics = api::any::unpack(&any).unwrap();
        assert!(metrics.cpu.unwrap().usage_usec > 0);
        let (pids, memory) = (metrics.pids.unwrap(), metrics.memory.unwrap());
        (pids.current, pids.limit, memory.usage_limit)
    }
}

fn end(rig: &Rig, status: u32) {
    assert_eq!(rig.delete("c1", "").unwrap().exit_status, status);
    rig.wait_for_topic("/tasks/delete", 1);
    rig.shut_down();
}

#[test]
fn a_container_is_paused_and_goes_on() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["sleep", "1000"]);
    rig.client().call::<wire::CreateTaskResponse>("Create", &rig.create_request("c1")).unwrap();
    assert_eq!(pause(&rig).unwrap_err().to_string(), "cannot pause task in created state");
    let start = wire::StartRequest { id: "c1".into(), exec_id: String::new() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    assert_eq!(resume(&rig).unwrap_err().to_string(), "cannot resume a running process");
    pause(&rig).unwrap();
    assert_eq!(status(&rig), i32::from(Status::Paused));
    assert_eq!(pause(&rig).unwrap_err().to_string(), "cannot pause a paused container");
    assert_eq!(rig.exec("c1", "e", &["true"]).unwrap_err().to_string(), "cannot exec in a paused state");
    assert_eq!(rig.delete("c1", "").unwrap_err().to_string(), "cannot delete a paused process");
    resume(&rig).unwrap();
    assert_eq!(status(&rig), i32::from(Status::Running));
    rig.exec("c1", "e", &["true"]).unwrap();
    assert_eq!(rig.wait("c1", "e"), 0);
    // One that is killed while it is paused ends, and is deleted.
    pause(&rig).unwrap();
    rig.kill("c1", "", 9).unwrap();
    assert_eq!(rig.wait("c1", ""), 137);
    assert_eq!(resume(&rig).unwrap_err().to_string(), "cannot resume a stopped container");
    end(&rig, 137);
    let freezing: Vec<_> =
        rig.topics().into_iter().filter(|t| t.contains("pause") || t.contains("resume")).collect();
    assert_eq!(freezing, ["/tasks/paused", "/tasks/resumed", "/tasks/paused"]);
}

#[test]
fn limits_are_changed_and_figures_show_them() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    update(&rig, r#"{"pids":{"limit":77},"memory":{"limit":67108864}}"#).unwrap();
    // The runtime's own process is counted until it has become the container's.
    eventually("the limits", || figures(&rig) == (1, 77, 64 << 20));
    assert!(update(&rig, "{\"pids\":").is_err());
    assert!(update(&rig, "").is_err());
    let refused = update(&rig, r#"{"memory":{"limit":-7}}"#);
    if let Err(error) = refused {
        assert!(
            error.to_string().starts_with("runc did not terminate successfully: exit status 1: "),
            "{error}"
        );
    }
    rig.kill("c1", "", 9).unwrap();
    rig.wait("c1", "");
    assert_eq!(update(&rig, "{}").unwrap_err().to_string(), "cannot update a stopped container");
    end(&rig, 137);
}

/// More memory than a container of 16 MiB may have.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=64M count=1";

#[test]
fn memory_that_ran_out_is_told_before_the_exits_that_it_led_to() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let go = rig.path("image/tmp/go");
    sys::fifo::make(&go, 0o600).unwrap();
    let pid = rig.run("c1", &["sh", "-c", &format!("read line < /tmp/go; exec {GREEDY}")]);
    // From here on init sleeps. If it wanted memory while there is none, the kernel might end it as well.
    let mut go = None;
    eventually("init reads", || {
        go = sys::fifo::open_writer_if_read(&rig.path("image/tmp/go")).unwrap();
        go.is_some()
    });
    eventually("init waits", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S ")
    });
    update(&rig, r#"{"memory":{"limit":16777216,"swap":16777216}}"#).unwrap();
    rig.exec("c1", "e", &["sh", "-c", &format!("exec {GREEDY}")]).unwrap();
    assert_eq!(rig.wait("c1", "e"), 137);
    std::fs::File::from(go.unwrap()).write_all(b"\n").unwrap();
    assert_eq!(rig.wait("c1", ""), 137);
    end(&rig, 137);
    let mut told: Vec<_> =
        rig.topics().into_iter().filter(|t| t.ends_with("oom") || t.ends_with("exit")).collect();
    // The kernel gives notice again as long as whom it has killed is not gone.
    told.dedup_by(|a, b| a == b && a.ends_with("oom"));
    assert_eq!(told, ["/tasks/oom", "/tasks/exit", "/tasks/oom", "/tasks/exit"]);
}

#[test]
fn operations_that_come_at_once_are_done_in_order() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let mut client = rig.client();
    let pause = wire::PauseRequest { id: "c1".into() };
    let resume = wire::ResumeRequest { id: "c1".into() };
    for _ in 0..5 {
        client.send(V3, "Pause", &pause, Duration::ZERO);
        client.send(V3, "Resume", &resume, Duration::ZERO);
    }
    for _ in 0..10 {
        client.receive().1.unwrap();
    }
    assert_eq!(status(&rig), i32::from(Status::Running));
    rig.kill("c1", "", 9).unwrap();
    eventually("the end", || status(&rig) == i32::from(Status::Stopped));
    end(&rig, 137);
}
