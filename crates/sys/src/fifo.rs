//! Named pipes as containerd's clients use them: either side may come late, leave, and come back.
//!
//! Nothing here blocks. A writer is opened through a moment of being a reader as well, since the kernel refuses to open a
//! FIFO for writing alone while nobody reads; from then on `EPIPE` means that nobody reads, and what was written and not
//! read stays in the pipe as long as we hold it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

const OPEN: OFlags = OFlags::NONBLOCK.union(OFlags::CLOEXEC);

/// Whether `path` is a FIFO.
pub fn is_fifo(path: &Path) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode) == FileType::Fifo)
}

/// Makes a FIFO.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?)
}

/// Opens for writing, whether or not somebody reads.
pub fn open_writer(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::open(path, OPEN | OFlags::WRONLY, Mode::empty()) {
        Err(Errno::NXIO) => {
            let both = rustix::fs::open(path, OPEN | OFlags::RDWR, Mode::empty())?;
            let writer = rustix::fs::open(path, OPEN | OFlags::WRONLY, Mode::empty())?;
            drop(both);
            Ok(writer)
        }
        other => Ok(other?),
    }
}

/// Opens for writing if somebody reads.
pub fn open_writer_if_read(path: &Path) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::open(path, OPEN | OFlags::WRONLY, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens for reading, and a writer of our own that keeps the end of file away until it is dropped.
pub fn open_reader(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let reader = rustix::fs::open(path, OPEN | OFlags::RDONLY, Mode::empty())?;
    let keeper = rustix::fs::open(path, OPEN | OFlags::WRONLY, Mode::empty())?;
    Ok((reader, keeper))
}

/// Whether anybody has the pipe behind `writer` open for reading.
pub fn is_read(writer: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&writer, PollFlags::OUT)];
    // With a timeout of zero an error can only mean that the kernel is out of memory: believe that somebody reads.
    let polled = poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_err() || !fds[0].revents().contains(PollFlags::ERR)
}

/// What a [`transfer`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes went over.
    Bytes(usize),
    /// The source is empty, or the sink is full.
    Nothing,
    /// The source is empty and nobody will write to it any more.
    End,
    /// Nobody reads the sink.
    Unread,
}

/// Moves up to `most` bytes between two pipes, without copying and without blocking.
pub fn transfer(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<Moved> {
    match splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
        Ok(0) => Ok(Moved::End),
        Ok(n) => Ok(Moved::Bytes(n)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Moved::Nothing),
        Err(Errno::PIPE) => Ok(Moved::Unread),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        make(&path, 0o600).unwrap();
        (dir, path)
    }

    #[test]
    fn what_nobody_reads_yet_is_kept_for_the_reader_that_comes_late() {
        let (_dir, path) = fifo();
        assert!(open_writer_if_read(&path).unwrap().is_none());
        let writer = open_writer(&path).unwrap();
        assert!(!is_read(&writer));
        let (source, end) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&end, b"early").unwrap();
        assert_eq!(transfer(&source, &writer, 100).unwrap(), Moved::Unread);
        let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert!(is_read(&writer));
        assert_eq!(transfer(&source, &writer, 100).unwrap(), Moved::Bytes(5));
        assert_eq!(transfer(&source, &writer, 100).unwrap(), Moved::Nothing);
        drop(end);
        assert_eq!(transfer(&source, &writer, 100).unwrap(), Moved::End);
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 5);
    }

    #[test]
    fn the_end_comes_only_after_our_own_writer_is_gone() {
        let (_dir, path) = fifo();
        let (reader, keeper) = open_reader(&path).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(rustix::io::read(&reader, &mut buffer), Err(Errno::AGAIN));
        drop(keeper);
        assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(0));
    }
}
