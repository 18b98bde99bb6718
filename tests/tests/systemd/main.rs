//! Under a real systemd: the unit that we ship, on the machine's own paths. It runs in the guest (`cargo xtask guest
//! systemd`), where nothing else is; `TEST_SYSTEMD` names the directory with our programs and the unit. Pods are in [`pods`].

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod pods;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use containerd_tests::archive::{IMAGE, Image};
use containerd_tests::eventually;

const CONTAINERS: usize = 20;

/// The node, one test at a time.
static NODE: Mutex<()> = Mutex::new(());

/// The machine with our unit installed and running, and the image imported.
struct Node {
    _one: MutexGuard<'static, ()>,
}

impl Node {
    /// `None`, said aloud, where this is not the guest.
    fn get() -> Option<Self> {
        let Some(programs) = std::env::var_os("TEST_SYSTEMD").map(PathBuf::from) else {
            eprintln!("skipped: only under systemd in the guest: cargo xtask guest systemd");
            return None;
        };
        let one = NODE.lock().unwrap_or_else(PoisonError::into_inner);
        let unit = Path::new("/etc/systemd/system/containerd.service");
        if !unit.exists() {
            for name in ["containerd", "ctr", "containerd-shim-runc-v2", "runc"] {
                fs::copy(programs.join(name), Path::new("/usr/local/bin").join(name)).unwrap();
            }
            fs::copy(programs.join("containerd.service"), unit).unwrap();
            run("systemctl", &["daemon-reload"]);
            run("systemctl", &["start", "containerd"]);
            let archive = programs.join("image.tar");
            fs::write(&archive, Image::standard().oci()).unwrap();
            run("ctr", &["images", "import", &archive.display().to_string()]);
        }
        Some(Self { _one: one })
    }

    /// Containers that count into a file of their own root.
    fn counting(&self, prefix: &str) -> Vec<Counter> {
        let script = "n=0; while :; do n=$((n+1)); echo $n >> /tmp/count; sleep 1; done";
        let start = |n| {
            let id = format!("{prefix}{n}");
            run("ctr", &["run", "-d", IMAGE, &id, "sh", "-c", script]);
            let pid = task(&id).expect("the task runs").0;
            Counter { id, pid }
        };
        (0..CONTAINERS).map(start).collect()
    }
}

struct Counter {
    id: String,
    pid: String,
}

impl Counter {
    fn numbers(&self) -> Vec<u64> {
        let text = fs::read_to_string(format!("/proc/{}/root/tmp/count", self.pid)).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    /// The same process, and no number missing.
    fn assert_unharmed(&self) {
        assert_eq!(task(&self.id), Some((self.pid.clone(), "RUNNING".to_owned())), "{}", self.id);
        let numbers = self.numbers();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        eventually("it goes on counting", || self.numbers().len() > numbers.len() + 1);
    }

    fn remove(&self) {
        run("ctr", &["tasks", "delete", "--force", &self.id]);
        run("ctr", &["containers", "delete", &self.id]);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn property(name: &str) -> String {
    property_of("containerd", name)
}

/// What systemd says of a unit.
fn property_of(unit: &str, name: &str) -> String {
    run("systemctl", &["show", "--value", "--property", name, unit])
}

/// Process id and status.
fn task(id: &str) -> Option<(String, String)> {
    let list = run("ctr", &["tasks", "list"]);
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
    let mut words = line.split_whitespace().skip(1).map(str::to_owned);
    Some((words.next()?, words.next()?))
}

#[test]
fn the_unit_is_active_when_the_socket_serves() {
    let Some(_node) = Node::get() else { return };
    run("systemctl", &["restart", "containerd"]);
    run("ctr", &["version"]);
    assert_eq!(property("ActiveState"), "active");
    let fixed =
        [("Type", "notify"), ("Delegate", "yes"), ("KillMode", "process"), ("OOMScoreAdjust", "-999")];
    for (name, value) in fixed {
        assert_eq!(property(name), value, "{name}");
    }
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/oom_score_adj", property("MainPID"))).unwrap().trim(),
        "-999"
    );
}

#[test]
fn a_restart_of_the_unit_is_not_noticed_by_twenty_containers() {
    let Some(node) = Node::get() else { return };
    let counters = node.counting("restarted");
    let before = property("MainPID");
    let started = Instant::now();
    run("systemctl", &["restart", "containerd"]);
    println!("restart with {CONTAINERS} containers: {} ms", started.elapsed().as_millis());
    assert_ne!(property("MainPID"), before);
    for counter in &counters {
        counter.assert_unharmed();
        counter.remove();
    }
}

#[test]
fn a_killed_daemon_is_started_again_by_systemd() {
    let Some(node) = Node::get() else { return };
    let counters = node.counting("killed");
    let before = property("MainPID");
    run("systemctl", &["kill", "--kill-who=main", "--signal=KILL", "containerd"]);
    eventually("systemd has started it again", || {
        property("MainPID") != before && property("ActiveState") == "active"
    });
    for counter in &counters {
        counter.assert_unharmed();
        counter.remove();
    }
}

#[test]
fn containers_outlive_a_stopped_unit_and_keep_their_exit_codes() {
    let Some(node) = Node::get() else { return };
    let counters = node.counting("stopped");
    run(
        "ctr",
        &["run", "-d", IMAGE, "ending", "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 42"],
    );
    let pid = task("ending").expect("it runs").0;
    run("systemctl", &["stop", "containerd"]);
    assert_eq!(property("ActiveState"), "inactive");
    fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    let ended = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{pid}/root/tmp")).exists() {
        assert!(Instant::now() < ended, "it did not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    run("systemctl", &["start", "containerd"]);
    for counter in &counters {
        counter.assert_unharmed();
        counter.remove();
    }
    assert_eq!(task("ending"), Some((pid, "STOPPED".to_owned())));
    let deleted = Command::new("ctr").args(["tasks", "delete", "ending"]).output().unwrap();
    let said = String::from_utf8_lossy(&deleted.stderr);
    assert!(said.contains("exit code 42"), "{said}");
    run("ctr", &["containers", "delete", "ending"]);
}

#[test]
fn the_journal_has_the_daemons_lines() {
    let Some(_node) = Node::get() else { return };
    let journal = run("journalctl", &["--no-pager", "--unit", "containerd"]);
    assert!(journal.contains("level=info"), "{journal}");
}
