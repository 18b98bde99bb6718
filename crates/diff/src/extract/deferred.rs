//! Times of directories: adding an entry changes them, so they are set last.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use types::{Error, Result};

use super::Stop;

/// All records together have at most this many bytes: about a million directories.
const LIMIT: usize = 64 << 20;

/// Paths and times, packed one after another as a layer may have very many.
#[derive(Default)]
pub(super) struct Deferred {
    records: Vec<u8>,
}

const FIXED: usize = 4 + 4 * 8;

impl Deferred {
    pub(super) fn push(&mut self, path: &[u8], times: &Timestamps) -> Result<()> {
        let length = u32::try_from(path.len()).map_err(|_| Error::invalid("path too long"))?;
        if self.records.len() + path.len() + FIXED > LIMIT {
            return Err(Error::exhausted("the layer has too many directories"));
        }
        self.records.extend_from_slice(&length.to_ne_bytes());
        for spec in [&times.last_access, &times.last_modification] {
            self.records.extend_from_slice(&spec.tv_sec.to_ne_bytes());
            self.records.extend_from_slice(&spec.tv_nsec.to_ne_bytes());
        }
        self.records.extend_from_slice(path);
        Ok(())
    }

    /// Sets them in the order they came; what is no directory any more is left alone.
    pub(super) fn set_times(&self, root: BorrowedFd<'_>) -> Result<(), Stop> {
        let mut rest = &self.records[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let number = |at: usize| {
                after
                    .get(at * 8..at * 8 + 8)
                    .and_then(|b| b.first_chunk())
                    .map_or(0, |b| i64::from_ne_bytes(*b))
            };
            let spec = |at| Timespec { tv_sec: number(at), tv_nsec: number(at + 1) };
            let times = Timestamps { last_access: spec(0), last_modification: spec(2) };
            let (path, next) = after[FIXED - 4..].split_at(u32::from_ne_bytes(*length) as usize);
            set(root, path, &times)?;
            rest = next;
        }
        Ok(())
    }
}

fn set(root: BorrowedFd<'_>, path: &[u8], times: &Timestamps) -> Result<(), Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match sys::fs::openat2(root, Path::new(OsStr::from_bytes(path)), flags, resolve) {
        Ok(dir) => Ok(rustix::fs::futimens(&dir, times)?),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
