//! A process's streams: FIFOs between it and this program, or what stands in their place.
//!
//! ```text
//!  new        makes <dir>/<random>/<id>-{stdin,stdout,stderr}, opens those for reading
//!  (the daemon creates the process: the shim opens the other ends)
//!  copy       a thread per stream: they block on pipes and terminals so that calls to the daemon need not
//!  drained    the shim has closed its ends and everything was written
//!  drop       the directory goes; `keep` leaves it to the process's next client
//! ```

mod copy;
pub mod terminal;

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::sync::{Notify, oneshot};
use types::task::Stdio;
use types::{Result, ResultExt};

use crate::go;
use terminal::Console;

/// Where FIFOs are made unless told otherwise.
const DIRECTORY: &str = "/run/containerd/fifo";

/// What a new process's streams are connected with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Nothing.
    Null,
    /// A log of the shim's, by URI.
    Log(String),
    /// This program, by FIFOs below a directory (empty is the default one).
    Fifos { directory: String, terminal: bool },
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    Stdout,
    Stderr,
}

/// The streams of one process.
#[derive(Default)]
pub struct Streams {
    stdio: Stdio,
    directory: Option<Directory>,
    outputs: Vec<(OwnedFd, Sink)>,
    copying: Vec<oneshot::Receiver<()>>,
    broken: Arc<Notify>,
}

/// A directory of FIFOs that goes with its owner.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // It holds only our FIFOs; what cannot be removed is left to the next reboot, as it is below /run.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Streams {
    /// Makes what `wiring` needs for the process `id`.
    pub fn new(wiring: Wiring, id: &str) -> Result<Self> {
        let (directory, terminal) = match wiring {
            Wiring::Null => return Ok(Self::default()),
            Wiring::Log(uri) => {
                let stdio = Stdio { stdout: uri.clone(), stderr: uri, ..Default::default() };
                return Ok(Self { stdio, ..Default::default() });
            }
            Wiring::Fifos { directory, terminal } => (directory, terminal),
        };
        let parent = if directory.is_empty() { DIRECTORY } else { &directory };
        let directory = fresh_directory(Path::new(parent))?;
        // Whether it is an id at all is the daemon's to say, which has not been asked yet.
        let id = id.replace('/', "_");
        let make = |stream: &str| {
            let path = directory.0.join(format!("{id}-{stream}"));
            let made = sys::fifo::make(&path, 0o700);
            made.map_err(|e| go::path_error("mkfifo", &path, e))
                .context(|| format!("failed to open {stream} fifo"))?;
            Ok::<_, types::Error>(path.display().to_string())
        };
        let stdio = Stdio {
            stdin: make("stdin")?,
            stdout: make("stdout")?,
            stderr: if terminal { String::new() } else { make("stderr")? },
            terminal,
        };
        Ok(Self { directory: Some(directory), ..Self::attach(stdio)? })
    }

    /// Connects with the FIFOs of a process that exists; those that are no FIFOs are left alone.
    pub fn attach(stdio: Stdio) -> Result<Self> {
        let mut outputs = Vec::new();
        let stderr = if stdio.terminal { "" } else { &stdio.stderr };
        for (path, sink) in [(stdio.stdout.as_str(), Sink::Stdout), (stderr, Sink::Stderr)] {
            if is_fifo(path) {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = rustix::fs::open(path, flags, Mode::empty());
                outputs.push((opened.map_err(|errno| go::path_error("open", path, errno.into()))?, sink));
            }
        }
        Ok(Self { stdio, outputs, ..Default::default() })
    }

    /// What to tell the daemon.
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// Begins to copy, to and from the terminal if there is one. The answer comes when our own input has ended and
    /// all of it was written.
    pub fn copy(&mut self, console: Option<&Console>) -> Result<oneshot::Receiver<()>> {
        for (fifo, sink) in self.outputs.drain(..) {
            let to = match (console, sink) {
                (Some(console), _) => console.file()?,
                (None, Sink::Stdout) => duplicate(rustix::stdio::stdout())?,
                (None, Sink::Stderr) => duplicate(rustix::stdio::stderr())?,
            };
            self.copying.push(copy::output(fifo, to, Arc::clone(&self.broken))?);
        }
        let from = match console {
            Some(console) => console.file()?,
            None => duplicate(rustix::stdio::stdin())?,
        };
        let (told, ended) = oneshot::channel();
        if is_fifo(&self.stdio.stdin) {
            copy::input(from, PathBuf::from(&self.stdio.stdin), told)?;
        }
        Ok(ended)
    }

    /// Waits until nobody reads what we write any more. Cancel safe.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Waits until all output of a process that has ended was written.
    pub async fn drained(&mut self) {
        // Where no shim has opened the other end, and none will any more, nothing would ever tell of the end: being
        // a writer for a moment does. While the shim has its end this changes nothing.
        for path in [&self.stdio.stdout, &self.stdio.stderr] {
            if is_fifo(path) {
                sys::fifo::open_writer_if_read(Path::new(path)).ok();
            }
        }
        for copying in self.copying.drain(..) {
            // An error says that the thread is gone, which is what is waited for.
            copying.await.ok();
        }
    }

    /// Leaves the FIFOs to the process and its next client.
    pub fn keep(mut self) {
        if let Some(directory) = self.directory.take() {
            std::mem::forget(directory);
        }
    }
}

fn duplicate(file: impl std::os::fd::AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(file, 0).map_err(|errno| std::io::Error::from(errno).into())
}

fn is_fifo(path: &str) -> bool {
    !path.is_empty() && sys::fifo::is_fifo(Path::new(path)).unwrap_or(false)
}

/// Removes the FIFOs of a process that is gone, and their directory if nothing else is in it.
pub fn remove(stdio: &Stdio) {
    let mut directories = std::collections::BTreeSet::new();
    for path in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
        if is_fifo(path) {
            std::fs::remove_file(path).ok();
            directories.extend(Path::new(path).parent().map(Path::to_path_buf));
        }
    }
    for directory in directories {
        std::fs::remove_dir(directory).ok();
    }
}

fn fresh_directory(parent: &Path) -> Result<Directory> {
    let private = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder
    };
    private().recursive(true).create(parent).map_err(|e| go::path_error("mkdir", parent, e))?;
    loop {
        let path = parent.join(rand::random::<u32>().to_string());
        match private().create(&path) {
            Ok(()) => return Ok(Directory(path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(go::path_error("mkdir", path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn fifos(dir: &Path) -> Streams {
        let directory = dir.display().to_string();
        Streams::new(Wiring::Fifos { directory, terminal: false }, "c1").unwrap()
    }

    fn entries(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_directory_goes_with_the_streams_unless_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let streams = fifos(dir.path());
        assert!(streams.stdio().stdout.ends_with("/c1-stdout"));
        drop(streams);
        assert_eq!(entries(dir.path()), 0);
        let streams = fifos(dir.path());
        let stdio = streams.stdio().clone();
        streams.keep();
        assert_eq!(entries(dir.path()), 1);
        remove(&stdio);
        assert_eq!(entries(dir.path()), 0);
    }

    #[test]
    fn an_id_with_slashes_makes_no_file_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().display().to_string();
        drop(Streams::new(Wiring::Fifos { directory, terminal: false }, "../x").unwrap());
        assert_eq!(entries(dir.path()), 0);
    }

    #[test]
    fn a_terminal_has_no_stderr_and_null_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let wiring = Wiring::Fifos { directory: dir.path().display().to_string(), terminal: true };
        let streams = Streams::new(wiring, "c").unwrap();
        assert!(streams.stdio().terminal && streams.stdio().stderr.is_empty());
        assert_eq!(*Streams::new(Wiring::Null, "c").unwrap().stdio(), Stdio::default());
    }

    #[tokio::test]
    async fn a_process_that_ended_before_anybody_wrote_has_no_more_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut streams = fifos(dir.path());
        let sink = || std::fs::File::create(dir.path().join("out")).unwrap().into();
        for (fifo, _) in std::mem::take(&mut streams.outputs) {
            streams.copying.push(copy::output(fifo, sink(), Arc::default()).unwrap());
        }
        tokio::time::timeout(std::time::Duration::from_secs(10), streams.drained()).await.unwrap();
    }

    #[tokio::test]
    async fn everything_written_before_the_end_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let mut streams = fifos(dir.path());
        let path = streams.stdio().stdout.clone();
        let file = dir.path().join("out");
        let to = std::fs::File::create(&file).unwrap().into();
        let (fifo, _) = streams.outputs.remove(0);
        let copied = copy::output(fifo, to, Arc::default()).unwrap();
        // The thread waits: nobody has opened the other end yet.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut writer = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        writer.write_all(b"last words").unwrap();
        drop(writer);
        copied.await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"last words");
    }
}
