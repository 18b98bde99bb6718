//! A process number that was given away again: whoever has it now is nobody's business of ours.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::process::{Child, Command};

use support::{Rig, can_run};

/// Set where numbers are given away as this test wants it.
const INSIDE: &str = "NUMBERS_INSIDE";
/// The number after this one is given away next, in our process namespace.
const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// Somebody else's process with the number `pid`, which is free.
struct Stranger(Child);

impl Stranger {
    fn with(pid: u32) -> Self {
        for _ in 0..100 {
            std::fs::write(LAST, (pid - 1).to_string()).unwrap();
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            if child.id() == pid {
                return Self(child);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("nobody gets the number {pid}");
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_signal_for_a_process_that_ended_does_not_reach_who_has_its_number_now() {
    if !can_run() {
        return;
    }
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    // A process namespace of our own: nobody else's numbers are touched.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(std::env::current_exe().unwrap());
    command.args(["a_signal_for_a_process_that_ended", "--nocapture"]).env(INSIDE, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn inside() {
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let exec = rig.exec("c1", "e1", &["true"]).unwrap();
    assert_eq!(rig.wait("c1", "e1"), 0);
    let ended = rig.run("c2", &["true"]);
    assert_eq!(rig.wait("c2", ""), 0);
    for (pid, id, process) in [(exec, "c1", "e1"), (ended, "c2", "")] {
        let mut stranger = Stranger::with(pid);
        let error = rig.kill(id, process, 9).unwrap_err();
        assert_eq!(error.to_string(), "process already finished: not found");
        assert_eq!(rig.state(id, process).unwrap().exit_status, 0);
        rig.delete(id, process).unwrap();
        assert!(stranger.is_alive(), "{id} {process}");
    }
    // Nor does who clears up after a shim that was killed.
    let ended = rig.run("c3", &["true"]);
    assert_eq!(rig.wait("c3", ""), 0);
    let mut stranger = Stranger::with(ended);
    Command::new("kill").args(["-9", &rig.pid.to_string()]).status().unwrap();
    support::eventually("the shim's end", || support::is_gone(rig.pid));
    for id in ["c3", "c1"] {
        assert!(rig.command(id, "delete").output().unwrap().status.success());
    }
    assert!(stranger.is_alive());
}
