//! A layer that was extracted before the layers below it were there, put on top of them.
//!
//! What depends on the layers below is noted while the layer is extracted: directories that no entry names take after
//! those below, and overlayfs shows the name of a whiteout in a directory that no layer below has. Whatever else depends
//! on them (a hard link to one of their files, the root made opaque) stops the extraction at once, and a directory in the
//! place of a symbolic link below stops it here: such a layer is applied to the merged view, in its turn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps};
use types::{Error, Result};

use super::Stop;
use super::parents::{Below, Lowers, Parents, copy_up, is_whiteout};

/// All notes together have at most this many bytes.
const LIMIT: usize = 32 << 20;

/// What must be seen to when the layers below are there.
#[derive(Debug, Default)]
pub struct Later {
    /// Directories that were made although no entry had named them.
    implied: Vec<Implied>,
    /// The last one of each inode: one that is removed leaves its number to others.
    inodes: HashMap<u64, usize>,
    /// Whiteouts, as directory and name.
    whiteouts: BTreeSet<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

#[derive(Debug)]
struct Implied {
    path: Vec<u8>,
    inode: u64,
    /// An entry named it after all, so that it has attributes of its own, or it is gone.
    named: bool,
}

impl Later {
    /// Whether the layers below make no difference.
    pub fn is_empty(&self) -> bool {
        self.implied.is_empty() && self.whiteouts.is_empty()
    }

    pub(super) fn implied(&mut self, inode: u64, path: &[u8]) -> Result<()> {
        self.account(path.len() + 2 * size_of::<Implied>())?;
        if let Some(gone) = self.inodes.insert(inode, self.implied.len()) {
            self.implied[gone].named = true;
        }
        self.implied.push(Implied { path: path.to_vec(), inode, named: false });
        Ok(())
    }

    /// An entry names the directory.
    pub(super) fn named(&mut self, inode: u64) {
        if let Some(at) = self.inodes.get(&inode) {
            self.implied[*at].named = true;
        }
    }

    pub(super) fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<()> {
        self.account(dir.len() + name.len() + 2 * size_of::<Vec<u8>>())?;
        self.whiteouts.insert((dir.to_vec(), name.to_vec()));
        Ok(())
    }

    fn account(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > LIMIT {
            return Err(Error::exhausted("the layer has too many whiteouts and unnamed directories"));
        }
        Ok(())
    }
}

/// Completes the upper directory `dir`, extracted as [`super::Target::Rebase`], now that the layers below are known,
/// topmost first.
pub fn rebase(dir: &Path, later: &Later, lowers: Vec<PathBuf>) -> Result<(), Stop> {
    let parents = Parents::new(sys::fs::open_dir(dir)?, Lowers::Known(lowers));
    let paths: HashSet<&[u8]> = later.implied.iter().map(|implied| &implied.path[..]).collect();
    for implied in &later.implied {
        take_after(&parents, implied, &paths)?;
    }
    let mut new = (None, false);
    for (dir, name) in &later.whiteouts {
        if new.0 != Some(dir) {
            new = (Some(dir), parents.is_new(dir)?);
        }
        if new.1 {
            remove_whiteout(&parents, dir, name)?;
        }
    }
    Ok(())
}

/// Gives a directory that no entry names what the one below has. As upstream, also where a directory above hides that.
fn take_after(parents: &Parents, implied: &Implied, all: &HashSet<&[u8]>) -> Result<(), Stop> {
    let Implied { path, inode, named } = implied;
    let below = parents.below(path)?;
    if let Below::Link = below {
        return Err(Stop::NeedsMergedView);
    }
    let Some(made) = open(parents, path).filter(|_| !named) else { return Ok(()) };
    if rustix::fs::fstat(&made)?.st_ino != *inode {
        return Ok(());
    }
    match below {
        Below::Nothing | Below::Link => inherit_group(parents, path, &made, all),
        Below::Directory(below) => {
            let times = copy_up(&below, &made)?;
            Ok(rustix::fs::futimens(&made, &times)?)
        }
    }
}

/// What the kernel would have done if the directory in which it was made had had its mode by then.
fn inherit_group(parents: &Parents, path: &[u8], made: &OwnedFd, all: &HashSet<&[u8]>) -> Result<(), Stop> {
    let above = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..at]);
    if !all.contains(above) {
        return Ok(());
    }
    let Below::Directory(above) = parents.below(above)? else { return Ok(()) };
    let stat = rustix::fs::fstat(&above)?;
    if Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID) {
        rustix::fs::fchown(made, None, Some(Gid::from_raw(stat.st_gid)))?;
    }
    Ok(())
}

/// A directory that is still where it was made: an entry may have taken its place.
fn open(parents: &Parents, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    sys::fs::open_without_links(parents.root(), OsStr::from_bytes(path), flags).ok()
}

/// Leaves the times of the directory as they are.
fn remove_whiteout(parents: &Parents, dir: &[u8], name: &[u8]) -> Result<(), Stop> {
    let Some(dir) = open(parents, dir) else { return Ok(()) };
    let name = OsStr::from_bytes(name);
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_whiteout(&stat) => {}
        _ => return Ok(()),
    }
    let before = rustix::fs::fstat(&dir)?;
    rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
    let spec = |secs: i64, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: spec(before.st_atime, before.st_atime_nsec),
        last_modification: spec(before.st_mtime, before.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(&dir, &times)?)
}
