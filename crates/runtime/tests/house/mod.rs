//! A daemon's house with a real shim, for tests.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses its part"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::{Options, Runtime, Timeouts, ttrpc};
use tokio::task::AbortHandle;
use types::any::RUNTIME_SPEC;
use types::events::{Exchange, Subscription};
use types::mount::Mount;
use types::task::{Create, Origin, Stdio};
use types::{Any, Namespace};

/// Nothing here takes as long, however loaded the machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A daemon's directories, and a root filesystem with a busybox.
pub struct House {
    pub dir: tempfile::TempDir,
    pub shim: PathBuf,
}

/// One life of a daemon.
pub struct Daemon {
    pub runtime: Runtime,
    pub events: Subscription,
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

/// Of this test alone: runc keeps its state by namespace and id for the whole machine. Each test has a thread of its own.
pub fn namespace() -> Namespace {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static TEST: u32 = TESTS.fetch_add(1, Ordering::Relaxed);
    }
    format!("rt-{}-{}", std::process::id(), TEST.with(|test| *test)).parse().unwrap()
}

impl House {
    /// None, loudly, without a shim to test with.
    pub fn build() -> Option<Self> {
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

    pub async fn daemon(&self) -> Daemon {
        self.daemon_at(&std::env::current_exe().unwrap()).await
    }

    /// One whose program is installed elsewhere.
    pub async fn daemon_at(&self, binary: &Path) -> Daemon {
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
            binary: binary.to_owned(),
            socket_dir: Some(self.dir.path().join("s")),
            env: Vec::new(),
            events,
            debug: false,
            timeouts: Timeouts::default(),
        };
        let runtime = Runtime::open(options).await.unwrap();
        Daemon { runtime, events: subscription, forward }
    }

    pub fn create(&self, script: &str) -> Create {
        let source = self.dir.path().join("image").to_str().unwrap().to_owned();
        let options = ["rbind", "rw"].map(str::to_owned).to_vec();
        Create {
            rootfs: vec![Mount { kind: "bind".into(), source, target: String::new(), options }],
            stdio: Stdio::default(),
            spec: Some(Any::new(RUNTIME_SPEC, spec(script))),
            runtime: self.shim.to_str().unwrap().to_owned(),
            options: None,
            origin: Origin::Beginning,
            shim_of: None,
            endpoint: None,
        }
    }

    /// Every file below state, root and the sockets, but the markers, what is kept for a day, and what all pods share.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for dir in ["state", "root", "s"] {
            collect(&self.dir.path().join(dir), &mut left);
        }
        let stays = [".containerd-rs", ".told", ".deaths", "io.containerd-rs.pause"];
        left.retain(|path| !stays.iter().any(|name| path.ends_with(name)));
        left
    }

    pub async fn assert_nothing_left(&self) {
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
pub fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
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
pub fn shims_of(dir: &Path) -> Vec<rustix::process::Pid> {
    let needle = dir.to_str().unwrap().as_bytes();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(needle.len()).any(|window| window == needle)
    };
    pids.filter(ours).filter_map(rustix::process::Pid::from_raw).collect()
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn process(script: &str) -> serde_json::Value {
    serde_json::json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

pub fn spec(script: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
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
    pub async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(LIMIT, self.events.next()).await;
            topics.push(next.expect("an event").unwrap().topic.clone());
        }
        topics
    }
}
