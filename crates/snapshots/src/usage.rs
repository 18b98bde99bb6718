//! What a directory tree occupies.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use types::snapshot::Usage;
use types::{Class, Error, Result, ResultExt};

/// How often the walk begins again because a directory was moved away under it.
const RESTARTS: u32 = 10;

/// A directory on the way down: who it is, and which of its directories are still to be visited.
struct Level {
    id: (u64, u64),
    left: Vec<CString>,
}

/// Inodes and blocks of `path` and everything below it; what has several names counts once.
///
/// One descriptor is open at a time, however deep a container makes its tree, and no link is followed.
pub(crate) fn of_tree(path: &Path) -> Result<Usage> {
    for _ in 0..RESTARTS {
        match walk(path) {
            Ok(usage) => return Ok(usage),
            Err(Errno::STALE) => {}
            Err(error) => return Err(io::Error::from(error)).context(|| format!("measure {path:?}")),
        }
    }
    Err(Error::new(Class::Unavailable, format!("measure {path:?}: its directories keep moving")))
}

fn walk(path: &Path) -> rustix::io::Result<Usage> {
    let mut count = Count::default();
    let mut here =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    count.add(&rustix::fs::fstat(&here)?);
    let mut levels = vec![enter(&here, &mut count)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            match open(&here, &name) {
                Ok(below) => {
                    here = below;
                    levels.push(enter(&here, &mut count)?);
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        levels.pop();
        if let Some(above) = levels.last() {
            here = open(&here, c"..")?;
            if id(&rustix::fs::fstat(&here)?) != above.id {
                return Err(Errno::STALE);
            }
        }
    }
    Ok(count.usage)
}

/// Counts the entries of a directory and notes its directories.
fn enter(dir: &OwnedFd, count: &mut Count) -> rustix::io::Result<Level> {
    let mut left = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        count.add(&stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            left.push(name.to_owned());
        }
    }
    Ok(Level { id: id(&rustix::fs::fstat(dir)?), left })
}

fn open(dir: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[derive(Default)]
struct Count {
    usage: Usage,
    /// Only what has several names is remembered.
    seen: HashSet<(u64, u64)>,
}

impl Count {
    fn add(&mut self, stat: &Stat) {
        let several = stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        if !several || self.seen.insert(id(stat)) {
            self.usage.inodes += 1;
            self.usage.size += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_inode_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/file"), vec![1; 8192]).unwrap();
        std::fs::hard_link(top.join("a/file"), top.join("a/b/again")).unwrap();
        std::os::unix::fs::symlink("/usr", top.join("link")).unwrap();
        let usage = of_tree(&top).unwrap();
        // top, a, b, file, link
        assert_eq!(usage.inodes, 5);
        assert!((8192..8192 + 5 * 4096).contains(&usage.size), "{usage:?}");
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_measured() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut here = sys::fs::open_dir(&top).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = open(&here, c"d").unwrap();
        }
        drop(here);
        assert_eq!(of_tree(&top).unwrap().inodes, 3001);
        sys::fs::remove_tree(&top).unwrap();
    }
}
