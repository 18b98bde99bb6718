//! A real shim with a real runc: `CONTAINERD_SHIM_BIN=/path/to/containerd-shim-runc-v2 cargo test -p containerd-runtime`.
//!
//! Promised: a task runs to its end with its code kept, events come in order, a second daemon on the same state finds
//! the tasks of the first, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{Options, Runtime, Signal, Timeouts, ttrpc};
use tokio::task::AbortHandle;
use types::any::{RUNTIME_PROCESS, RUNTIME_SPEC};
use types::events::{Exchange, Subscription};
use types::mount::Mount;
use types::task::{Create, Exec, Origin, Status, Stdio};
use types::{Any, Class, Namespace};

/// Nothing here takes as long, however loaded the machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A daemon's directories, and a root filesystem with a busybox.
struct House {
    dir: tempfile::TempDir,
    shim: PathBuf,
}

/// One life of a daemon.
struct Daemon {
    runtime: Runtime,
    events: Subscription,
    forward: AbortHandle,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.forward.abort();
    }
}

/// After a failed assertion: ends what the test started, by the shim's own means.
impl Drop for House {
    fn drop(&mut self) {
        for pid in shims_of(self.dir.path()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let tasks = self.dir.path().join("state/io.containerd.runtime.v2.task").join(namespace().as_str());
        for bundle in std::fs::read_dir(tasks).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let mut delete = std::process::Command::new(&self.shim);
            delete.args(["-namespace", namespace().as_str(), "-address", "/", "-publish-binary", "/", "-id"]);
            delete.arg(bundle.file_name().unwrap()).arg("-bundle").arg(&bundle).arg("delete");
            let _ = delete.current_dir(&bundle).output();
        }
        let _ = std::fs::remove_dir(Path::new("/run/containerd/runc").join(namespace().as_str()));
    }
}

/// Of this process alone: runc keeps its state by namespace and id for the whole machine.
fn namespace() -> Namespace {
    format!("rt-{}", std::process::id()).parse().unwrap()
}

impl House {
    /// None, loudly, without a shim to test with.
    fn build() -> Option<Self> {
        let Some(shim) = std::env::var_os("CONTAINERD_SHIM_BIN").map(PathBuf::from) else {
            eprintln!("SKIPPED: CONTAINERD_SHIM_BIN names no shim");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("rt").tempdir().unwrap();
        let rootfs = dir.path().join("image");
        for sub in ["bin", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        std::fs::copy(std::env::var("BUSYBOX").unwrap_or("/bin/busybox".into()), rootfs.join("bin/busybox"))
            .unwrap();
        std::os::unix::fs::symlink("busybox", rootfs.join("bin/sh")).unwrap();
        Some(Self { dir, shim })
    }

    async fn daemon(&self) -> Daemon {
        let events = Exchange::new();
        let subscription = events.subscribe();
        let address = self.dir.path().join("c.sock");
        let ttrpc_address = self.dir.path().join("c.sock.ttrpc");
        let _ = std::fs::remove_file(&ttrpc_address);
        let listener = tokio::net::UnixListener::bind(&ttrpc_address).unwrap();
        let forward =
            tokio::spawn(ttrpc::serve(listener, ttrpc::forward_events(events.clone()))).abort_handle();
        let options = Options {
            root: self.dir.path().join("root"),
            state: self.dir.path().join("state"),
            address: address.to_str().unwrap().to_owned(),
            ttrpc_address: ttrpc_address.to_str().unwrap().to_owned(),
            binary: std::env::current_exe().unwrap(),
            socket_dir: Some(self.dir.path().join("s")),
            env: Vec::new(),
            events,
            debug: false,
            timeouts: Timeouts::default(),
        };
        let runtime = Runtime::open(options).await.unwrap();
        Daemon { runtime, events: subscription, forward }
    }

    fn create(&self, script: &str) -> Create {
        let source = self.dir.path().join("image").to_str().unwrap().to_owned();
        let options = ["rbind", "rw"].map(str::to_owned).to_vec();
        Create {
            rootfs: vec![Mount { kind: "bind".into(), source, target: String::new(), options }],
            stdio: Stdio::default(),
            spec: Some(Any::new(RUNTIME_SPEC, spec(script))),
            runtime: self.shim.to_str().unwrap().to_owned(),
            options: None,
            origin: Origin::Beginning,
        }
    }

    /// Every file below state, root and the sockets, but the markers.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for dir in ["state", "root", "s"] {
            collect(&self.dir.path().join(dir), &mut left);
        }
        left.retain(|path| !path.ends_with(".containerd-rs"));
        left
    }

    async fn assert_nothing_left(&self) {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline && !self.left().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.left(), Vec::<PathBuf>::new());
        eventually("no file and no shim is left", || {
            self.left().is_empty() && shims_of(self.dir.path()).is_empty()
        })
        .await;
    }
}

/// Files and bundles; the directories of plugin and namespace may stay.
fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let stays =
            entry.file_name() == "io.containerd.runtime.v2.task" || entry.file_name() == namespace().as_str();
        if entry.file_type().unwrap().is_dir() && stays {
            collect(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

/// The processes that were told of our directory on their command line: shims.
fn shims_of(dir: &Path) -> Vec<rustix::process::Pid> {
    let needle = dir.to_str().unwrap().as_bytes();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(needle.len()).any(|window| window == needle)
    };
    pids.filter(ours).filter_map(rustix::process::Pid::from_raw).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn process(script: &str) -> serde_json::Value {
    serde_json::json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

fn spec(script: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": process(script),
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/rt-test-{}-{count}", std::process::id()),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
        },
    })
    .to_string()
}

impl Daemon {
    async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(LIMIT, self.events.next()).await;
            topics.push(next.expect("an event").unwrap().topic.clone());
        }
        topics
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_to_its_end_and_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let mut daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let pid = runtime.create(&ns, "c1", house.create("exit 7")).await.unwrap();
    assert_eq!(runtime.state(&ns, "c1", "").await.unwrap().status, Status::Created);
    let again = runtime.create(&ns, "c1", house.create("exit 7")).await.unwrap_err();
    assert_eq!(again.class(), Class::AlreadyExists);
    assert_eq!(runtime.start(&ns, "c1", "").await.unwrap(), pid);
    assert_eq!(runtime.wait(&ns, "c1", "").await.unwrap().status, 7);
    let state = runtime.state(&ns, "c1", "").await.unwrap();
    assert_eq!((state.status, state.exit.unwrap().status), (Status::Stopped, 7));
    let deleted = runtime.delete(&ns, "c1").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit.status), (pid, 7));
    assert!(runtime.state(&ns, "c1", "").await.unwrap_err().is_not_found());
    assert_eq!(daemon.topics(4).await, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_kill_and_the_refusal_to_delete_what_runs() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    runtime.create(&ns, "c2", house.create("sleep 1000")).await.unwrap();
    runtime.start(&ns, "c2", "").await.unwrap();
    let exec = Exec {
        id: "e1".into(),
        stdio: Stdio::default(),
        process: Some(Any::new(RUNTIME_PROCESS, process("exit 3").to_string())),
    };
    runtime.exec(&ns, "c2", exec).await.unwrap();
    runtime.start(&ns, "c2", "e1").await.unwrap();
    assert_eq!(runtime.wait(&ns, "c2", "e1").await.unwrap().status, 3);
    assert_eq!(runtime.delete_process(&ns, "c2", "e1").await.unwrap().exit.status, 3);
    assert!(!runtime.pids(&ns, "c2").await.unwrap().is_empty());
    assert_eq!(runtime.delete(&ns, "c2").await.unwrap_err().class(), Class::FailedPrecondition);
    runtime.kill(&ns, "c2", "", Signal { number: 9, all: false }).await.unwrap();
    assert_eq!(runtime.wait(&ns, "c2", "").await.unwrap().status, 137);
    runtime.delete(&ns, "c2").await.unwrap();
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_finds_running_and_ended_tasks() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    for (id, script) in [("run", "sleep 1000"), ("ended", "exit 5")] {
        daemon.runtime.create(&ns, id, house.create(script)).await.unwrap();
        daemon.runtime.start(&ns, id, "").await.unwrap();
    }
    let pid = daemon.runtime.state(&ns, "run", "").await.unwrap().pid;
    drop(daemon);
    let daemon = house.daemon().await;
    let runtime = daemon.runtime.clone();
    assert_eq!(runtime.list(&ns), ["ended", "run"]);
    assert_eq!(runtime.state(&ns, "run", "").await.unwrap().pid, pid);
    assert_eq!(runtime.wait(&ns, "ended", "").await.unwrap().status, 5);
    assert_eq!(runtime.delete(&ns, "ended").await.unwrap().exit.status, 5);
    runtime.kill(&ns, "run", "", Signal { number: 9, all: true }).await.unwrap();
    assert_eq!(runtime.wait(&ns, "run", "").await.unwrap().status, 137);
    runtime.delete(&ns, "run").await.unwrap();
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_is_killed_ends_its_task() {
    let Some(house) = House::build() else { return };
    for daemon_is_up in [true, false] {
        let mut daemon = house.daemon().await;
        let ns = namespace();
        daemon.runtime.create(&ns, "c4", house.create("sleep 1000")).await.unwrap();
        let pid = daemon.runtime.start(&ns, "c4", "").await.unwrap();
        assert_eq!(daemon.topics(2).await, ["/tasks/create", "/tasks/start"]);
        let shim = daemon.runtime.connect(&ns, "c4").await.unwrap().shim_pid;
        let shim = rustix::process::Pid::from_raw(shim.cast_signed()).unwrap();
        if daemon_is_up {
            let mut waiting = std::pin::pin!(daemon.runtime.wait(&ns, "c4", ""));
            let moment = Duration::from_millis(1);
            assert!(tokio::time::timeout(moment, &mut waiting).await.is_err(), "nothing has ended yet");
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            assert_eq!(waiting.await.unwrap().status, 137);
        } else {
            drop(daemon);
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            daemon = house.daemon().await;
        }
        assert_eq!(daemon.topics(2).await, ["/tasks/exit", "/tasks/delete"]);
        assert!(daemon.runtime.state(&ns, "c4", "").await.unwrap_err().is_not_found());
        eventually("init is gone", || !Path::new(&format!("/proc/{pid}")).exists()).await;
        house.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_the_runtime_refuses_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let mut create = house.create("true");
    let text = String::from_utf8(create.spec.unwrap().value).unwrap().replace("/bin/sh", "/no/such/program");
    create.spec = Some(Any::new(RUNTIME_SPEC, text));
    let error = daemon.runtime.create(&namespace(), "c5", create).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to create shim task: "), "{error}");
    assert!(error.contains("/no/such/program"), "{error}");
    house.assert_nothing_left().await;
}
