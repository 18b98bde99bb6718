//! FIFOs between the shim and us. Their names are gone once the shim has opened them: nothing is left of them, whoever dies.

use std::fs::{DirBuilder, remove_file};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::pipe::fcntl_setpipe_size;
use tokio::net::unix::pipe::{Receiver, Sender};
use types::{Result, ResultExt};

use super::{Ends, Process, Sink, Stdio};

/// How much a process may be ahead of its client, or the other way round.
const SIZE: usize = 256 << 10;

/// A FIFO's name, which is gone when this is dropped.
#[derive(Debug)]
struct Named(PathBuf);

impl Drop for Named {
    fn drop(&mut self) {
        // It lies in the container's own directory, which goes with it.
        drop(remove_file(&self.0));
    }
}

/// One that we read.
#[derive(Debug)]
struct Output {
    name: Named,
    reader: Receiver,
    /// Until the shim has opened it: without a writer it would be at its end.
    keeper: OwnedFd,
}

/// FIFOs of a process that is not started yet.
#[derive(Debug)]
pub struct Pipes {
    stdin: Option<(Named, Sender)>,
    stdout: Option<Output>,
    stderr: Option<Output>,
}

/// Our ends of them.
#[derive(Debug)]
pub struct Opened {
    /// What we write.
    pub stdin: Option<Sender>,
    /// What we read.
    pub stdout: Option<Receiver>,
    /// The same.
    pub stderr: Option<Receiver>,
}

impl Pipes {
    /// Makes those that are needed in `dir`.
    pub fn make(dir: &Path, exec: &str, process: &Process, ends: &Ends) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o711).create(dir);
        made.context(|| format!("make directory {}", dir.display()))?;
        let name = |stream: &str| dir.join(format!("{exec}-{stream}"));
        // A terminal must be read, or the process would wait for it some day.
        let stdout = process.terminal || !matches!(ends.stdout, Sink::Nowhere);
        let stderr = !process.terminal && !matches!(ends.stderr, Sink::Nowhere);
        Ok(Self {
            stdin: ends.stdin.as_ref().map(|_| input(name("stdin"))).transpose()?,
            stdout: stdout.then(|| output(name("stdout"))).transpose()?,
            stderr: stderr.then(|| output(name("stderr"))).transpose()?,
        })
    }

    /// As the shim is told.
    pub fn stdio(&self, terminal: bool) -> Stdio {
        let text = |name: &Named| name.0.to_string_lossy().into_owned();
        let output = |output: &Option<Output>| output.as_ref().map(|it| text(&it.name)).unwrap_or_default();
        Stdio {
            stdin: self.stdin.as_ref().map(|(name, _)| text(name)).unwrap_or_default(),
            stdout: output(&self.stdout),
            stderr: output(&self.stderr),
            terminal,
        }
    }

    /// The shim has opened its ends.
    pub fn started(self) -> Opened {
        let reader = |Output { name, reader, keeper }| {
            drop((name, keeper));
            reader
        };
        Opened {
            stdin: self.stdin.map(|(_, sender)| sender),
            stdout: self.stdout.map(reader),
            stderr: self.stderr.map(reader),
        }
    }
}

fn make(path: PathBuf) -> Result<Named> {
    sys::fifo::make(&path, 0o700).context(|| format!("make FIFO {}", path.display()))?;
    Ok(Named(path))
}

fn input(path: PathBuf) -> Result<(Named, Sender)> {
    let name = make(path)?;
    let writer = sys::fifo::open_writer(&name.0).context(|| format!("open FIFO {}", name.0.display()))?;
    enlarge(&writer);
    Ok((name, Sender::from_owned_fd(writer)?))
}

fn output(path: PathBuf) -> Result<Output> {
    let name = make(path)?;
    let opened = sys::fifo::open_reader(&name.0).context(|| format!("open FIFO {}", name.0.display()));
    let (reader, keeper) = opened?;
    enlarge(&reader);
    Ok(Output { name, reader: Receiver::from_owned_fd(reader)?, keeper })
}

fn enlarge(fifo: &OwnedFd) {
    // A smaller one does as well.
    let _ = fcntl_setpipe_size(fifo, SIZE);
}
