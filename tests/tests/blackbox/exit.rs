//! How a container ends: its exit code reaches the caller, signals reach it, `--rm` leaves nothing.

use std::io::Read;
use std::process::Stdio;

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, Ledger, eventually};
use rustix::process::Signal;

#[test]
fn the_callers_exit_code_is_the_containers() {
    let daemon = Daemon::shared();
    let image = daemon.image();
    for code in [0, 1, 42, 127, 255] {
        let id = daemon.id("exit");
        let done = daemon.ctr(&["run", "--rm", image, &id, "sh", "-c", &format!("exit {code}")]).run();
        assert_eq!(done.code, code, "{done}");
    }
}

#[test]
fn a_process_that_a_signal_ended_counts_from_128() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("signalled"));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "100"]).ok();
    let killed = daemon.task_pid(&id);
    containerd_tests::proc::kill(killed);
    daemon.await_status(&id, "STOPPED");
    assert_eq!(daemon.api().exit_status(&id), Some(137));
    assert_eq!(daemon.api().delete(&id), Ok(137));
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn signals_to_the_client_reach_the_container() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("forward"));
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let client = daemon.ctr(&["run", "--rm", image, &id, "sh", "-c", script]).start();
    // The shell says so once its trap is set; a signal before that is without effect on pid 1.
    client.await_output("ready");
    // Upstream's client begins to forward a moment after it started the task; nothing outside shows it.
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.signal(Signal::TERM);
    let done = client.finish();
    assert_eq!((done.code, done.stdout.contains("caught")), (7, true), "{done}");
}

#[test]
fn a_detached_container_outlives_the_client_and_keeps_its_exit_code() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("detached"));
    daemon.ctr(&["run", "-d", image, &id, "sh", "-c", "sleep 0.3; exit 5"]).ok();
    daemon.await_status(&id, "STOPPED");
    assert_eq!(daemon.api().delete(&id), Ok(5));
    assert!(daemon.task(&id).is_none());
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn an_image_that_is_not_there_is_an_error_that_says_so() {
    let daemon = Daemon::shared();
    let id = daemon.id("noimage");
    let done = daemon.ctr(&["run", "--rm", "docker.io/library/absent:1", &id, "true"]).fails();
    done.says("docker.io/library/absent:1");
    done.says("not found");
}

#[test]
fn a_missing_program_is_named_and_leaves_nothing() {
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("noprogram"));
    let before = Ledger::take(&daemon);
    let done = daemon.ctr(&["run", "--rm", image, &id, "no-such-program"]).fails();
    // runc and crun put it differently.
    done.says("no-such-program");
    done.says("not found in $PATH");
    Ledger::check(&before, &daemon);
}

#[test]
fn a_program_that_may_not_be_executed_is_an_error_and_leaves_nothing() {
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("noexec"));
    let before = Ledger::take(&daemon);
    let done = daemon.ctr(&["run", "--rm", image, &id, "/etc/passwd"]).fails();
    assert!(
        ["permission denied", "not executable"].iter().any(|words| done.stderr.contains(words)),
        "{done}"
    );
    Ledger::check(&before, &daemon);
}

#[test]
fn a_bad_mount_is_an_error_and_leaves_nothing() {
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("badmount"));
    let before = Ledger::take(&daemon);
    let mount = "type=bind,src=/does/not/exist,dst=/mnt,options=rbind:ro";
    daemon.ctr(&["run", "--rm", "--mount", mount, image, &id, "true"]).fails().says("/does/not/exist");
    Ledger::check(&before, &daemon);
}

#[test]
fn a_spec_that_is_no_json_is_an_error_and_leaves_nothing() {
    let daemon = Daemon::start();
    daemon.image();
    let spec = daemon.archive("spec.json", b"{\"ociVersion\": ");
    let before = Ledger::take(&daemon);
    daemon.ctr(&["run", "--rm", "--config", &spec, &daemon.id("badspec")]).fails();
    Ledger::check(&before, &daemon);
}

#[test]
fn runs_one_after_another_and_side_by_side_leave_nothing() {
    runs_leave_nothing(50, 20, 10);
}

#[test]
#[ignore = "takes minutes: cargo xtask soak leaks"]
fn a_thousand_runs_leave_nothing() {
    runs_leave_nothing(1000, 200, 20);
}

/// Runs this many containers one after another, then this many side by side, `width` at a time.
#[track_caller]
fn runs_leave_nothing(sequential: usize, parallel: usize, width: usize) {
    let daemon = Daemon::start();
    let image = daemon.image();
    let before = Ledger::take(&daemon);
    for _ in 0..sequential {
        daemon.ctr(&["run", "--rm", image, &daemon.id("seq"), "true"]).ok();
    }
    for _ in 0..parallel / width {
        let clients: Vec<_> = (0..width)
            .map(|_| {
                daemon.ctr(&["run", "--rm", image, &daemon.id("par"), "sh", "-c", "echo x; exit 3"]).start()
            })
            .collect();
        for client in clients {
            let done = client.finish();
            assert_eq!((done.code, done.stdout.as_str()), (3, "x\n"), "{done}");
        }
    }
    Ledger::check(&before, &daemon);
}

#[test]
fn a_client_that_is_killed_does_not_end_its_container() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("orphan"));
    let client = daemon.ctr(&["run", image, &id, "sleep", "100"]).start();
    daemon.await_status(&id, "RUNNING");
    client.signal(Signal::KILL);
    assert_eq!(client.finish().code, 137);
    assert_eq!(daemon.task(&id).map(|(_, status)| status).as_deref(), Some("RUNNING"));
    daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", &id]).ok();
    daemon.await_status(&id, "STOPPED");
    daemon.ctr(&["tasks", "delete", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn a_running_container_cannot_be_deleted() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("busy"));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "100"]).ok();
    daemon.ctr(&["tasks", "delete", &id]).fails();
    daemon.ctr(&["containers", "delete", &id]).fails();
    assert_eq!(daemon.task(&id).map(|(_, status)| status).as_deref(), Some("RUNNING"));
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    eventually("the task is gone", || daemon.task(&id).is_none());
    daemon.ctr(&["containers", "delete", &id]).ok();
}

/// The code of a client of which nobody reads the output any more after its first bytes.
#[track_caller]
fn unread(daemon: &Daemon, arguments: &[&str]) -> Option<i32> {
    let mut command = daemon.client(daemon.ctr_binary(), arguments);
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut [0; 5]).unwrap();
    drop(output);
    let mut ended = None;
    eventually("the client ends", || {
        ended = client.try_wait().unwrap();
        ended.is_some()
    });
    ended.and_then(|status| status.code())
}

#[test]
fn a_process_whose_output_nobody_reads_ends() {
    if beyond_upstream("a broken pipe ends run and exec, and leaves nothing") {
        return;
    }
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("unread"));
    let talks = "while :; do echo line; done";
    assert_eq!(unread(&daemon, &["run", "--rm", image, &id, "sh", "-c", talks]), Some(141));
    assert!(!daemon.ctr(&["containers", "list", "-q"]).ok().lines().any(|line| line == id));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let exec = daemon.id("exec");
    assert_eq!(unread(&daemon, &["tasks", "exec", "--exec-id", &exec, &id, "sh", "-c", talks]), Some(141));
    assert!(!daemon.ctr(&["tasks", "ps", &id]).ok().contains(&exec));
    daemon.ctr(&["tasks", "delete", "--force", &id]).ok();
    daemon.ctr(&["containers", "delete", &id]).ok();
}
