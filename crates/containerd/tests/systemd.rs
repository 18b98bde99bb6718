//! What systemd is told, and when: READY once the containers of before are found again, STOPPING before the end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use daemon::{Home, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;

/// A daemon whose systemd is this test.
struct Unit {
    child: Child,
    socket: UnixDatagram,
}

impl Unit {
    fn start(home: &Home) -> Self {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = home.command().env("NOTIFY_SOCKET", &path).spawn().unwrap();
        Self { child, socket }
    }

    fn told(&self) -> String {
        let mut message = [0; 256];
        let len = self.socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    }

    fn told_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        assert!(self.socket.recv(&mut [0; 256]).is_err(), "READY although a shim is still being looked for");
        self.socket.set_nonblocking(false).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a daemon before has left: a bundle whose shim accepts, and does not answer until it is dropped.
async fn silent_shim(home: &Home) -> UnixListener {
    // A state directory with tasks and without the mark of a daemon of ours is left alone.
    drop(home.start().await);
    let bundle = home.path("state/io.containerd.runtime.v2.task/test/c1");
    std::fs::create_dir_all(&bundle).unwrap();
    let socket = home.path("shim.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let bootstrap = format!(r#"{{"version":2,"address":"unix://{}","protocol":"ttrpc"}}"#, socket.display());
    std::fs::write(bundle.join("bootstrap.json"), bootstrap).unwrap();
    std::fs::write(bundle.join("shim-binary-path"), "/bin/false").unwrap();
    listener
}

/// The shim's end of the daemon's connection.
async fn answered(listener: UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0
}

async fn connected(path: &Path) {
    let begun = Instant::now();
    while UnixStream::connect(path).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ready_comes_when_the_shims_of_before_are_found_or_gone_and_calls_are_answered_meanwhile() {
    let home = Home::new();
    home.configure("[timeouts]\n'io.containerd.timeout.shim.load' = '20s'");
    let shim = silent_shim(&home).await;
    let mut unit = Unit::start(&home);
    connected(&home.path("s")).await;
    let connection = answered(shim).await;
    unit.told_nothing();
    drop(connection);
    assert_eq!(unit.told().trim(), "READY=1");
    unit.signal(Signal::TERM);
    assert_eq!(unit.told().trim(), "STOPPING=1");
    assert!(unit.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_shim_that_never_answers_does_not_keep_the_daemon_from_being_ready_or_from_ending() {
    let home = Home::new();
    home.configure("[timeouts]\n'io.containerd.timeout.shim.load' = '300ms'");
    let shim = silent_shim(&home).await;
    let mut unit = Unit::start(&home);
    let _connection = answered(shim).await;
    assert_eq!(unit.told().trim(), "READY=1");
    unit.signal(Signal::INT);
    assert_eq!(unit.told().trim(), "STOPPING=1");
    assert!(unit.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_daemon_that_is_stopped_before_it_is_ready_says_only_that() {
    let home = Home::new();
    home.configure("[timeouts]\n'io.containerd.timeout.shim.load' = '20s'");
    let shim = silent_shim(&home).await;
    let mut unit = Unit::start(&home);
    connected(&home.path("s")).await;
    let _connection = answered(shim).await;
    unit.signal(Signal::TERM);
    assert_eq!(unit.told().trim(), "STOPPING=1");
    assert!(unit.child.wait().unwrap().success());
}

#[test]
fn the_unit_has_upstreams_directives() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/containerd.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    for line in [
        "After=network.target dbus.service",
        "ExecStartPre=-/sbin/modprobe overlay",
        "ExecStart=/usr/local/bin/containerd",
        "Type=notify",
        "Delegate=yes",
        "KillMode=process",
        "Restart=always",
        "RestartSec=5",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        "TasksMax=infinity",
        "OOMScoreAdjust=-999",
        "WantedBy=multi-user.target",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}
