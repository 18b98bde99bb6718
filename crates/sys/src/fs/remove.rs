//! Removal of trees by descriptors.
//!
//! Whoever can write into a tree may rename and replace things while it is being removed. Nothing is ever opened or
//! unlinked but by one name relative to a directory descriptor, links are not followed, and the way back up through
//! `..` is believed only if it leads to the directory that we came from.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use types::{Class, Error, Result, ResultExt};

/// How many ancestors stay open; those further up are reopened through `..` on the way back.
const OPEN: usize = 32;

/// How often the removal starts again because somebody changes the tree at the same time.
const RESTARTS: u32 = 100;

/// Removes what is at `path`: a file, a link, or a directory with everything below it. Nothing there is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format!("remove {path:?}: not below a directory")));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match super::open_dir(parent) {
        Ok(dir) => remove_tree_at(&dir, Path::new(name)),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
    .context(|| format!("remove {path:?}"))
}

/// Removes what `name` is in `dir`, as [`remove_tree`]; `name` is one component.
pub fn remove_tree_at(dir: impl AsFd, name: &Path) -> Result<()> {
    let dir = dir.as_fd();
    let name = component(name)?;
    for _ in 0..RESTARTS {
        match remove_once(dir, &name) {
            Ok(()) => return Ok(()),
            // The tree changed under us: a name was replaced, filled again, or moved.
            Err(
                Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::STALE,
            ) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Err(Error::new(Class::Unavailable, "the tree keeps changing while it is being removed"))
}

fn component(name: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = name.as_os_str().as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Error::invalid(format!("{name:?} is not the name of a directory entry")));
    }
    CString::new(bytes).map_err(|_| Error::invalid(format!("{name:?} contains a NUL")))
}

/// One directory on the way from the top to where we are.
struct Level {
    /// Its name in the level above.
    name: CString,
    /// Closed where we are far below.
    open: Option<(OwnedFd, Dir)>,
    /// Device and inode: who it is.
    id: (u64, u64),
}

impl Level {
    fn enter(parent: BorrowedFd<'_>, name: CString) -> Result<Self, Errno> {
        let fd = open_directory(parent, &name)?;
        let id = identity(&fd)?;
        let dir = Dir::read_from(&fd)?;
        Ok(Self { name, open: Some((fd, dir)), id })
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn identity(fd: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn unlink(dir: BorrowedFd<'_>, name: &std::ffi::CStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// One pass; `NOTEMPTY` and its like mean that another one is needed.
fn remove_once(top: BorrowedFd<'_>, name: &CString) -> Result<(), Errno> {
    match unlink(top, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    let mut levels = vec![match Level::enter(top, name.clone()) {
        Err(Errno::NOENT) => return Ok(()),
        level => level?,
    }];
    while let Some(level) = levels.last_mut() {
        let Some((fd, dir)) = level.open.as_mut() else {
            // Only the levels above the last can be closed, and `leave` reopens the one it returns to.
            return Err(Errno::STALE);
        };
        match empty_until_directory(fd.as_fd(), dir)? {
            Some(below) => {
                let next = match Level::enter(fd.as_fd(), below) {
                    Err(Errno::NOENT) => continue,
                    next => next?,
                };
                levels.push(next);
                if let Some(far) = levels.len().checked_sub(OPEN + 1) {
                    levels[far].open = None;
                }
            }
            None => leave(top, &mut levels)?,
        }
    }
    Ok(())
}

/// Unlinks what is not a directory until it meets a directory that is not empty, and returns its name.
fn empty_until_directory(fd: BorrowedFd<'_>, dir: &mut Dir) -> Result<Option<CString>, Errno> {
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match unlink(fd, name, AtFlags::empty()) {
                // Filesystems that do not tell types in directories.
                Err(Errno::ISDIR) => {}
                done => {
                    done?;
                    continue;
                }
            }
        }
        match unlink(fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            done => done?,
        }
    }
    Ok(None)
}

/// Removes the level that is empty now, after making sure that the one above is open.
fn leave(top: BorrowedFd<'_>, levels: &mut Vec<Level>) -> Result<(), Errno> {
    let Some(level) = levels.pop() else { return Ok(()) };
    let Some(above) = levels.last_mut() else {
        return unlink(top, &level.name, AtFlags::REMOVEDIR);
    };
    if above.open.is_none() {
        let Some((fd, _)) = &level.open else { return Err(Errno::STALE) };
        let parent = open_directory(fd.as_fd(), c"..")?;
        if identity(&parent)? != above.id {
            return Err(Errno::STALE);
        }
        let dir = Dir::read_from(&parent)?;
        above.open = Some((parent, dir));
    }
    match &above.open {
        Some((fd, _)) => unlink(fd.as_fd(), &level.name, AtFlags::REMOVEDIR),
        None => Err(Errno::STALE),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn links_are_removed_and_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let canary = top.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "alive").unwrap();
        let tree = top.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&canary, tree.join("a/b/link")).unwrap();
        symlink("../../canary", tree.join("up")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(std::fs::read(canary.join("file")).unwrap(), b"alive");
        symlink(&canary, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(canary.join("file").exists());
        remove_tree(&tree).unwrap();
        assert!(remove_tree_at(super::super::open_dir(top.path()).unwrap(), Path::new("..")).is_err());
    }

    #[test]
    fn ten_thousand_levels_need_few_descriptors() {
        let top = tempfile::tempdir().unwrap();
        let mut dir = super::super::open_dir(top.path()).unwrap();
        for _ in 0..10_000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&dir, "e", Mode::RWXU).unwrap();
            dir = open_directory(dir.as_fd(), c"d").unwrap();
        }
        drop(dir);
        remove_tree(&top.path().join("d")).unwrap();
        assert!(!top.path().join("d").exists());
    }

    #[test]
    fn renames_at_the_same_time_cost_nothing_outside() {
        let top = tempfile::tempdir().unwrap();
        let canary = top.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "alive").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (top.path().join("tree/x/d"), top.path().join("tree/y"));
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::rename(&a, &b);
                    let _ = symlink(&canary, &a);
                    let _ = std::fs::remove_file(&a);
                    let _ = std::fs::rename(&b, &a);
                }
            });
            // Nothing in here may panic: the scope would wait for the other thread for ever.
            for _ in 0..200 {
                let _ = std::fs::create_dir_all(top.path().join("tree/x/d/e/f"));
                let _ = std::fs::write(top.path().join("tree/x/g"), "");
                let _ = remove_tree(&top.path().join("tree"));
            }
            stop.store(true, Ordering::Relaxed);
        });
        remove_tree(&top.path().join("tree")).unwrap();
        assert_eq!(std::fs::read(canary.join("file")).unwrap(), b"alive");
    }
}
