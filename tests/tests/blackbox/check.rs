//! `containerd check` tells what is wrong, with what removes it, and changes nothing; a start of the daemon removes what a
//! crash has left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, eventually, proc};
use rustix::process::{Pid, Signal, kill_process};

fn daemon() -> Daemon {
    Daemon::prepare(containerd_tests::binaries::tested(), containerd_tests::binaries::suite())
        .with_own_sockets()
}

fn check(daemon: &Daemon, flags: &[&str]) -> Output {
    daemon.command().arg("check").args(flags).stdout(std::process::Stdio::piped()).output().unwrap()
}

/// The findings and the exit code.
fn findings(daemon: &Daemon) -> (Vec<serde_json::Value>, i32) {
    let output = check(daemon, &["--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let code = output.status.code().unwrap();
    assert_eq!(value["exit"], code);
    (value["findings"].as_array().unwrap().clone(), code)
}

/// The ledger's rows: kind and command.
fn rows(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (findings, _) = findings(daemon);
    let rows = findings.iter().filter(|finding| finding["row"].is_string());
    rows.map(|row| (text(&row["row"]), text(&row["command"]))).collect()
}

/// Those that a test has made, or its daemon: others may lie about on the machine.
fn own(daemon: &Daemon, rows: Vec<(String, String)>) -> Vec<(String, String)> {
    let place = daemon.dir().to_string_lossy().into_owned();
    let ours = |command: &str| command.contains(&place) || command.contains(daemon.namespace());
    rows.into_iter().filter(|(kind, command)| kind == "zombie" || ours(command)).collect()
}

fn tasks(daemon: &Daemon) -> PathBuf {
    daemon.state().join("io.containerd.runtime.v2.task").join(daemon.namespace())
}

/// A control group of the namespace without a process.
fn cgroup(daemon: &Daemon, id: &str) -> PathBuf {
    let base = Path::new("/sys/fs/cgroup");
    let tree = if base.join("cgroup.controllers").exists() { base.to_owned() } else { base.join("pids") };
    let dir = tree.join(daemon.namespace()).join(id);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A bundle whose shim is gone, with something mounted in it, a work directory and a control group.
fn crashed(daemon: &Daemon, id: &str) -> PathBuf {
    let bundle = tasks(daemon).join(id);
    let work = daemon.root().join("io.containerd.runtime.v2.task").join(daemon.namespace()).join(id);
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    fs::create_dir_all(&work).unwrap();
    std::os::unix::fs::symlink(&work, bundle.join("work")).unwrap();
    let group = format!("/{}/{id}", daemon.namespace());
    fs::write(bundle.join("config.json"), format!(r#"{{"linux":{{"cgroupsPath":"{group}"}}}}"#)).unwrap();
    cgroup(daemon, id);
    let target = bundle.join("rootfs");
    rustix::mount::mount(
        "none",
        &target,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None::<&std::ffi::CStr>,
    )
    .unwrap();
    bundle
}

#[test]
fn a_machine_with_a_container_has_nothing_left_behind_with_the_daemon_up_and_down() {
    if beyond_upstream("check") {
        return;
    }
    let daemon = daemon();
    daemon.launch();
    let id = daemon.id("fine");
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sleep", "100"]).ok();
    for state in ["answers", "none runs"] {
        let (findings, code) = findings(&daemon);
        let of = |area: &str| -> Vec<_> { findings.iter().filter(|f| f["area"] == area).collect() };
        assert!(of("daemon")[0]["message"].as_str().unwrap().contains(state), "{findings:#?}");
        for area in ["kernel", "cgroup", "lsm", "runtime", "space", "config", "shims"] {
            assert!(!of(area).is_empty(), "nothing about {area}");
        }
        assert!(of("shims")[0]["message"].as_str().unwrap().starts_with("1 tasks"), "{findings:#?}");
        assert!(code < 2, "{findings:#?}");
        assert_eq!(own(&daemon, rows(&daemon)), []);
        daemon.kill();
    }
    daemon.launch();
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
}

#[test]
fn each_row_comes_with_the_command_that_removes_it() {
    if beyond_upstream("check") {
        return;
    }
    let daemon = daemon();
    daemon.launch();
    daemon.ctr(&["run", "--rm", daemon.image(), &daemon.id("first"), "true"]).ok();
    daemon.kill();
    crashed(&daemon, "gone");
    cgroup(&daemon, "lonely");
    let (state, root) = (daemon.state(), daemon.root());
    fs::create_dir_all(root.join("io.containerd.runtime.v2.task").join(daemon.namespace()).join("orphan"))
        .unwrap();
    fs::write(state.join("containerd.999999999.stacks.log"), "").unwrap();
    drop(std::os::unix::net::UnixListener::bind(daemon.sockets().join("stale")).unwrap());
    let netns = state.join("netns");
    fs::write(&netns, "").unwrap();
    rustix::mount::mount_bind("/proc/self/ns/net", &netns).unwrap();
    let fifos = Path::new("/run/containerd/fifo").join(daemon.id("fifo"));
    fs::create_dir_all(&fifos).unwrap();
    let fifo = fifos.join(format!("{}-nobody-stdout", daemon.namespace()));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let old = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(rustix::fs::CWD, &fifo, &times, rustix::fs::AtFlags::empty()).unwrap();

    let found = own(&daemon, rows(&daemon));
    for kind in ["mount", "netns", "cgroup", "socket", "fifo", "file"] {
        assert!(found.iter().any(|(row, _)| row == kind), "no {kind} in {found:#?}");
    }
    assert_eq!(own(&daemon, rows(&daemon)), found, "a look changes nothing");
    let path = containerd_tests::binaries::search_path(&containerd_tests::binaries::tested().shim_dir);
    for (_, command) in &found {
        let done = Command::new("sh").args(["-c", command]).env("PATH", &path).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(own(&daemon, rows(&daemon)), []);
    fs::remove_dir(fifos).unwrap();
}

#[test]
fn a_zombie_is_told_with_the_process_that_does_not_collect_it() {
    if beyond_upstream("check") {
        return;
    }
    let daemon = daemon();
    daemon.launch();
    let id = daemon.id("stopped");
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sleep", "100"]).ok();
    let (pid, shim) = (daemon.task_pid(&id), proc::shim(daemon.namespace(), &id).unwrap().pid);
    kill_process(Pid::from_raw(shim).unwrap(), Signal::STOP).unwrap();
    proc::kill(pid);
    let (findings, code) = findings(&daemon);
    assert_eq!(code, 2, "a shim that is silent is a problem: {findings:#?}");
    let command = findings.iter().find(|f| f["row"] == "zombie").expect("a zombie")["command"].clone();
    assert_eq!(command, format!("kill -s CONT {shim}"));
    assert!(Command::new("sh").args(["-c", command.as_str().unwrap()]).status().unwrap().success());
    eventually("the zombie is collected", || own(&daemon, rows(&daemon)).is_empty());
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
}

#[test]
fn a_start_removes_what_a_crash_has_left() {
    if beyond_upstream("upstream leaves control groups") {
        return;
    }
    let daemon = daemon();
    daemon.launch();
    daemon.ctr(&["run", "--rm", daemon.image(), &daemon.id("first"), "true"]).ok();
    daemon.kill();
    let bundle = crashed(&daemon, "gone");
    fs::create_dir_all(tasks(&daemon).join(".hidden/rootfs")).unwrap();
    daemon.launch();
    eventually("nothing is left", || own(&daemon, rows(&daemon)).is_empty());
    assert!(!bundle.exists());
}

#[test]
fn a_daemon_that_hangs_is_told_and_delays_nothing() {
    if beyond_upstream("check") {
        return;
    }
    let daemon = daemon();
    daemon.launch();
    let pid = Pid::from_raw(daemon.pid().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let begun = std::time::Instant::now();
    let (findings, code) = findings(&daemon);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(begun.elapsed().as_secs() < 10);
    let problem = findings.iter().find(|f| f["level"] == "problem").expect("a problem");
    assert_eq!((code, &problem["area"]), (2, &"daemon".into()), "{findings:#?}");
}

#[test]
fn a_bundle_for_whoever_helps_is_roots_alone_and_holds_no_credential() {
    if beyond_upstream("check") {
        return;
    }
    let daemon = daemon();
    let config = daemon.dir().join("config.toml");
    let text = fs::read_to_string(&config).unwrap()
        + "[plugins.'io.containerd.cri.v1.images'.registry.configs.'r.example'.auth]\nusername = 'NOBODYKNOWS'\npassword = 'S3CRET'\n";
    fs::write(&config, text).unwrap();
    daemon.launch();
    daemon.ctr(&["run", "--rm", daemon.image(), &daemon.id("logged"), "true"]).ok();
    let file = daemon.dir().join("help.tar.gz");
    let name = file.to_str().unwrap();
    assert!(check(&daemon, &["--bundle", name]).status.code().unwrap() < 2);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = Command::new("tar").args(["-xzOf", name]).output().unwrap();
    let text = String::from_utf8_lossy(&unpacked.stdout);
    for wanted in ["starting containerd", "calls under way", "version = 4", "\"findings\"", "[REDACTED]"] {
        assert!(text.contains(wanted), "no {wanted:?} in the archive");
    }
    for secret in ["S3CRET", "NOBODYKNOWS"] {
        assert!(!text.contains(secret), "the archive tells {secret}");
    }
    let again = check(&daemon, &["--bundle", name]);
    assert_eq!(again.status.code(), Some(1), "a file that is there stays");
    assert!(String::from_utf8_lossy(&again.stderr).contains("File exists"));
}
