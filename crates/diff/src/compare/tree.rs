//! A directory tree that somebody may change while it is read.
//!
//! Everything is looked at from the descriptor of its directory, and directories are opened from the root's without
//! following links: whatever is renamed meanwhile, nothing outside is ever read (SEC-075).

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

/// The largest security.capability is 24 bytes.
const CAPABILITY: usize = 64;

/// A tree by its root.
pub(super) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: sys::fs::open_dir(root)? })
    }

    /// A directory by its path from the root, which is empty; `None` if there is none any more.
    pub(super) fn dir(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match sys::fs::openat2(&self.root, Path::new(OsStr::from_bytes(path)), flags, resolve) {
            Ok(dir) => Ok(Some(dir)),
            Err(errno) if gone(errno) => Ok(None),
            Err(errno) => Err(failed(errno, format!("open directory {:?}", shown(path)))),
        }
    }
}

/// The names in a directory, in order.
pub(super) fn names(dir: &OwnedFd) -> Result<Vec<CString>> {
    let failed = |errno| failed(errno, "read a directory");
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Something in a directory.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub dir: BorrowedFd<'a>,
    pub name: &'a CStr,
    pub stat: Stat,
}

impl<'a> Found<'a> {
    /// `None` if there is nothing of the name.
    pub(super) fn find(dir: BorrowedFd<'a>, name: &'a CStr) -> Result<Option<Self>> {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self { dir, name, stat })),
            Err(errno) if gone(errno) => Ok(None),
            Err(errno) => Err(failed(errno, format!("stat {name:?}"))),
        }
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// What makes two names one file; `None` of a directory and of what has no other name.
    pub(super) fn link(&self) -> Option<(u64, u64)> {
        (!self.is_dir() && self.stat.st_nlink > 1).then_some((self.stat.st_dev, self.stat.st_ino))
    }

    /// Opens a regular file.
    pub(super) fn open(&self) -> Result<File> {
        let doing = || format!("open {:?}", self.name);
        // Not to wait for the writer of a FIFO that took the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.dir, self.name, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| failed(errno, doing()))?);
        if !file.metadata().context(doing)?.is_file() {
            return Err(Error::precondition(format!("{:?} is no file any more", self.name)));
        }
        Ok(file)
    }

    /// Where a symbolic link points to.
    pub(super) fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(self.dir, self.name, Vec::new());
        Ok(target.map_err(|errno| failed(errno, format!("read link {:?}", self.name)))?.into_bytes())
    }

    /// The file's capabilities; empty where it has none.
    pub(super) fn capability(&self) -> Result<Vec<u8>> {
        // There is no getxattrat before Linux 6.13; what the last component is, is not followed.
        let path =
            [format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).as_bytes(), self.name.to_bytes()].concat();
        let mut value = vec![0; CAPABILITY];
        match rustix::fs::lgetxattr(OsStr::from_bytes(&path), c"security.capability", &mut value[..]) {
            Ok(size) => value.truncate(size),
            Err(errno) if errno == Errno::NODATA || errno == Errno::OPNOTSUPP || gone(errno) => value.clear(),
            Err(errno) => return Err(failed(errno, format!("read the capabilities of {:?}", self.name))),
        }
        Ok(value)
    }
}

/// It was there a moment ago, or is something else by now.
fn gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

pub(super) fn failed(errno: Errno, doing: impl Into<String>) -> Error {
    Error::from(io::Error::from(errno)).context(doing)
}

/// A path for a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn what_is_swapped_while_it_is_read_leads_nowhere() {
        let top = tempfile::tempdir().unwrap();
        let (root, outside) = (top.path().join("root"), top.path().join("outside"));
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::write(outside.join("secret"), "of the host").unwrap();
        let tree = Tree::open(&root).unwrap();
        assert!(tree.dir(b"real/deep").unwrap().is_some());
        // A directory that has become a link, in the middle and at the end, or is gone.
        symlink(&outside, root.join("link")).unwrap();
        symlink("../outside", root.join("up")).unwrap();
        for path in [&b"link"[..], b"link/deep", b"up", b"up/deep", b"gone", b"real/deep/gone"] {
            assert!(tree.dir(path).unwrap().is_none(), "{}", shown(path));
        }
        assert!(tree.dir(b"../outside").is_err());
        // A file that has become a link, or a pipe that nobody writes to.
        let dir = tree.dir(b"").unwrap().unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        let stat = Found::find(dir.as_fd(), c"file").unwrap().unwrap().stat;
        std::fs::remove_file(root.join("file")).unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        let stale = Found { dir: dir.as_fd(), name: c"file", stat };
        assert!(stale.open().is_err());
        std::fs::remove_file(root.join("file")).unwrap();
        rustix::fs::mknodat(CWD, root.join("file"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(stale.open().unwrap_err().class(), types::Class::FailedPrecondition);
    }
}
