//! Logs in the form of Kubernetes, written by the shim itself: whole whatever happens to the daemon and to the shim's program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::{Daemon, Ledger, eventually, proc};

/// Says numbers, each in a line of one stream, until it shall end.
const COUNT: &str = "n=0; while [ ! -e /tmp/end ]; do n=$((n+1)); echo $n; [ $((n % 100)) -gt 0 ] || sleep 0.01; done; exit 6";

fn uri(path: &Path) -> String {
    format!("file://{}?format=cri", path.display())
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn remove(daemon: &Daemon, id: &str) {
    daemon.ctr(&["tasks", "delete", "--force", id]).run();
    daemon.ctr(&["containers", "delete", id]).ok();
}

#[test]
fn a_log_goes_on_whoever_is_killed_or_replaced_meanwhile() {
    if beyond_upstream("logs written by the shim") {
        return;
    }
    let daemon = Daemon::start();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    let (id, path) = (daemon.id("logs"), daemon.dir().join("0.log"));
    daemon.ctr(&["run", "-d", "--log-uri", &uri(&path), image, &id, "sh", "-c", COUNT]).ok();
    let end = PathBuf::from(format!("/proc/{}/root/tmp/end", daemon.task_pid(&id)));
    let grows = || {
        let seen = lines(&path).len();
        eventually("the log grows", || lines(&path).len() > seen + 100);
    };
    grows();
    daemon.kill();
    grows();
    daemon.launch();
    grows();
    let newer = daemon.dir().join("newer");
    fs::copy(binaries::tested().shim_dir.join("containerd-shim-runc-v2"), &newer).unwrap();
    daemon.ctr(&["shims", "upgrade", "--binary", newer.to_str().unwrap(), &id]).ok();
    grows();
    fs::write(end, "").unwrap();
    eventually("the end", || daemon.ctr(&["tasks", "ls"]).ok().contains("STOPPED"));
    remove(&daemon, &id);
    let said = lines(&path);
    for (line, number) in said.iter().zip(1..) {
        assert!(line.ends_with(&format!(" stdout F {number}")), "line {number}: {line}");
    }
    fs::remove_file(path).unwrap();
    Ledger::check(&before, &daemon);
}

#[test]
fn a_log_whose_directory_is_missing_is_refused_and_leaves_nothing() {
    if beyond_upstream("logs written by the shim") {
        return;
    }
    let daemon = Daemon::start();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    let (id, path) = (daemon.id("nowhere"), daemon.dir().join("no/such/0.log"));
    let run = daemon.ctr(&["run", "-d", "--log-uri", &uri(&path), image, &id, "true"]).run();
    assert_ne!(run.code, 0);
    run.says("open log file");
    assert!(!daemon.dir().join("no").exists());
    daemon.ctr(&["containers", "delete", &id]).run();
    Ledger::check(&before, &daemon);
}

#[test]
fn the_shims_own_program_is_the_init_of_a_sandbox() {
    if beyond_upstream("the built-in pause") {
        return;
    }
    let shim = binaries::tested().shim_dir.join("containerd-shim-runc-v2");
    let word = Command::new(&shim).args(["pause", "-v"]).output().unwrap();
    if !word.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&word.stderr));
        return;
    }
    let daemon = Daemon::start();
    let before = Ledger::take(&daemon);
    let (id, rootfs) = (daemon.id("pause"), daemon.dir().join("empty"));
    fs::create_dir(&rootfs).unwrap();
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["/pause"], "cwd": "/", "user": {"uid": 65535, "gid": 65535}, "noNewPrivileges": true},
        "root": {"path": rootfs, "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/pause", "type": "bind", "source": shim,
                "options": ["bind", "ro", "nosuid", "nodev"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{}/{id}", daemon.namespace()),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
        },
    });
    let config = daemon.dir().join("config.json");
    fs::write(&config, spec.to_string()).unwrap();
    daemon.ctr(&["run", "-d", "--null-io", "--config", config.to_str().unwrap(), &id]).ok();
    let init = daemon.task_pid(&id);
    assert_eq!(proc::threads(init), 1);
    let rss = fs::read_to_string(format!("/proc/{init}/smaps_rollup")).unwrap();
    let dirty = rss.lines().find_map(|l| l.strip_prefix("Anonymous:")).unwrap();
    let dirty: u64 = dirty.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(dirty <= 100, "{dirty} kB of its own");
    daemon.ctr(&["tasks", "kill", "--signal", "SIGTERM", &id]).ok();
    eventually("the end", || daemon.ctr(&["tasks", "ls"]).ok().contains("STOPPED"));
    assert_eq!(daemon.ctr(&["tasks", "delete", &id]).run().code, 0);
    daemon.ctr(&["containers", "delete", &id]).ok();
    Ledger::check(&before, &daemon);
}
