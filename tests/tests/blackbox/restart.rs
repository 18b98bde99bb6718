//! The daemon dies; containers go on, and the next daemon knows them all.

use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::{Daemon, eventually, proc};

/// Runs a container that counts into a file of its own root, until it is killed.
fn counting(daemon: &Daemon) -> String {
    let id = daemon.id("counting");
    let script = "n=0; while :; do n=$((n+1)); echo $n >/tmp/count; sleep 0.02; done";
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sh", "-c", script]).ok();
    id
}

fn remove(daemon: &Daemon, id: &str) {
    daemon.ctr(&["tasks", "delete", "--force", id]).run();
    daemon.ctr(&["containers", "delete", id]).ok();
}

/// The counter of a container, read through its root by way of `/proc`.
fn count(pid: i32) -> u64 {
    let file = format!("/proc/{pid}/root/tmp/count");
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn twenty_containers_outlive_a_killed_daemon() {
    let daemon = Daemon::start();
    let ids: Vec<String> = (0..20).map(|_| counting(&daemon)).collect();
    let pids: Vec<i32> = ids.iter().map(|id| daemon.task_pid(id)).collect();
    daemon.kill();
    for pid in &pids {
        let before = count(*pid);
        eventually("the container counts without a daemon", || count(*pid) > before + 2);
    }
    daemon.launch();
    for (id, pid) in ids.iter().zip(&pids) {
        assert_eq!(daemon.task(id), Some((*pid, "RUNNING".to_owned())));
        let out = daemon.ctr(&["tasks", "exec", "--exec-id", "after", id, "cat", "/proc/1/comm"]).ok();
        assert_eq!(out, "sh\n");
    }
    for id in &ids {
        daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).ok();
        assert_eq!(daemon.api().wait(id), Ok(137));
        assert_eq!(daemon.api().delete(id), Ok(137));
        daemon.ctr(&["containers", "delete", id]).ok();
    }
    assert_eq!(daemon.ctr(&["tasks", "list", "-q"]).ok(), "");
}

#[test]
fn an_exit_before_or_during_the_daemons_absence_keeps_its_code() {
    if beyond_upstream("2.x forgets a stopped task when the daemon restarts") {
        return;
    }
    let daemon = Daemon::start();
    let (image, early, late) = (daemon.image(), daemon.id("early"), daemon.id("late"));
    daemon.ctr(&["run", "-d", image, &early, "sh", "-c", "exit 41"]).ok();
    daemon
        .ctr(&["run", "-d", image, &late, "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 42"])
        .ok();
    daemon.await_status(&early, "STOPPED");
    let pid = daemon.task_pid(&late);
    daemon.kill();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    eventually("the process ends without a daemon", || !proc::alive(pid));
    daemon.launch();
    for (id, code) in [(&early, 41), (&late, 42)] {
        daemon.await_status(id, "STOPPED");
        assert_eq!(daemon.api().exit_status(id), Some(code));
        assert_eq!(daemon.api().wait(id), Ok(code));
    }
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.api().exit_status(&late), Some(42));
    for (id, code) in [(&early, 41), (&late, 42)] {
        assert_eq!(daemon.api().delete(id), Ok(code));
        daemon.ctr(&["containers", "delete", id]).ok();
    }
}

#[test]
fn an_orderly_stop_leaves_containers_running_too() {
    let daemon = Daemon::start();
    let id = counting(&daemon);
    let pid = daemon.task_pid(&id);
    daemon.stop();
    let before = count(pid);
    eventually("the container counts without a daemon", || count(pid) > before + 2);
    daemon.launch();
    assert_eq!(daemon.task(&id), Some((pid, "RUNNING".to_owned())));
    remove(&daemon, &id);
}

#[test]
fn images_content_and_snapshots_are_there_after_a_kill() {
    let daemon = Daemon::start();
    daemon.image();
    let list = |daemon: &Daemon| {
        [["images", "list"], ["content", "list"], ["snapshots", "list"]]
            .map(|command| daemon.ctr(&command).ok())
            .map(|text| text.lines().map(first_word).collect::<Vec<_>>().join("\n"))
    };
    // What only the import's lease held, the archive's index, goes with a collection: before the lists, not between them.
    let lease = daemon.id("lease");
    daemon.ctr(&["leases", "create", "--id", &lease]).ok();
    daemon.ctr(&["leases", "delete", "--sync", &lease]).ok();
    let before = list(&daemon);
    daemon.kill();
    daemon.launch();
    assert_eq!(list(&daemon), before);
    let id = daemon.id("after");
    assert_eq!(daemon.ctr(&["run", "--rm", daemon.image(), &id, "echo", "still"]).ok(), "still\n");
}

#[test]
fn a_shim_that_died_with_its_container_is_cleaned_up_after() {
    let daemon = Daemon::start();
    let id = counting(&daemon);
    let pid = daemon.task_pid(&id);
    daemon.kill();
    let shim = proc::shim(daemon.namespace(), &id).expect("a shim");
    let sockets = proc::listening(&[shim.pid]);
    proc::kill(shim.pid);
    proc::kill(pid);
    eventually("both are gone", || !proc::alive(pid) && !proc::alive(shim.pid));
    daemon.launch();
    eventually("the task is gone", || daemon.task(&id).is_none_or(|(_, status)| status == "STOPPED"));
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
    // runc 1.5 looks every tenth of a second whether what it has killed is gone.
    eventually("no mount is left", || proc::mounts_below(&daemon.state()).is_empty());
    if binaries::suite() == Suite::Upstream {
        // It leaves a dead shim's socket.
        sockets.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        return;
    }
    eventually("the socket is gone", || !sockets.iter().any(|path| path.exists()));
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

#[test]
fn who_subscribes_after_a_restart_hears_of_an_exit_that_happened_meanwhile() {
    if beyond_upstream("its event is lost if the shim is back before the client") {
        return;
    }
    let daemon = Daemon::start();
    let id = daemon.id("unheard");
    let script = "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 43";
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sh", "-c", script]).ok();
    let pid = daemon.task_pid(&id);
    daemon.kill();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    eventually("the process ends without a daemon", || !proc::alive(pid));
    daemon.launch();
    daemon.await_status(&id, "STOPPED");
    // By now the shim has told, as dockerd's is longer away: it waits up to three seconds before it connects again.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let events = daemon.ctr(&["events", r#"topic=="/tasks/exit""#]).start();
    events.await_output(&format!("\"container_id\":\"{id}\""));
    events.await_output("\"exit_status\":43");
    events.signal(rustix::process::Signal::TERM);
    events.finish();
    remove(&daemon, &id);
}
