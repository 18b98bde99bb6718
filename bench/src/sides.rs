//! The two daemons that are compared, each with the same image.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use containerd_tests::Daemon;
use containerd_tests::binaries::{Binaries, Suite};

/// Where the programs of both are.
#[derive(Debug, Default)]
pub struct Programs {
    /// This project's.
    pub ours: PathBuf,
    /// The other's.
    pub peer: PathBuf,
}

/// This project's daemon and another, both running.
pub struct Sides {
    /// This project's.
    pub ours: Daemon,
    /// The other.
    pub peer: Daemon,
}

impl Sides {
    /// Starts both and imports the image into both.
    pub fn start(programs: &Programs) -> Self {
        let sides = Self {
            ours: Daemon::start_of(binaries(&programs.ours), Suite::Ours),
            peer: Daemon::start_of(binaries(&programs.peer), Suite::Upstream),
        };
        sides.ours.image();
        sides.peer.image();
        sides
    }
}

/// The programs in a directory.
pub fn binaries(dir: &Path) -> Binaries {
    Binaries { daemon: dir.join("containerd"), ctr: dir.join("ctr"), shim_dir: dir.to_path_buf() }
}

/// How long a client's command takes, from its start to its end, in milliseconds. The harness's own waiting polls, so
/// this does not use it.
pub fn time(daemon: &Daemon, arguments: &[&str]) -> Result<f64> {
    time_of(daemon, daemon.ctr_binary(), arguments)
}

/// As [`time`], with another client than the daemon's own.
pub fn time_of(daemon: &Daemon, ctr: &Path, arguments: &[&str]) -> Result<f64> {
    let mut command = quiet(daemon.client(ctr, arguments));
    let started = Instant::now();
    let status = command.status().context("run ctr")?;
    let took = started.elapsed();
    ensure!(status.success(), "ctr {arguments:?}: {status}");
    Ok(milliseconds(took))
}

/// A client's command with no input and no output.
pub fn client(daemon: &Daemon, arguments: &[&str]) -> Command {
    quiet(daemon.client(daemon.ctr_binary(), arguments))
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A duration as the rows give it.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
