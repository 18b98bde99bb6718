//! From the path of a directory to a descriptor of it, below the root whatever the layer did to the way.
//!
//! The kernel resolves the path with the root as `/` (openat2). Where something is missing the path is walked once more
//! by hand and missing directories are made. When only an overlay's upper directory is written, a missing directory may
//! exist in a layer below: then it gets that one's owner, mode, attributes and times, as a copy-up would give it. If
//! the layer below has a symbolic link there, the path leads somewhere else than the upper directory knows, and the
//! whole layer must be applied to the merged view instead ([`Stop::NeedsMergedView`]).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::tar::malformed;

use super::Stop;
use super::rebase::Later;

/// How many directories stay open.
const OPEN: usize = 16;
/// How many symbolic links one path may lead through, as upstream.
const MAX_LINKS: u32 = 255;

const PATH_DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that was made although no entry names it.
pub(super) struct Implied {
    /// Its path, without links.
    pub path: Vec<u8>,
    /// The times of the directory below, if there is one.
    pub times: Option<Timestamps>,
}

/// What is below the root.
pub(super) enum Lowers {
    /// Nothing: the root is the whole view.
    View,
    /// The directories of these layers, topmost first.
    Known(Vec<PathBuf>),
    /// Layers that are not there yet; what depends on them is noted.
    Later(Later),
}

/// Opens directories below the root and remembers the last ones.
pub(super) struct Parents {
    root: Rc<OwnedFd>,
    lowers: Lowers,
    /// Most recently used last.
    open: Vec<(Vec<u8>, Rc<OwnedFd>)>,
    /// Made since [`Parents::take_implied`].
    implied: Vec<Implied>,
}

/// What the layers below have at a path.
pub(super) enum Below {
    Nothing,
    Directory(OwnedFd),
    Link,
}

impl Parents {
    pub(super) fn new(root: OwnedFd, lowers: Lowers) -> Self {
        Self { root: Rc::new(root), lowers, open: Vec::new(), implied: Vec::new() }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Something was removed or replaced: what was open may be elsewhere now.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    pub(super) fn take_implied(&mut self) -> Vec<Implied> {
        std::mem::take(&mut self.implied)
    }

    /// The directory `path`, made with all that is missing on the way.
    pub(super) fn make(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Stop> {
        if let Some(dir) = self.existing(path)? {
            return Ok(dir);
        }
        let dir = Rc::new(Walk::new(self, path)?.run()?);
        self.remember(path, &dir);
        Ok(dir)
    }

    /// The directory `path`, or `None` if it, or something on the way, is missing.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, Stop> {
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        if let Some(at) = self.open.iter().position(|(known, _)| known == path) {
            let found = self.open.remove(at);
            let dir = Rc::clone(&found.1);
            self.open.push(found);
            return Ok(Some(dir));
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match sys::fs::openat2(&*self.root, Path::new(OsStr::from_bytes(path)), flags, resolve) {
            Ok(dir) => {
                let dir = Rc::new(dir);
                self.remember(path, &dir);
                Ok(Some(dir))
            }
            Err(Errno::NOENT) => Ok(None),
            // Perhaps a whiteout of this same layer is in the way: the walk knows.
            Err(Errno::NOTDIR) if !self.is_view() => Ok(None),
            Err(Errno::NOSYS) => {
                Err(types::Error::unimplemented("the kernel has no openat2 (Linux 5.6 or newer is needed)")
                    .into())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn remember(&mut self, path: &[u8], dir: &Rc<OwnedFd>) {
        if self.open.len() == OPEN {
            self.open.remove(0);
        }
        self.open.push((path.to_vec(), Rc::clone(dir)));
    }

    /// Whether the root is all there is.
    pub(super) fn is_view(&self) -> bool {
        matches!(self.lowers, Lowers::View)
    }

    /// Whether there are layers below, where that matters.
    pub(super) fn has_lowers(&self) -> bool {
        match &self.lowers {
            Lowers::View => false,
            Lowers::Known(lowers) => !lowers.is_empty(),
            Lowers::Later(_) => true,
        }
    }

    /// What must be seen to when the layers below are there.
    pub(super) fn later(&mut self) -> Option<&mut Later> {
        match &mut self.lowers {
            Lowers::Later(later) => Some(later),
            Lowers::View | Lowers::Known(_) => None,
        }
    }

    pub(super) fn into_later(self) -> Later {
        match self.lowers {
            Lowers::Later(later) => later,
            Lowers::View | Lowers::Known(_) => Later::default(),
        }
    }

    /// Whether no layer below has the directory `path`, as far as that can be said: not of one behind links.
    pub(super) fn is_new(&self, path: &[u8]) -> Result<bool, Stop> {
        if path.is_empty() || !matches!(&self.lowers, Lowers::Known(lowers) if !lowers.is_empty()) {
            return Ok(false);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let direct = sys::fs::open_without_links(&*self.root, OsStr::from_bytes(path), flags).is_ok();
        Ok(direct && matches!(self.below(path)?, Below::Nothing))
    }

    pub(super) fn below(&self, path: &[u8]) -> Result<Below, Stop> {
        let Lowers::Known(lowers) = &self.lowers else { return Ok(Below::Nothing) };
        for lower in lowers {
            let (found, goes_on) = below_in(lower, path)?;
            match found {
                Below::Nothing if goes_on => {}
                found => return Ok(found),
            }
        }
        Ok(Below::Nothing)
    }
}

/// What one layer has at `path`, and whether the layers below it can be seen there.
fn below_in(lower: &Path, path: &[u8]) -> Result<(Below, bool), Stop> {
    let mut dir = sys::fs::open_dir(lower)?;
    let mut components = path.split(|b| *b == b'/').peekable();
    let mut opaque = false;
    while let Some(component) = components.next() {
        let name = OsStr::from_bytes(component);
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok((Below::Nothing, !opaque)),
            Err(errno) => return Err(errno.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink if components.peek().is_none() => return Ok((Below::Link, false)),
            // A whiteout, or something else in its place.
            _ => return Ok((Below::Nothing, false)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
        opaque = opaque || sys::fs::get_xattr(&dir, super::OPAQUE_XATTR)?.is_some_and(|value| value == b"y");
    }
    Ok((Below::Directory(dir), false))
}

/// Device 0:0, which overlayfs takes for "gone".
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// One path, component by component.
struct Walk<'a> {
    parents: &'a mut Parents,
    /// Components still to go, next one last.
    todo: Vec<Vec<u8>>,
    /// Where we are, without links.
    real: Vec<Vec<u8>>,
    dir: OwnedFd,
    links: u32,
}

impl<'a> Walk<'a> {
    fn new(parents: &'a mut Parents, path: &[u8]) -> Result<Self, Stop> {
        let dir = rustix::fs::openat(&*parents.root, c".", PATH_DIR, Mode::empty())?;
        let mut walk = Self { parents, todo: Vec::new(), real: Vec::new(), dir, links: 0 };
        walk.push(path);
        Ok(walk)
    }

    fn push(&mut self, path: &[u8]) {
        self.todo.extend(path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec));
    }

    fn run(mut self) -> Result<OwnedFd, Stop> {
        while let Some(component) = self.todo.pop() {
            match &component[..] {
                b"" | b"." => {}
                b".." => {
                    self.real.pop();
                    self.reopen()?;
                }
                _ => self.step(component)?,
            }
        }
        Ok(self.dir)
    }

    fn reopen(&mut self) -> Result<(), Stop> {
        let path = self.real.join(&b'/');
        let root = self.parents.root.as_fd();
        self.dir =
            sys::fs::open_without_links(root, OsStr::from_bytes(&path), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(())
    }

    fn step(&mut self, component: Vec<u8>) -> Result<(), Stop> {
        let name = OsStr::from_bytes(&component);
        let found = match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let kind = found.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
        match (kind, found) {
            (Some(FileType::Directory), _) => {}
            (Some(FileType::Symlink), _) => return self.follow(&component),
            (None, _) => self.make(&component)?,
            (_, Some(stat)) if !self.parents.is_view() && is_whiteout(&stat) => self.revive(name)?,
            _ => return Err(Errno::NOTDIR.into()),
        }
        let next = rustix::fs::openat(&self.dir, name, PATH_DIR, Mode::empty())?;
        self.dir = next;
        self.real.push(component);
        Ok(())
    }

    fn follow(&mut self, component: &[u8]) -> Result<(), Stop> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(malformed("too many symbolic links on the way").into());
        }
        let target = rustix::fs::readlinkat(&self.dir, OsStr::from_bytes(component), Vec::new())?;
        if target.to_bytes().starts_with(b"/") {
            self.real.clear();
            self.reopen()?;
        }
        self.push(target.to_bytes());
        Ok(())
    }

    /// A directory where this same layer has put a whiteout: what is below stays hidden.
    fn revive(&mut self, name: &OsStr) -> Result<(), Stop> {
        rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?;
        rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755))?;
        let dir = open_made(self.dir.as_fd(), name)?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        super::set_opaque(dir.as_fd())
    }

    fn make(&mut self, component: &[u8]) -> Result<(), Stop> {
        let mut path = self.real.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
        let below = match self.parents.below(&path)? {
            Below::Link => return Err(Stop::NeedsMergedView),
            Below::Directory(dir) => Some(dir),
            Below::Nothing => None,
        };
        let name = OsStr::from_bytes(component);
        rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755))?;
        let made = open_made(self.dir.as_fd(), name)?;
        let times = match below {
            Some(below) => Some(copy_up(&below, &made)?),
            None => {
                // The process's umask does not count.
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                None
            }
        };
        if let Some(later) = self.parents.later() {
            later.implied(rustix::fs::fstat(&made)?.st_ino, &path)?;
        }
        self.parents.implied.push(Implied { path, times });
        Ok(())
    }
}

fn open_made(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Gives `made` what the directory below has; the times are for later, when nothing is added to it any more.
pub(super) fn copy_up(below: &OwnedFd, made: &OwnedFd) -> Result<Timestamps, Stop> {
    let stat = rustix::fs::fstat(below)?;
    rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    sys::fs::copy_xattrs(below, made, |name| !name.to_bytes().starts_with(b"trusted."))?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let spec = |secs: i64, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Ok(Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    })
}
