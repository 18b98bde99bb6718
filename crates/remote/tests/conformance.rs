//! The stores of a real daemon, seen through this crate, do what any store must: the shared conformance suites.
//!
//! The daemon is the program that `CONTAINERD_BIN` names, one of ours; without it the tests say so and pass.
//! They need root, as snapshots are mounted. Everything is in a private directory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use remote::{Connection, RemoteSnapshotter, RemoteStore};
use snapshots::testsuite::Bench;
use types::Scope;

/// A daemon of our own, which goes with the value.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Option<Self> {
        let Some(binary) = std::env::var_os("CONTAINERD_BIN").map(PathBuf::from) else {
            eprintln!("SKIPPED: CONTAINERD_BIN names no daemon to run the conformance suites against");
            return None;
        };
        // Not on a tmpfs, where overlayfs would lack extended attributes; short, as socket paths are.
        let dir = tempfile::Builder::new().prefix("remote-").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images', \
                      'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']\n";
        std::fs::write(path("config.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new(binary)
            .args(["--config".into(), path("config.toml"), "--root".into(), path("root")])
            .args(["--state".into(), path("state"), "--address".into(), path("sock")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(daemon.dir.path().join("sock")).is_err() {
            let log = || std::fs::read_to_string(daemon.dir.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "the daemon does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(daemon)
    }

    fn connection(&self) -> Connection {
        let scope = Scope::new("conformance".parse().unwrap());
        Connection::open(self.dir.path().join("sock"), scope).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_over_grpc_is_a_content_store() {
    let Some(daemon) = Daemon::start() else { return };
    let store = RemoteStore::new(&daemon.connection());
    content::testsuite::all(&store, content::testsuite::Features { labels: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_over_grpc_are_a_snapshotter() {
    let Some(bench) = Bench::new() else { return };
    let Some(daemon) = Daemon::start() else { return };
    for name in ["overlayfs", "native"] {
        eprintln!("== {name}");
        let snapshotter = RemoteSnapshotter::new(&daemon.connection(), name);
        let rename_lower_directories = name == "native";
        let features = snapshots::testsuite::Features { rename_lower_directories };
        snapshots::testsuite::all(&snapshotter, &bench, features).await;
    }
}
