//! Containers that do nothing cost nothing: memory, threads, system calls.

use std::process::Command;
use std::time::Duration;

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, Invocation, proc};

/// Starts idle containers and waits until their shims have nothing left to do.
fn sleepers(daemon: &Daemon, count: usize) -> Vec<i32> {
    for _ in 0..count {
        daemon.ctr(&["run", "-d", "--null-io", daemon.image(), &daemon.id("idle"), "sleep", "1000"]).ok();
    }
    let shims: Vec<i32> = proc::shims(daemon.namespace()).iter().map(|shim| shim.pid).collect();
    assert!(!shims.is_empty());
    shims
}

#[test]
fn an_idle_shim_has_one_thread_and_little_memory() {
    if beyond_upstream("a shim is small") {
        return;
    }
    let daemon = Daemon::start();
    let shims = sleepers(&daemon, 10);
    // When they have been asked nothing for a second they give back what they do not need.
    std::thread::sleep(Duration::from_secs(3));
    for shim in shims {
        assert_eq!(proc::threads(shim), 1);
        let pss = proc::pss(shim);
        assert!(pss <= 600, "an idle shim takes {pss} kB");
    }
}

#[test]
fn an_idle_daemon_takes_little_memory() {
    if beyond_upstream("a daemon is small") {
        return;
    }
    let daemon = Daemon::start();
    sleepers(&daemon, 2);
    // Two seconds after the last client it gives back what it does not need.
    std::thread::sleep(Duration::from_secs(4));
    let pss = proc::pss(daemon.pid().unwrap());
    assert!(pss <= 6_000, "an idle daemon takes {pss} kB");
}

#[test]
fn idle_processes_make_no_system_call() {
    if beyond_upstream("idle processes sleep") {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let daemon = Daemon::start();
    let mut pids = sleepers(&daemon, 3);
    pids.push(daemon.pid().unwrap());
    // Pools give back their threads after ten seconds without work.
    std::thread::sleep(Duration::from_secs(12));
    let trace = daemon.dir().join("trace");
    let mut strace = Command::new("timeout");
    strace.args(["--signal=INT", "10", "strace", "-f", "-q", "-o"]).arg(&trace);
    for pid in pids {
        strace.args(["-p", &pid.to_string()]);
    }
    Invocation::new(strace).run();
    // A call that was in progress all the time is shown without a result, or as resumed by the tracer itself.
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<&str> =
        trace.lines().filter(|line| line.contains(" = ") && !line.contains("restart_syscall")).collect();
    assert!(calls.is_empty(), "{calls:#?}");
}
