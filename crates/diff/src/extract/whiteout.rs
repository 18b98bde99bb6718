//! Entries that take things of the layers below away.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use types::{Error, Result};

use crate::tar::Entry;

use super::name::Path;
use super::parents::is_whiteout;
use super::{Extractor, OPAQUE_XATTR, Stop};

/// More paths than this in one layer are refused, where they must be remembered.
const MOST_PATHS: usize = 4_000_000;

/// The paths that this layer has made, as 64-bit hashes with a secret key: an opaque marker may come after them.
#[derive(Default)]
pub(super) struct Unpacked {
    paths: HashSet<u64>,
    keys: RandomState,
}

impl Unpacked {
    /// Adds a path and the directories on the way, which must stay with it.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        if self.paths.len() >= MOST_PATHS {
            return Err(Error::exhausted("the layer has too many entries"));
        }
        self.paths.insert(self.keys.hash_one(path.bytes()));
        for ancestor in path.ancestors() {
            if !self.paths.insert(self.keys.hash_one(ancestor)) {
                break;
            }
        }
        Ok(())
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.keys.hash_one(path))
    }
}

/// Marks a directory of an overlay's upper layer as hiding those below.
pub(crate) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Stop> {
    Ok(rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

impl Extractor<'_> {
    pub(super) fn whiteout(
        &mut self,
        path: &Path,
        dir: &Rc<OwnedFd>,
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<(), Stop> {
        let name = OsStr::from_bytes(hidden);
        if self.unpacked.is_some() {
            return self.remove(dir, name);
        }
        // Overlayfs shows the name of a whiteout in a directory that no layer below has.
        if self.parents.is_new(path.parent())? {
            return Ok(());
        }
        match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if !is_whiteout(&stat) {
                    return Err(Error::already_exists("a whiteout of what the same layer has made").into());
                }
            }
            Err(errno) => return Err(errno.into()),
        }
        if let Some(later) = self.parents.later() {
            later.whiteout(path.parent(), hidden)?;
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(super) fn opaque(&mut self, path: &Path, dir: &Rc<OwnedFd>) -> Result<(), Stop> {
        if self.unpacked.is_some() {
            return self.remove_older(path.parent(), dir);
        }
        if path.parent().is_empty() {
            // Overlayfs does not look for the mark on the root of a layer; only the merged view can be emptied.
            return if self.parents.has_lowers() { Err(Stop::NeedsMergedView) } else { Ok(()) };
        }
        set_opaque(open_dir(dir.as_fd(), OsStr::new("."))?.as_fd())
    }

    /// Removes everything in a directory that is not of this layer.
    fn remove_older(&mut self, path: &[u8], dir: &OwnedFd) -> Result<(), Stop> {
        self.parents.forget();
        let Some(unpacked) = &self.unpacked else { return Ok(()) };
        // Directories of this layer, as paths below `dir`: few, as only those are entered.
        let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(below) = todo.pop() {
            let opened = if below.is_empty() {
                open_dir(dir.as_fd(), OsStr::new("."))?
            } else {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                sys::fs::open_without_links(dir, OsStr::from_bytes(&below), flags)?
            };
            for (name, kind) in entries(&opened)? {
                let inner = join(&below, name.to_bytes());
                if !unpacked.contains(&join(path, &inner)) {
                    sys::fs::remove_tree_at(
                        &opened,
                        std::path::Path::new(OsStr::from_bytes(name.to_bytes())),
                    )?;
                } else if kind == FileType::Directory {
                    todo.push(inner);
                }
            }
        }
        Ok(())
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn entries(dir: &OwnedFd) -> Result<Vec<(CString, FileType)>, Stop> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            all.push((name.to_owned(), kind));
        }
    }
    Ok(all)
}
