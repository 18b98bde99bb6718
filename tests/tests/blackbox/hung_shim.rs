//! A shim that does not answer (stopped here, as one on a hung disk would be) delays nobody: not the daemon's start, not a
//! list, not another container; and it is not given up.

use std::time::{Duration, Instant};

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, eventually, proc};
use rustix::process::{Pid, Signal, kill_process};

/// How many shims hang; another one does not.
const HUNG: usize = 5;
/// How long the daemon waits for a shim after a start, in the background.
const LOAD: Duration = Duration::from_secs(5);

/// Shims that are stopped until this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn shims_of(daemon: &Daemon, ids: &[String]) -> Self {
        let pid = |id: &String| {
            let shim = proc::shim(daemon.namespace(), id).unwrap();
            Pid::from_raw(shim.pid).unwrap()
        };
        let stopped = Self(ids.iter().map(pid).collect());
        stopped.send(Signal::STOP);
        stopped
    }

    fn send(&self, signal: Signal) {
        for pid in &self.0 {
            // One that has ended is not stopped any more.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.send(Signal::CONT);
    }
}

fn running(daemon: &Daemon, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|_| daemon.id("sleeps")).collect();
    for id in &ids {
        daemon.ctr(&["run", "-d", daemon.image(), id, "sleep", "1000"]).ok();
    }
    ids
}

fn status(daemon: &Daemon, id: &str) -> Option<String> {
    daemon.task(id).map(|(_, status)| status)
}

/// Everything that others want goes on: a list, a run, an exec.
fn others_go_on(daemon: &Daemon, hung: &[String], well: &str) {
    let begun = Instant::now();
    let list = daemon.ctr(&["tasks", "list"]).ok();
    // Each shim has two seconds; one after the other they would take all of these.
    let one_by_one = Duration::from_secs(2 * u64::try_from(HUNG).unwrap());
    assert!(begun.elapsed() < one_by_one, "the list took {:?}", begun.elapsed());
    let status = |id: &str| {
        let line = list.lines().find(|line| line.starts_with(id)).unwrap();
        line.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert!(hung.iter().all(|id| status(id) == "UNKNOWN"), "{list}");
    assert_eq!(status(well), "RUNNING");
    let out = daemon.ctr(&["tasks", "exec", "--exec-id", &daemon.id("e"), well, "echo", "well"]).ok();
    assert_eq!(out, "well\n");
    let begun = Instant::now();
    let id = daemon.id("other");
    assert_eq!(daemon.ctr(&["run", "--rm", daemon.image(), &id, "echo", "other"]).ok(), "other\n");
    assert!(begun.elapsed() < LOAD, "a run took {:?}", begun.elapsed());
}

#[test]
fn hung_shims_delay_nobody_and_come_back() {
    if beyond_upstream("hung shims are asked side by side") {
        return;
    }
    let daemon = Daemon::start();
    let ids = running(&daemon, HUNG + 1);
    let pids: Vec<i32> = ids.iter().map(|id| daemon.task_pid(id)).collect();
    let stopped = Stopped::shims_of(&daemon, &ids[..HUNG]);
    others_go_on(&daemon, &ids[..HUNG], &ids[HUNG]);
    drop(stopped);
    for (id, pid) in ids.iter().zip(pids) {
        assert_eq!(daemon.task(id), Some((pid, "RUNNING".to_owned())));
    }
}

#[test]
fn a_daemon_serves_at_once_though_shims_hang_and_finds_them_later() {
    if beyond_upstream("a daemon does not wait for hung shims when it starts") {
        return;
    }
    let daemon = Daemon::start();
    let ids = running(&daemon, HUNG + 1);
    let pids: Vec<i32> = ids.iter().map(|id| daemon.task_pid(id)).collect();
    let stopped = Stopped::shims_of(&daemon, &ids[..HUNG]);
    daemon.kill();
    let begun = Instant::now();
    daemon.launch();
    assert!(begun.elapsed() < LOAD, "it served after {:?}", begun.elapsed());
    others_go_on(&daemon, &ids[..HUNG], &ids[HUNG]);
    // One dies while it hangs: its container with it, the others come back.
    proc::kill(pids[0]);
    proc::kill(stopped.0[0].as_raw_nonzero().get());
    drop(stopped);
    eventually("the dead one's task is gone", || status(&daemon, &ids[0]).is_none());
    for (id, pid) in ids.iter().zip(pids).skip(1) {
        eventually("the shim is found", || status(&daemon, id).as_deref() == Some("RUNNING"));
        assert_eq!(daemon.task_pid(id), pid);
    }
}
