//! What a process said last: out of what there is of it anyway. Nothing is read that somebody else still has to get.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

use crate::json::Object;

/// So many bytes of a stream are kept.
pub const KEPT: usize = 64 << 10;
/// As many as a pipe holds.
const PIPE: usize = 64 << 10;
/// How long a carrier may take to put away what was said last, and how often that is looked at.
const CARRIED: Duration = Duration::from_millis(200);
const STEP: Duration = Duration::from_millis(10);
/// At so many looks one after another nothing must have moved.
const QUIET: u32 = 3;

/// Where the last of a stream is.
pub struct Tail<'a> {
    /// Which stream.
    pub name: &'static str,
    /// Kept of what went through our memory.
    pub ring: Option<&'a Ring>,
    /// The log file, or the spool.
    pub file: Option<PathBuf>,
    /// The pipe that it comes from.
    pub pipe: Option<BorrowedFd<'a>>,
    /// Whether a fork moves it from the pipe to the file.
    pub carried: bool,
}

impl Tail<'_> {
    /// Of a stream that goes to a file.
    #[cfg(test)]
    pub fn file(name: &'static str, path: &Path) -> Self {
        Self { name, ring: None, file: Some(path.to_owned()), pipe: None, carried: false }
    }

    fn bytes(&self) -> Vec<u8> {
        if self.carried {
            self.settle();
        }
        let mut bytes = self.ring.map(Ring::bytes).unwrap_or_default();
        bytes.extend(self.file.iter().flat_map(|path| last_of(path)));
        bytes.extend(self.pipe.map(waiting).unwrap_or_default());
        let excess = bytes.len().saturating_sub(KEPT);
        bytes.drain(..excess);
        bytes
    }

    /// Waits until there is nothing in the pipe that would be in the file in a moment, and nothing on its way either: the file
    /// has not grown for a while.
    fn settle(&self) {
        let until = Instant::now() + CARRIED;
        let (mut quiet, mut before) = (0, self.length());
        while quiet < QUIET && Instant::now() < until {
            std::thread::sleep(STEP);
            let full = self.pipe.is_some_and(|pipe| !waiting(pipe).is_empty());
            let now = self.length();
            quiet = if full || now != before { 0 } else { quiet + 1 };
            before = now;
        }
    }

    fn length(&self) -> u64 {
        self.file.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |about| about.len())
    }
}

/// The streams that said something, as JSON.
pub fn texts(tails: &[Tail<'_>]) -> Vec<String> {
    let told = |tail: &Tail<'_>| {
        let bytes = tail.bytes();
        if bytes.is_empty() {
            return None;
        }
        let mut object = Object::new();
        object.text("from", tail.name);
        object.text("text", &String::from_utf8_lossy(&bytes));
        Some(object.finish())
    };
    tails.iter().filter_map(told).collect()
}

fn last_of(path: &Path) -> Vec<u8> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(KEPT as u64)))?;
        let mut bytes = Vec::new();
        file.take(KEPT as u64).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    // What cannot be read cannot be told.
    read().unwrap_or_default()
}

/// What waits in a pipe, which keeps it. What is no pipe has nothing that could be looked at.
fn waiting(pipe: BorrowedFd<'_>) -> Vec<u8> {
    let copy = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        tee(pipe, &writer, PIPE, SpliceFlags::NONBLOCK)?;
        drop(writer);
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    copy().unwrap_or_default()
}

/// The last bytes that went through our memory, in a file that costs us no memory of our own.
#[derive(Debug, Default)]
pub struct Ring {
    file: Option<File>,
    /// How many bytes have been written in all.
    written: u64,
}

impl Ring {
    /// Keeps `bytes`. If that fails, there is less to tell one day.
    pub fn keep(&mut self, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        if self.file.is_none() {
            self.file = crate::offload::memory_file("shim-output").ok();
        }
        let Some(file) = &self.file else { return };
        let mut rest = bytes.get(bytes.len().saturating_sub(KEPT)..).unwrap_or_default();
        while !rest.is_empty() {
            let place = self.written % KEPT as u64;
            let room = usize::try_from(KEPT as u64 - place).unwrap_or(0).min(rest.len());
            let (now, later) = rest.split_at(room);
            if file.write_all_at(now, place).is_err() {
                return;
            }
            self.written += now.len() as u64;
            rest = later;
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// For another program of this process.
    pub fn parts(&self) -> (Option<&File>, u64) {
        (self.file.as_ref(), self.written)
    }

    /// The same, back.
    pub fn of(file: Option<File>, written: u64) -> Self {
        Self { file, written }
    }

    fn bytes(&self) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let (Some(file), kept) = (&self.file, KEPT as u64) else { return Vec::new() };
        let mut bytes = vec![0; usize::try_from(self.written.min(kept)).unwrap_or(0)];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return Vec::new();
        }
        if self.written > kept {
            bytes.rotate_left(usize::try_from(self.written % kept).unwrap_or(0));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_ring_keeps_the_last_bytes_in_order() {
        let mut ring = Ring::default();
        assert!(ring.bytes().is_empty());
        ring.keep(b"abc");
        assert_eq!(ring.bytes(), b"abc");
        let mut all = b"abc".to_vec();
        for n in 0..100u32 {
            let piece = vec![n as u8; 1000];
            ring.keep(&piece);
            all.extend(piece);
        }
        assert_eq!(ring.bytes(), &all[all.len() - KEPT..]);
        ring.keep(&vec![9; KEPT * 2]);
        assert_eq!(ring.bytes(), vec![9; KEPT]);
    }

    #[test]
    fn what_waits_in_a_pipe_is_told_and_stays_there() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&writer, b"unread").unwrap();
        assert_eq!(waiting(reader.as_fd()), b"unread");
        drop(writer);
        assert_eq!(std::io::read_to_string(File::from(reader)).unwrap(), "unread");
    }

    #[test]
    fn only_the_last_of_a_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [vec![b'x'; KEPT * 2], b"end".to_vec()].concat()).unwrap();
        let tail = Tail::file("stdout", &path).bytes();
        assert_eq!(tail.len(), KEPT);
        assert!(tail.ends_with(b"xend"));
        assert!(Tail::file("stdout", Path::new("/nonexistent")).bytes().is_empty());
    }
}
