//! Output that nobody takes at the moment, on disk: what was written and not delivered yet, in order.
//!
//! ```text
//!  <bundle>/work/spool/<process>.<stream>      a queue of bytes in a file
//!      0 ........ head ................ tail
//!      (a hole)   not delivered yet     the end
//! ```
//!
//! The file lies below the daemon's root, which is on disk, never in the bundle, which is memory. It is bounded: beyond
//! the bounds bytes are counted instead of kept, and a line tells how many, where they would have been. The counters are
//! in a file in memory that the shim and its forks share, so that one fork goes on where another ended.
//!
//! Only forks (`carrier`) come here: a disk may hang.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use types::Result;
use types::output;

use crate::offload::memory_file;

/// Delivered bytes are given back to the disk in pieces of this size.
const PIECE: u64 = 1 << 20;
/// After so many bytes it is looked again how much other spools hold.
const LOOK: u64 = 16 << 20;

/// How much output may wait on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one container, in bytes; 0 lets the container wait instead.
    pub container: u64,
    /// For all of them.
    pub total: Total,
}

/// A bound for all containers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// A part of the disk, in percent.
    Percent(u64),
    /// So many bytes.
    Bytes(u64),
}

/// The bound for a container, in bytes (`1GiB`); 0 is "no spool".
pub const LIMIT_VARIABLE: &str = "CONTAINERD_SHIM_SPOOL_LIMIT";
/// The bound for all, in bytes or as a part of the disk (`10%`).
pub const TOTAL_VARIABLE: &str = "CONTAINERD_SHIM_SPOOL_TOTAL";

impl Default for Limits {
    fn default() -> Self {
        Self { container: 1 << 30, total: Total::Percent(10) }
    }
}

impl Limits {
    /// What the daemon says in our environment; what cannot be read is as if it were not there.
    pub fn from_environment() -> Self {
        let value = |name| std::env::var(name).unwrap_or_default();
        Self::read(&value(LIMIT_VARIABLE), &value(TOTAL_VARIABLE))
    }

    fn read(container: &str, total: &str) -> Self {
        let default = Self::default();
        let percent =
            total.trim().strip_suffix('%').and_then(|p| p.trim().parse().ok()).filter(|p| *p <= 100);
        Self {
            container: output::size(container).unwrap_or(default.container),
            total: percent
                .map(Total::Percent)
                .or(output::size(total).map(Total::Bytes))
                .unwrap_or(default.total),
        }
    }
}

/// A spool as the shim knows it: where it is, and its counters.
#[derive(Debug)]
pub struct Spool {
    /// Its file.
    pub path: PathBuf,
    /// Its counters, in memory.
    pub memo: OwnedFd,
}

impl Spool {
    /// An empty one, which makes no file yet.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), memo: memory_file("shim-spool")?.into() })
    }
}

/// The counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Delivered up to here.
    pub head: u64,
    /// Written up to here.
    pub tail: u64,
    /// Bytes that found no room behind the tail, and are not told of yet.
    pub lost: u64,
}

impl Counters {
    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.head, self.tail, self.lost]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; 24]) -> Self {
        let number =
            |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        Self { head: number(0), tail: number(8), lost: number(16) }
    }
}

/// A spool that is worked on.
pub struct Queue {
    file: File,
    path: PathBuf,
    memo: File,
    counters: Counters,
    limits: Limits,
    /// What other spools hold, and where the tail was when that was looked up.
    others: Others,
    /// The disk has the bytes back up to here.
    freed: u64,
}

#[derive(Default)]
struct Others {
    of_container: u64,
    of_all: u64,
    bound_of_all: u64,
    looked_at: Option<u64>,
}

/// What became of bytes for the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They are in it.
    Yes,
    /// There is no room.
    NoRoom,
}

impl Queue {
    /// Opens `spool`, or makes it.
    pub fn open(spool: &Spool, limits: Limits) -> io::Result<Self> {
        let memo = File::from(spool.memo.try_clone()?);
        let mut bytes = [0; 24];
        let counters = match memo.read_exact_at(&mut bytes, 0) {
            Ok(()) => Counters::decode(&bytes),
            Err(_) => Counters::default(),
        };
        if let Some(dir) = spool.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = file.open(&spool.path)?;
        let freed = counters.head;
        Ok(Self { file, path: spool.path.clone(), memo, counters, limits, others: Others::default(), freed })
    }

    /// Whether nothing is left to be delivered.
    pub fn is_empty(&self) -> bool {
        self.counters.head == self.counters.tail && self.counters.lost == 0
    }

    /// Whether bytes wait for somebody who takes them.
    pub fn has_bytes(&self) -> bool {
        self.counters.head < self.counters.tail
    }

    /// Whether bytes were lost that are not told of yet.
    pub fn has_lost(&self) -> bool {
        self.counters.lost > 0
    }

    /// Whether `more` bytes would be kept.
    pub fn has_room(&mut self, more: usize) -> bool {
        let held = self.counters.tail - self.freed + more as u64;
        let stale =
            self.others.looked_at.is_none_or(|at| self.counters.tail - at.min(self.counters.tail) >= LOOK);
        if stale {
            self.look_around();
        }
        held + self.others.of_container <= self.limits.container
            && held + self.others.of_all <= self.others.bound_of_all
    }

    /// Keeps bytes behind the tail, after telling of what was lost before them.
    pub fn push(&mut self, bytes: &[u8]) -> Kept {
        // The mark may exceed the bound a little: nobody else would tell of what is gone.
        if !self.has_room(bytes.len()) || self.has_lost() && self.tell_lost().is_err() {
            return Kept::NoRoom;
        }
        // A full disk is a bound like another.
        if self.append(bytes).is_ok() { Kept::Yes } else { Kept::NoRoom }
    }

    /// Counts bytes that are thrown away.
    pub fn lose(&mut self, bytes: usize) {
        self.counters.lost += bytes as u64;
        self.remember();
    }

    /// Writes the line about what was lost behind the tail.
    pub fn tell_lost(&mut self) -> io::Result<()> {
        let mut last = [b'\n'];
        if self.has_bytes() {
            self.file.read_exact_at(&mut last, self.counters.tail - 1)?;
        }
        let begin = if last == [b'\n'] { "" } else { "\n" };
        self.append(format!("{begin}{}", self.mark()).as_bytes())?;
        self.counters.lost = 0;
        self.remember();
        Ok(())
    }

    /// The line about what was lost, for who delivers it himself.
    pub fn take_mark(&mut self) -> Vec<u8> {
        let line = self.mark();
        self.counters.lost = 0;
        self.remember();
        line.into_bytes()
    }

    fn mark(&self) -> String {
        format!("{}\n", output::lost_mark(self.counters.lost))
    }

    /// The next bytes to be delivered.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = usize::try_from(self.counters.tail - self.counters.head).unwrap_or(usize::MAX);
        let most = waiting.min(buffer.len());
        self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.counters.head)
    }

    /// So many of them were taken.
    pub fn taken(&mut self, bytes: usize) {
        self.counters.head += bytes as u64;
        if self.counters.head == self.counters.tail {
            // What cannot be cut off is overwritten.
            let _ = self.file.set_len(0);
            (self.counters.head, self.counters.tail, self.freed) = (0, 0, 0);
            self.others.looked_at = None;
        }
        self.remember();
        let whole = self.counters.head / PIECE * PIECE;
        if whole > self.freed {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A filesystem without holes keeps the bytes until all are delivered.
            if fallocate(&self.file, hole, self.freed, whole - self.freed).is_ok() {
                self.freed = whole;
            }
        }
    }

    /// Removes the file of an empty spool.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.counters.tail)?;
        self.counters.tail += bytes.len() as u64;
        self.remember();
        Ok(())
    }

    fn remember(&self) {
        // Memory that we hold already; without room for it the fork after us would begin with an older count.
        let _ = self.memo.write_all_at(&self.counters.encode(), 0);
    }

    /// Looks up what other spools hold: `<root>/<namespace>/<container>/spool/<file>`.
    fn look_around(&mut self) {
        let own = self.file.metadata().map(|m| m.ino()).unwrap_or(0);
        let directory = self.path.parent().and_then(|p| p.canonicalize().ok()).unwrap_or_default();
        let top = directory.ancestors().nth(3).unwrap_or(&directory);
        let all: u64 = entries(top)
            .flat_map(|namespace| entries(&namespace).collect::<Vec<_>>())
            .map(|container| held(&container.join("spool"), own))
            .sum();
        self.others = Others {
            of_container: held(&directory, own),
            of_all: all,
            bound_of_all: match self.limits.total {
                Total::Bytes(bytes) => bytes,
                Total::Percent(percent) => disk(&self.file) / 100 * percent,
            },
            looked_at: Some(self.counters.tail),
        };
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// What the files in a directory take of the disk, but for the one with this number.
fn held(directory: &Path, but: u64) -> u64 {
    let metadata = entries(directory).filter_map(|path| path.symlink_metadata().ok());
    metadata.filter(|m| m.ino() != but).map(|m| m.blocks() * 512).sum()
}

fn disk(file: impl AsFd) -> u64 {
    rustix::fs::fstatvfs(file).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(container: u64) -> Limits {
        Limits { container, total: Total::Percent(100) }
    }

    fn spool(dir: &tempfile::TempDir) -> Spool {
        Spool::new(&dir.path().join("ns/c1/spool/init.stdout")).unwrap()
    }

    fn deliver(queue: &mut Queue) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        while queue.has_bytes() {
            let n = queue.peek(&mut buffer).unwrap();
            all.extend_from_slice(&buffer[..n]);
            queue.taken(n);
        }
        all
    }

    #[test]
    fn bytes_come_back_in_order_and_the_next_fork_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(&dir);
        let mut queue = Queue::open(&spool, limits(1 << 20)).unwrap();
        assert_eq!(queue.push(b"one "), Kept::Yes);
        assert_eq!(queue.push(b"two "), Kept::Yes);
        queue.taken(4);
        drop(queue);
        let mut queue = Queue::open(&spool, limits(1 << 20)).unwrap();
        assert_eq!(queue.push(b"three"), Kept::Yes);
        assert_eq!(deliver(&mut queue), b"two three");
        assert!(queue.is_empty());
        queue.remove();
        assert!(!spool.path.exists());
    }

    #[test]
    fn beyond_the_bound_bytes_are_counted_and_a_line_stands_in_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(&dir);
        let mut queue = Queue::open(&spool, limits(10)).unwrap();
        assert_eq!(queue.push(b"12345678"), Kept::Yes);
        for _ in 0..2 {
            assert_eq!(queue.push(b"abc"), Kept::NoRoom);
            queue.lose(3);
        }
        drop(queue);
        let mut queue = Queue::open(&spool, limits(10)).unwrap();
        assert!(!queue.is_empty());
        queue.tell_lost().unwrap();
        let text = String::from_utf8(deliver(&mut queue)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], output::parse_lost_mark(lines[1])), ("12345678", Some(6)));
        assert_eq!(queue.push(b"again"), Kept::Yes);
        assert_eq!(deliver(&mut queue), b"again");
    }

    #[test]
    fn a_large_backlog_gives_the_disk_back_as_it_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(&dir);
        let mut queue = Queue::open(&spool, limits(1 << 30)).unwrap();
        let piece = vec![7; 1 << 20];
        for _ in 0..8 {
            assert_eq!(queue.push(&piece), Kept::Yes);
        }
        for _ in 0..6 {
            queue.taken(1 << 20);
        }
        let blocks = std::fs::metadata(&spool.path).unwrap().blocks() * 512;
        assert!(blocks <= 3 << 20 || queue.freed == 0, "{blocks}");
        assert_eq!(deliver(&mut queue).len(), 2 << 20);
    }

    #[test]
    fn the_bound_is_for_all_streams_of_a_container_and_for_all_containers() {
        let dir = tempfile::tempdir().unwrap();
        let first = spool(&dir);
        let second = Spool::new(&dir.path().join("ns/c1/spool/init.stderr")).unwrap();
        let third = Spool::new(&dir.path().join("ns2/c2/spool/init.stdout")).unwrap();
        let mut queue = Queue::open(&first, limits(100_000)).unwrap();
        assert_eq!(queue.push(&[0; 80_000]), Kept::Yes);
        assert_eq!(Queue::open(&second, limits(100_000)).unwrap().push(&[0; 50_000]), Kept::NoRoom);
        assert_eq!(Queue::open(&third, limits(100_000)).unwrap().push(&[0; 50_000]), Kept::Yes);
        let all = Limits { container: 100_000, total: Total::Bytes(100_000) };
        assert_eq!(Queue::open(&third, all).unwrap().push(&[0; 30_000]), Kept::NoRoom);
    }

    #[test]
    fn limits_are_read_from_words_and_nonsense_changes_nothing() {
        assert_eq!(Limits::read("", ""), Limits::default());
        assert_eq!(Limits::read("x", "200%"), Limits::default());
        assert_eq!(Limits::read("0", "5 %"), Limits { container: 0, total: Total::Percent(5) });
        assert_eq!(Limits::read("1m", "2g"), Limits { container: 1 << 20, total: Total::Bytes(2 << 30) });
    }
}
