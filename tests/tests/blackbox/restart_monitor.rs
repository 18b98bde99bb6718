//! Containers whose labels say what their tasks should be: they are started again, or ended, within an interval.

use std::time::Duration;

use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::{Daemon, eventually, proc};

const STATUS: &str = "containerd.io/restart.status";
const SLEEP: &[&str] = &["sleep", "100000"];

fn daemon() -> Daemon {
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite()).with_restart_interval("1s");
    daemon.launch();
    daemon
}

/// Runs a container with restart labels.
fn run(daemon: &Daemon, labels: &[&str], command: &[&str]) -> String {
    let id = daemon.id("watched");
    let labels: Vec<String> = labels.iter().map(|label| format!("containerd.io/restart.{label}")).collect();
    let mut words = vec!["run", "-d", "--null-io"];
    labels.iter().for_each(|label| words.extend(["--label", label]));
    words.extend([daemon.image(), &id]);
    words.extend(command);
    daemon.ctr(&words).ok();
    id
}

fn label(daemon: &Daemon, id: &str, label: &str) -> String {
    let info = daemon.ctr(&["containers", "info", id]).ok();
    let line = info.lines().find(|line| line.contains(&format!("containerd.io/restart.{label}")));
    line.and_then(|line| line.split('"').nth(3)).unwrap_or_default().to_owned()
}

fn remove(daemon: &Daemon, id: &str) {
    daemon.ctr(&["containers", "label", id, &format!("{STATUS}=")]).ok();
    daemon.ctr(&["tasks", "delete", "--force", id]).run();
    daemon.ctr(&["containers", "delete", id]).ok();
}

#[test]
fn a_process_that_is_to_run_is_started_again_and_counted() {
    let daemon = daemon();
    let id = run(&daemon, &["status=running"], SLEEP);
    let other = run(&daemon, &[], SLEEP);
    let pid = daemon.task_pid(&id);
    proc::kill(pid);
    proc::kill(daemon.task_pid(&other));
    let runs_anew = || daemon.task(&id).is_some_and(|(new, status)| status == "RUNNING" && new != pid);
    eventually("it runs again", runs_anew);
    daemon.await_status(&other, "STOPPED");
    if !beyond_upstream("1.6 counts nothing") {
        assert_eq!(label(&daemon, &id, "count"), "1");
        let pid = daemon.task_pid(&id);
        proc::kill(pid);
        eventually("it runs a third time", || {
            daemon.task(&id).is_some_and(|(new, status)| status == "RUNNING" && new != pid)
        });
        assert_eq!(label(&daemon, &id, "count"), "2");
    }
    remove(&daemon, &id);
    remove(&daemon, &other);
}

#[test]
fn one_that_ended_without_a_daemon_is_started_by_the_next() {
    let daemon = daemon();
    let id = run(&daemon, &["status=running"], SLEEP);
    let pid = daemon.task_pid(&id);
    daemon.kill();
    proc::kill(pid);
    eventually("the process ends without a daemon", || !proc::alive(pid));
    daemon.launch();
    eventually("it runs again", || {
        daemon.task(&id).is_some_and(|(new, status)| status == "RUNNING" && new != pid)
    });
    remove(&daemon, &id);
}

#[test]
fn one_that_is_to_be_stopped_is_ended_and_taken_away() {
    let daemon = daemon();
    let id = run(&daemon, &[], SLEEP);
    daemon.ctr(&["containers", "label", &id, &format!("{STATUS}=stopped")]).ok();
    eventually("its task is gone", || daemon.task(&id).is_none());
    remove(&daemon, &id);
}

#[test]
fn policies_say_how_often_and_after_what() {
    if beyond_upstream("1.6 has no policies") {
        return;
    }
    let daemon = daemon();
    let fails = run(&daemon, &["status=running", "policy=on-failure:2"], &["sh", "-c", "exit 3"]);
    let succeeds = run(&daemon, &["status=running", "policy=on-failure"], &["true"]);
    let never = run(&daemon, &["status=running", "policy=no"], &["sh", "-c", "exit 3"]);
    let told = ["status=running", "policy=unless-stopped", "explicitly-stopped=true"];
    let stopped = run(&daemon, &told, &["true"]);
    eventually("it is started twice", || label(&daemon, &fails, "count") == "2");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(label(&daemon, &fails, "count"), "2");
    for id in [&fails, &succeeds, &never, &stopped] {
        daemon.await_status(id, "STOPPED");
    }
    for id in [&succeeds, &never, &stopped] {
        assert_eq!(label(&daemon, id, "count"), "", "{id}");
    }
    for id in [fails, succeeds, never, stopped] {
        remove(&daemon, &id);
    }
}

#[test]
fn output_goes_where_the_label_says_after_a_restart() {
    if beyond_upstream("2.x writes only into a directory below its root") {
        return;
    }
    let daemon = daemon();
    let log = daemon.dir().join("output");
    let uri = format!("loguri=file://{}", log.display());
    let id = run(&daemon, &["status=running", &uri], &["sh", "-c", "echo again; exec sleep 100000"]);
    proc::kill(daemon.task_pid(&id));
    eventually("it says so", || std::fs::read_to_string(&log).is_ok_and(|text| text == "again\n"));
    remove(&daemon, &id);
}

#[test]
fn a_container_that_cannot_be_started_leaves_nothing_and_is_tried_again() {
    if beyond_upstream("1.6 leaves a task behind") {
        return;
    }
    let daemon = daemon();
    let id = run(&daemon, &["status=running"], SLEEP);
    daemon.ctr(&["snapshots", "remove", &id]).run();
    proc::kill(daemon.task_pid(&id));
    eventually("it was tried", || daemon.log().contains("restart container failed"));
    eventually("no task is left", || daemon.task(&id).is_none());
    let tries = daemon.log().matches("restart container failed").count();
    eventually("it is tried again", || daemon.log().matches("restart container failed").count() > tries);
    daemon.ctr(&["containers", "delete", &id]).ok();
}
