//! Copies of trees: blocks shared where the filesystem can, and everything else that makes files equal.
//!
//! Kept are owners, modes, times, hard links, holes, extended attributes, devices, FIFOs and sockets. Nothing is opened
//! but by one name relative to a directory descriptor, and two pairs of descriptors are enough for any depth.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

/// Copies what is in the directory `from`, and its own attributes, to the empty directory `to`.
pub(super) fn tree(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copy {from:?} to {to:?}");
    tree_at(sys::fs::open_dir(from)?, sys::fs::open_dir(to)?).context(doing)
}

/// As `tree`, of directories that are open, for reading.
pub fn tree_at(from: OwnedFd, to: OwnedFd) -> Result<()> {
    let mut copy = Copy { top: to.try_clone()?, linked: HashMap::new() };
    copy.all(Pair { from, to })
}

/// A directory and its copy.
struct Pair {
    from: OwnedFd,
    to: OwnedFd,
}

/// A directory on the way down.
struct Level {
    stat: Stat,
    /// Relative to the top, for hard links.
    path: Vec<u8>,
    left: Vec<CString>,
}

struct Copy {
    top: OwnedFd,
    /// Where files that have several names were copied to first.
    linked: HashMap<(u64, u64), CString>,
}

impl Copy {
    fn all(&mut self, mut here: Pair) -> Result<()> {
        let mut levels = vec![self.enter(&here, Vec::new())?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.left.pop() {
                let path = joined(&level.path, &name);
                rustix::fs::mkdirat(&here.to, &*name, Mode::RWXU).map_err(io::Error::from)?;
                here = Pair { from: open_dir(&here.from, &name)?, to: open_dir(&here.to, &name)? };
                levels.push(self.enter(&here, path)?);
                continue;
            }
            // Last, as every entry that is made changes the time of its directory.
            attributes(&here.from, &here.to, &level.stat)?;
            levels.pop();
            if let Some(above) = levels.last() {
                here = Pair { from: open_dir(&here.from, c"..")?, to: open_dir(&here.to, c"..")? };
                let back = rustix::fs::fstat(&here.from).map_err(io::Error::from)?;
                if (back.st_dev, back.st_ino) != (above.stat.st_dev, above.stat.st_ino) {
                    return Err(Error::unavailable("a directory was moved while it was being copied"));
                }
            }
        }
        Ok(())
    }

    /// Copies the entries of a directory that are not directories, and notes those that are.
    fn enter(&mut self, here: &Pair, path: Vec<u8>) -> Result<Level> {
        let stat = rustix::fs::fstat(&here.from).map_err(io::Error::from)?;
        let mut left = Vec::new();
        for entry in Dir::read_from(&here.from).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat =
                rustix::fs::statat(&here.from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                left.push(name.to_owned());
            } else {
                let path = joined(&path, name);
                self.entry(here, name, &stat, path).context(|| format!("copy {name:?}"))?;
            }
        }
        Ok(Level { stat, path, left })
    }

    fn entry(&mut self, here: &Pair, name: &CStr, stat: &Stat, path: Vec<u8>) -> Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                match rustix::fs::linkat(&self.top, &**first, &here.to, name, AtFlags::empty()) {
                    // Too many links, or too far away: a copy of its own.
                    Err(Errno::MLINK | Errno::NAMETOOLONG) => {}
                    result => return Ok(result.map_err(io::Error::from)?),
                }
            } else if let Ok(path) = CString::new(path) {
                self.linked.insert((stat.st_dev, stat.st_ino), path);
            }
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => file(here, name, stat),
            FileType::Symlink => link(here, name, stat),
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(&here.to, name, kind, mode, stat.st_rdev).map_err(io::Error::from)?;
                owner(here, name, stat)?;
                rustix::fs::chmodat(&here.to, name, mode, AtFlags::empty()).map_err(io::Error::from)?;
                dated(here, name, stat)
            }
        }
    }
}

fn file(here: &Pair, name: &CStr, stat: &Stat) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from =
        File::from(rustix::fs::openat(&here.from, name, flags, Mode::empty()).map_err(io::Error::from)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&here.to, name, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    let mut to = File::from(to);
    if stat.st_size > 0 && rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        data(&mut from, &mut to, u64::try_from(stat.st_size).unwrap_or(0))?;
    }
    attributes(&from, &to, stat)
}

/// Copies the parts of a file that have data; what is between them stays a hole.
fn data(from: &mut File, to: &mut File, size: u64) -> Result<()> {
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(&*from, rustix::fs::SeekFrom::Data(at)) {
            Ok(at) => at,
            Err(Errno::NXIO) => break,
            // Filesystems that do not know where their holes are.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let end = rustix::fs::seek(&*from, rustix::fs::SeekFrom::Hole(at)).unwrap_or(size);
        part(from, to, at, end.min(size).max(at))?;
        at = end.max(at + 1);
    }
    Ok(to.set_len(size)?)
}

fn part(from: &mut File, to: &mut File, mut at: u64, end: u64) -> Result<()> {
    while at < end {
        let (mut read, mut written) = (at, at);
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&*from, Some(&mut read), &*to, Some(&mut written), len) {
            // Shorter than it was.
            Ok(0) => return Ok(()),
            Ok(len) => at += len as u64,
            Err(Errno::INTR) => {}
            Err(_) => {
                from.seek(SeekFrom::Start(at))?;
                to.seek(SeekFrom::Start(at))?;
                io::copy(&mut Read::by_ref(from).take(end - at), to)?;
                return Ok(to.flush()?);
            }
        }
    }
    Ok(())
}

fn link(here: &Pair, name: &CStr, stat: &Stat) -> Result<()> {
    let target = rustix::fs::readlinkat(&here.from, name, Vec::new()).map_err(io::Error::from)?;
    rustix::fs::symlinkat(&*target, &here.to, name).map_err(io::Error::from)?;
    owner(here, name, stat)?;
    dated(here, name, stat)
}

/// Owner, mode, extended attributes and times of an open file or directory.
fn attributes(from: impl AsFd, to: impl AsFd, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&to, Some(uid), Some(gid)).map_err(io::Error::from)?;
    // Behind the owner, whose change takes set-user-id bits and capabilities away.
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(io::Error::from)?;
    if let Err(error) = sys::fs::copy_xattrs(&from, &to, |_| true) {
        // As upstream: security attributes mostly cannot be copied, and nothing depends on the rest.
        tracing::debug!(%error, "failed to copy extended attributes");
    }
    Ok(rustix::fs::futimens(&to, &times(stat)).map_err(io::Error::from)?)
}

fn owner(here: &Pair, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(&here.to, name, Some(uid), Some(gid), flags).map_err(io::Error::from)?)
}

fn dated(here: &Pair, name: &CStr, stat: &Stat) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(&here.to, name, &times(stat), flags).map_err(io::Error::from)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec.try_into().unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn open_dir(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(io::Error::from)
        .context(|| format!("open directory {name:?}"))
}

fn joined(dir: &[u8], name: &CStr) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn everything_that_makes_files_equal_is_copied() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.write_all_at(b"first", 0).unwrap();
        sparse.write_all_at(b"last", 64 << 20).unwrap();
        std::fs::write(from.join("a/one"), "two names").unwrap();
        std::fs::hard_link(from.join("a/one"), from.join("a/b/two")).unwrap();
        std::os::unix::fs::symlink("/no/where", from.join("link")).unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(from.join("a/one"), mode(0o4755)).unwrap();
        std::fs::set_permissions(from.join("a/b"), mode(0o1777)).unwrap();
        let attribute =
            rustix::fs::setxattr(from.join("a"), "user.test", b"x", rustix::fs::XattrFlags::empty());
        let root = rustix::process::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(from.join("a"), Some(7), Some(8)).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                from.join("null"),
                FileType::CharacterDevice,
                Mode::RUSR,
                0x103,
            )
            .unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::open(from.join("a")).unwrap().set_modified(UNIX_EPOCH + Duration::new(5, 6)).unwrap();

        tree(&from, &to).unwrap();
        let stat = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap();
        for path in ["", "a", "a/b", "a/one", "link", "sparse", "fifo"] {
            let was = std::fs::symlink_metadata(from.join(path)).unwrap();
            let is = stat(path);
            assert_eq!(
                (was.mode(), was.uid(), was.gid(), was.size()),
                (is.mode(), is.uid(), is.gid(), is.size()),
                "{path}"
            );
            assert_eq!(was.modified().unwrap(), is.modified().unwrap(), "{path}");
        }
        assert_eq!((stat("a/one").ino(), stat("a/one").nlink()), (stat("a/b/two").ino(), 2));
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/no/where"));
        assert!(stat("sparse").blocks() * 512 < 1 << 20, "holes stay holes");
        assert!(std::fs::read(from.join("sparse")).unwrap() == std::fs::read(to.join("sparse")).unwrap());
        if attribute.is_ok() {
            let copied = sys::fs::get_xattr(File::open(to.join("a")).unwrap(), c"user.test").unwrap();
            assert_eq!(copied.as_deref(), Some(&b"x"[..]));
        }
        if root {
            assert_eq!((stat("null").rdev(), stat("a").uid()), (0x103, 7));
        }
    }
}
