//! Threads that copy between FIFOs and this program's own streams.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::{Notify, oneshot};
use types::{Error, Result};

/// What a FIFO holds by default.
const CHUNK: usize = 64 * 1024;
/// How often a FIFO is tried that nobody reads yet.
const RETRY: Duration = Duration::from_millis(1);

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(256 * 1024).spawn(work);
    thread.map(drop).map_err(|e| Error::from(e).context(format!("start thread {name}")))
}

/// Copies a process's output; the answer comes when there will be no more. `broken` hears that whoever reads us went
/// away: closing the FIFO would tell the process nothing, as the shim keeps it open, so the rest is read for nobody.
pub fn output(fifo: OwnedFd, to: OwnedFd, broken: Arc<Notify>) -> Result<oneshot::Receiver<()>> {
    let (told, ended) = oneshot::channel();
    spawn("ctr-output", move || {
        let mut to = Some(File::from(to));
        let mut buffer = vec![0; CHUNK];
        while let Some(read) = next(&fifo, &mut buffer) {
            match to.as_mut().map_or(Ok(()), |to| to.write_all(&buffer[..read])) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    to = None;
                    broken.notify_one();
                }
                Err(_) => break,
            }
        }
        drop(fifo);
        told.send(()).ok();
    })?;
    Ok(ended)
}

/// The next bytes; `None` at the end. Before the first writer comes a read would say that this is the end, but poll
/// knows that it is the beginning.
fn next(fifo: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match poll(&mut [PollFd::new(fifo, PollFlags::IN)], None) {
            Err(Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        match rustix::io::read(fifo, &mut *buffer) {
            Ok(0) => return None,
            Ok(read) => return Some(read),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Copies our input to a process; `told` hears of its end.
pub fn input(from: OwnedFd, path: PathBuf, told: oneshot::Sender<()>) -> Result<()> {
    spawn("ctr-input", move || {
        let mut from = File::from(from);
        let Some(mut to) = open_when_read(&path) else { return };
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The process reads no more, or our input is broken.
                Ok(_) | Err(_) => break,
            }
        }
        drop(to);
        told.send(()).ok();
    })
}

/// Opens the FIFO once the shim has its end, which some open late; `None` when it is gone.
fn open_when_read(path: &Path) -> Option<File> {
    loop {
        match sys::fifo::open_writer_if_read(path) {
            Ok(Some(fifo)) => {
                // From here on blocking is what this thread is for.
                rustix::fs::fcntl_setfl(&fifo, OFlags::empty()).ok()?;
                return Some(File::from(fifo));
            }
            Ok(None) => std::thread::sleep(RETRY),
            Err(_) => return None,
        }
    }
}
