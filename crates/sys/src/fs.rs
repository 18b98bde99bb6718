//! Files whose paths other people choose, and files that must survive a power cut.
//!
//! [`open_in_root`] lets the kernel resolve a foreign path with a directory as its `/`, so that no `..` and no
//! symbolic link leads out of it, also while somebody renames things inside. [`remove_tree`] deletes by descriptors
//! and never follows a link. [`atomic_write`] leaves either the old file or the whole new one.
//!
//! ```text
//!  remove        trees of any depth, with a bounded number of descriptors
//!  xattr         list and copy extended attributes
//! ```
//!
//! Everything is synchronous and needs no runtime: the shim links it too.

mod remove;
mod xattr;

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

pub use remove::{remove_tree, remove_tree_at};
pub use xattr::{copy_xattrs, get_xattr, list_xattrs};

/// How long the lock of a holder that was killed may stay with a child of it that had not yet executed its program.
const ORPHANED: Duration = Duration::from_secs(2);

/// How often a resolution is tried again that lost a race against a rename (`EAGAIN` of openat2).
const RACES: u32 = 128;

/// Opens a directory that we chose ourselves; its path may lead through symbolic links.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .context(|| format!("open directory {path:?}"))
}

/// Opens `path` as if `root` were `/`: absolute paths, `..` and symbolic links all stay inside.
///
/// Without `O_NOFOLLOW` in `flags` a link at the end is followed too. Links of procfs that lead elsewhere are refused.
pub fn open_in_root(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    match openat2(&root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(fd) => Ok(fd),
        Err(errno) => Err(openat2_error(errno, path)),
    }
}

/// [`open_in_root`] where every symbolic link on the way is refused with `ELOOP` (class `Unknown`).
pub fn open_without_links(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    match openat2(&root, path, flags | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(fd),
        Err(errno) => Err(openat2_error(errno, path)),
    }
}

/// `openat2` with its bare error, for callers that act on it.
pub fn openat2(root: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    // An empty path means the root itself to our callers and an error to the kernel.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut races = 0;
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if races < RACES => races += 1,
            result => return result,
        }
    }
}

fn openat2_error(errno: Errno, path: &Path) -> Error {
    if errno == Errno::NOSYS {
        return Error::unimplemented("the kernel has no openat2 (Linux 5.6 or newer is needed)");
    }
    Error::from(io::Error::from(errno)).context(format!("open {path:?}"))
}

/// Writes `bytes` to `path` so that a reader, or the machine after a power cut, sees the old file or the whole new one.
///
/// The bytes go to a new file next to it, are made durable, and take the name by a rename that is durable too.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let doing = || format!("write {path:?}");
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format!("write {path:?}: not the path of a file")));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let dir = open_dir(parent).context(doing)?;
    let (file, temporary) = create_temporary(&dir, name, mode).context(doing)?;
    let written = write_durably(file, bytes, mode)
        .and_then(|()| Ok(rustix::fs::renameat(&dir, &temporary, &dir, name)?))
        .and_then(|()| Ok(rustix::fs::fsync(&dir)?));
    if written.is_err() {
        // Nobody else knows the temporary name; after the rename it is gone already.
        let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
    }
    written.context(doing)
}

fn create_temporary(dir: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<(File, std::ffi::OsString)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, &temporary, flags, Mode::from_raw_mode(mode & 0o600)) {
            Ok(fd) => return Ok((fd.into(), temporary)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn write_durably(mut file: File, bytes: &[u8], mode: u32) -> io::Result<()> {
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    let dir = open_dir(path)?;
    rustix::fs::fsync(&dir).map_err(io::Error::from).context(|| format!("sync directory {path:?}"))
}

/// Makes the whole filesystem that `path` lies in durable.
pub fn syncfs(path: &Path) -> Result<()> {
    let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .context(|| format!("open {path:?}"))?;
    rustix::fs::syncfs(&fd).map_err(io::Error::from).context(|| format!("sync the filesystem of {path:?}"))
}

/// Takes the flock(2) of an open file or directory, which goes with the process. False if somebody else keeps it.
pub fn lock(file: &File) -> io::Result<bool> {
    let end = Instant::now() + ORPHANED;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < end && is_orphaned(file) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
    }
}

/// Whether whoever took the lock is gone.
fn is_orphaned(file: &File) -> bool {
    let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else { return false };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    // A process that has ended, but that nobody has waited for, has no program.
    locks
        .lines()
        .filter_map(|line| holder(line, inode))
        .any(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists())
}

/// Who holds the flock of a file, by a line of proc_locks(5): `1: FLOCK  ADVISORY  WRITE 123 08:01:4567 0 EOF`. A process
/// that we cannot see is 0.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let pid = (words.next()? == "FLOCK").then(|| words.nth(2))??.parse().ok()?;
    let locked: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    (locked == inode && pid != 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_lock_is_waited_for_if_its_taker_is_gone_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = || File::open(dir.path()).unwrap();
        let begun = Instant::now();
        let taken = file();
        assert!(lock(&taken).unwrap() && !lock(&file()).unwrap());
        assert!(begun.elapsed() < Duration::from_millis(500));
        drop(taken);
        // flock(1) takes it and ends; sleep(1) has the same open file.
        let script = r#"exec 9<"$0"; flock 9; sleep 0.5 >&- 2>&- &"#;
        let mut shell = std::process::Command::new("sh");
        assert!(shell.arg("-c").arg(script).arg(dir.path()).status().unwrap().success());
        assert!(file().try_lock().is_err());
        assert!(lock(&file()).unwrap());
    }

    #[test]
    fn who_holds_a_lock_is_read() {
        let line = "42: FLOCK  ADVISORY  WRITE 4711 fe:00:1835010 0 EOF";
        assert_eq!((holder(line, 1_835_010), holder(line, 10)), (Some(4711), None));
        assert_eq!(holder("1: POSIX  ADVISORY  WRITE 4711 fe:00:7 0 EOF", 7), None);
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 0 fe:00:7 0 EOF", 7), None);
        assert_eq!(holder("1: -> FLOCK ADVISORY WRITE 4 fe:00:7 0 EOF", 7), None);
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("secret"), "outside").unwrap();
        let root = top.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        symlink(top.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../../../secret", root.join("dots")).unwrap();
        let fd = open_dir(&root).unwrap();
        for path in ["secret", "/secret", "../secret", "dots", "a/../../secret"] {
            let mut text = String::new();
            match open_in_root(&fd, path, OFlags::RDONLY) {
                Ok(file) => File::from(file).read_to_string(&mut text).unwrap(),
                Err(error) => {
                    assert!(error.is_not_found(), "{path}: {error}");
                    continue;
                }
            };
            assert_eq!(text, "inside", "{path}");
        }
        assert!(open_in_root(&fd, "absolute", OFlags::RDONLY).unwrap_err().is_not_found());
        assert!(open_without_links(&fd, "dots", OFlags::RDONLY).is_err());
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        std::fs::write(&path, "old").unwrap();
        atomic_write(&path, b"new", 0o640).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_atomic_write_does_not_follow_a_link_in_its_place() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("other"), "kept").unwrap();
        symlink("other", top.path().join("file")).unwrap();
        atomic_write(&top.path().join("file"), b"new", 0o600).unwrap();
        assert_eq!(std::fs::read(top.path().join("other")).unwrap(), b"kept");
        assert_eq!(std::fs::read(top.path().join("file")).unwrap(), b"new");
    }

    #[test]
    fn a_failed_atomic_write_says_where_and_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("file")).unwrap();
        let error = atomic_write(&top.path().join("file"), b"new", 0o600).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1);
        assert!(atomic_write(&top.path().join("none/file"), b"", 0o600).unwrap_err().is_not_found());
    }

    #[test]
    fn directories_and_filesystems_can_be_synced() {
        let top = tempfile::tempdir().unwrap();
        sync_dir(top.path()).unwrap();
        syncfs(top.path()).unwrap();
    }
}
