//! A container as a whole: it is paused and goes on, has figures and limits, runs out of memory, becomes an image and is
//! restored.

use api::containerd::services::tasks::v1::UpdateTaskRequest;
use containerd_tests::binaries::{crun, shim_is_ours};
use containerd_tests::{Daemon, Ledger, eventually};
use grpc::tasks::tasks_client::TasksClient;
use serde_json::Value;

/// Writes a number that grows, ten times a second.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i >/tmp/count; sleep 0.1; done";

/// What the counter of a container is at.
fn count(daemon: &Daemon, id: &str) -> u32 {
    let bundle = daemon.state().join("io.containerd.runtime.v2.task").join(daemon.namespace()).join(id);
    let text = std::fs::read_to_string(bundle.join("rootfs/tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn end(daemon: &Daemon, id: &str) {
    daemon.ctr(&["tasks", "delete", "--force", id]).run();
    daemon.ctr(&["containers", "delete", id]).ok();
}

#[test]
fn a_paused_container_stands_still_and_then_goes_on() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("paused"));
    daemon.ctr(&["run", "-d", "--null-io", image, &id, "sh", "-c", COUNTER]).ok();
    eventually("it counts", || count(&daemon, &id) > 1);
    daemon.ctr(&["tasks", "pause", &id]).ok();
    daemon.await_status(&id, "PAUSED");
    let before = count(&daemon, &id);
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(count(&daemon, &id), before);
    daemon.ctr(&["tasks", "pause", &id]).fails().says("cannot pause a paused container");
    daemon
        .ctr(&["tasks", "exec", "--exec-id", "e", &id, "true"])
        .fails()
        .says("cannot exec in a paused state");
    daemon.ctr(&["tasks", "resume", &id]).ok();
    daemon.await_status(&id, "RUNNING");
    eventually("it counts on", || count(&daemon, &id) > before);
    daemon.ctr(&["tasks", "resume", &id]).fails().says("cannot resume a running process");
    end(&daemon, &id);
}

#[test]
fn a_paused_container_is_ended_by_force_and_leaves_nothing() {
    if crun().is_some() && !shim_is_ours() {
        eprintln!("skipped: crun does not thaw what it kills, and upstream's shim does not either");
        return;
    }
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("frozen"));
    let before = Ledger::take(&daemon);
    daemon.ctr(&["run", "-d", "--null-io", image, &id, "sleep", "1000"]).ok();
    daemon.ctr(&["tasks", "pause", &id]).ok();
    daemon.ctr(&["tasks", "kill", "--signal", "KILL", &id]).ok();
    daemon.await_status(&id, "STOPPED");
    end(&daemon, &id);
    Ledger::check(&before, &daemon);
}

/// One number of a container's figures, by its place on cgroup v1 and v2.
fn figure(daemon: &Daemon, id: &str, v1: &str, v2: &str) -> u64 {
    let text = daemon.ctr(&["tasks", "metrics", "--format", "json", id]).ok();
    let figures: Value = serde_json::from_str(&text).unwrap();
    let number = figures.pointer(v1).or_else(|| figures.pointer(v2));
    number.and_then(Value::as_u64).unwrap_or(0)
}

fn memory_limit(daemon: &Daemon, id: &str) -> u64 {
    figure(daemon, id, "/memory/usage/limit", "/memory/usage_limit")
}

#[test]
fn figures_and_limits_are_those_of_the_cgroup() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("figures"));
    daemon.ctr(&["run", "-d", "--null-io", "--memory-limit", "67108864", image, &id, "sleep", "1000"]).ok();
    assert_eq!(memory_limit(&daemon, &id), 64 << 20);
    eventually("one process", || figure(&daemon, &id, "/pids/current", "/pids/current") == 1);
    assert!(figure(&daemon, &id, "/cpu/usage/total", "/cpu/usage_usec") > 0);
    let api = daemon.api();
    let update = |resources: &str| {
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let resources = api::ProtoAny { type_url: kind.into(), value: resources.into() };
        let request =
            UpdateTaskRequest { container_id: id.clone(), resources: Some(resources), ..Default::default() };
        api.call(TasksClient::new(api.channel()).update(api.request(request)))
    };
    update(r#"{"memory":{"limit":33554432},"pids":{"limit":99}}"#).unwrap();
    assert_eq!(memory_limit(&daemon, &id), 32 << 20);
    assert_eq!(figure(&daemon, &id, "/pids/limit", "/pids/limit"), 99);
    assert!(update("{").is_err());
    end(&daemon, &id);
}

#[test]
fn memory_that_ran_out_is_told_before_the_exit() {
    let daemon = Daemon::start();
    let image = daemon.image();
    let events = daemon.ctr(&["events"]).start();
    eventually("the listener", || {
        daemon.ctr(&["namespaces", "label", daemon.namespace(), "a=b"]).run();
        events.output().contains("/namespaces/")
    });
    let greedy = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    for round in 0..3 {
        let id = daemon.id(&format!("greedy{round}"));
        let limit = ["--memory-limit", "16777216"];
        let done = daemon
            .ctr(&[&["run", "--rm", "--null-io"], &limit[..], &[image, &id, "sh", "-c", greedy]].concat())
            .run();
        assert_eq!(done.code, 137, "{done}");
        let told = |topic: &str| {
            let output = events.output();
            output.lines().position(|line| line.contains(topic) && line.contains(&id))
        };
        // Containerd's shim may forget the exit of what is deleted at once: its `send` gives up when it is told to go.
        if !shim_is_ours() {
            eventually("the end is told", || told("/tasks/exit").or(told("/tasks/delete")).is_some());
            continue;
        }
        eventually("the exit is told", || told("/tasks/exit").is_some());
        let (oom, exit) = (told("/tasks/oom"), told("/tasks/exit"));
        assert!(oom.is_some() && oom < exit, "{}", events.output());
    }
}

/// Whether CRIU is there, and with it everything that a checkpoint needs.
fn can_checkpoint() -> bool {
    if std::env::var_os("CRIU_DIR").is_none() {
        eprintln!("skipped: CRIU_DIR does not name a directory with criu");
        return false;
    }
    if crun().is_some() && !shim_is_ours() {
        eprintln!(
            "skipped: upstream's shim makes no directory for CRIU, and gives crun flags that only runc knows"
        );
        return false;
    }
    true
}

#[test]
fn a_container_becomes_an_image_and_goes_on_where_it_was() {
    if !can_checkpoint() {
        return;
    }
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("origin"));
    let before = Ledger::take(&daemon);
    // Whoever has crun names it, and the shim knows then what it can.
    let crun = crun().map(|crun| crun.to_str().unwrap().to_owned());
    let runtime: Vec<&str> = crun.iter().flat_map(|crun| ["--runc-binary", crun]).collect();
    daemon
        .ctr(&[&["run", "-d", "--null-io"], &runtime[..], &[image, &id, "sh", "-c", COUNTER]].concat())
        .ok();
    eventually("it counts", || count(&daemon, &id) > 5);
    let name = "checkpoint.test/counter:1";
    daemon.ctr(&["containers", "checkpoint", "--rw", "--image", "--task", &id, name]).ok();
    let written = count(&daemon, &id);
    eventually("it counts on", || count(&daemon, &id) > written);
    end(&daemon, &id);
    let restored = daemon.id("restored");
    daemon.ctr(&["containers", "restore", "--rw", "--live", &restored, name]).ok();
    eventually("it goes on", || count(&daemon, &restored) > written);
    assert!(count(&daemon, &restored) < written + 50);
    end(&daemon, &restored);
    daemon.ctr(&["images", "delete", "--sync", name]).ok();
    Ledger::check(&before, &daemon);
}

#[test]
fn a_task_is_written_to_a_directory_and_ends() {
    if !can_checkpoint() {
        return;
    }
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("written"));
    daemon.ctr(&["run", "-d", "--null-io", image, &id, "sh", "-c", COUNTER]).ok();
    eventually("it counts", || count(&daemon, &id) > 1);
    let (files, work) = (daemon.dir().join("criu-image"), daemon.dir().join("criu-work"));
    let paths = ["--image-path", files.to_str().unwrap(), "--work-path", work.to_str().unwrap()];
    daemon.ctr(&[&["tasks", "checkpoint", "--exit"], &paths[..], &[id.as_str()]].concat()).ok();
    assert!(files.join("inventory.img").exists() && work.join("dump.log").exists());
    daemon.await_status(&id, "STOPPED");
    end(&daemon, &id);
}

#[test]
fn a_checkpoint_that_fails_says_where_its_log_is_and_the_task_goes_on() {
    if !can_checkpoint() {
        return;
    }
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("unwritable"));
    daemon.ctr(&["run", "-d", "--null-io", image, &id, "sh", "-c", COUNTER]).ok();
    eventually("it counts", || count(&daemon, &id) > 1);
    let done = daemon.ctr(&["tasks", "checkpoint", "--image-path", "/proc/no/such/place", &id]).fails();
    done.says("did not terminate successfully");
    let now = count(&daemon, &id);
    eventually("it counts on", || count(&daemon, &id) > now);
    end(&daemon, &id);
}
