//! A daemon of its own for each test: private root, state and sockets, killed when the test is over.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The directories of a daemon; they outlive it, so that another one can be started on them.
pub struct Home {
    dir: TempDir,
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    address: PathBuf,
}

/// The daemon's binary, to be run with arguments.
pub fn containerd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_containerd"));
    command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

/// Runs the daemon's binary to its end.
pub fn run(args: &[&str]) -> Output {
    containerd().args(args).output().unwrap()
}

/// Configuration of a daemon that collects nothing unless it is asked to: for tests that leave things lying about.
pub const KEEP: &str = "[plugins.'io.containerd.gc.v1.scheduler']\nstartup_delay = '1h'\nmutation_threshold = 0\n\
                        pause_threshold = 0.00001\n";

impl Home {
    pub fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        home.configure("");
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a configuration of version 4 with `more` behind the private paths.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "version = 4\nroot = {:?}\nstate = {:?}\n[plugins.'io.containerd.server.v1.grpc']\naddress = {:?}\n{more}",
            self.path("root"),
            self.path("state"),
            self.path("s"),
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = containerd();
        command.arg("-c").arg(self.path("config.toml"));
        command
    }

    /// Starts a daemon and waits until it answers.
    pub async fn start(&self) -> Daemon {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.launch(self.command().args(["-l", "debug"]).stderr(log)).await
    }

    /// Starts a daemon by `command` and waits until it answers.
    pub async fn launch(&self, command: &mut Command) -> Daemon {
        let child = command.spawn().unwrap();
        let mut daemon = Daemon { child, address: self.path("s") };
        let begun = Instant::now();
        while UnixStream::connect(&daemon.address).await.is_err() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "no answer:\n{}", log());
            assert!(daemon.child.try_wait().unwrap().is_none(), "died:\n{}", log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        daemon
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }
}

impl Daemon {
    pub async fn channel(&self) -> Channel {
        let address = self.address.clone();
        let connect = move |_| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        };
        Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(connect))
            .await
            .unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sets how many descriptors it may have open; those it has stay. Returns what it was.
    pub fn limit_descriptors(&self, limit: Option<u64>) -> Option<u64> {
        // It inherited ours.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let new = Rlimit { current: limit, maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, new).unwrap().current
    }

    /// Waits until it is gone.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still running");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn address(&self) -> &Path {
        &self.address
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request in the namespace `test`.
pub fn request<T>(message: T) -> Request<T> {
    in_namespace("test", message)
}

pub fn in_namespace<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
    request
}
