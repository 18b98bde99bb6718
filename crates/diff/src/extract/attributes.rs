//! Owner, mode, extended attributes and times, set on what was just made and never on what a name now leads to.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use types::{Result, ResultExt};

use crate::tar::{Entry, Kind, Time};

use super::Stop;

/// Access and modification time as upstream sets them: what a 64-bit count of nanoseconds since 1970 cannot hold
/// becomes the epoch, and nothing was read before it was written.
pub(super) fn timestamps(entry: &Entry) -> Timestamps {
    let access = entry.atime.map_or(entry.mtime, |atime| atime.max(entry.mtime));
    Timestamps { last_access: bounded(access), last_modification: bounded(entry.mtime) }
}

fn bounded(time: Time) -> Timespec {
    const LAST: Time = Time { secs: i64::MAX / 1_000_000_000, nanos: (i64::MAX % 1_000_000_000) as u32 };
    if time.secs < 0 || time > LAST {
        return Timespec { tv_sec: 0, tv_nsec: 0 };
    }
    Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() }
}

/// An attribute that no archive may set: they steer the kernel or overlayfs.
fn is_forbidden(key: &[u8]) -> bool {
    key.starts_with(b"trusted.") || key.starts_with(b"user.overlay.")
}

/// Everything on an open file or directory that we made.
pub(super) fn set_open(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(fd, uid, gid).map_err(io::Error::from).context(|| change_owner(entry))?;
    for (key, value) in wanted_xattrs(entry) {
        let set = rustix::fs::fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty());
        accept_xattr(set, key, entry)?;
    }
    // After the owner: changing that clears setuid and setgid.
    let mode = Mode::from_raw_mode(entry.mode);
    rustix::fs::fchmod(fd, mode).map_err(io::Error::from).context(|| "change mode")?;
    rustix::fs::futimens(fd, &timestamps(entry)).map_err(io::Error::from).context(|| "set times")
}

/// The same for what cannot be opened for that: links, devices, pipes, and hard links to anything.
///
/// `wanted` is the type that must be there; a hard link is of any type.
pub(super) fn set_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    wanted: Option<FileType>,
) -> Result<(), Stop> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let found = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if wanted.is_some_and(|wanted| wanted != found) {
        return Err(Stop::from(types::Error::new(types::Class::Aborted, "somebody replaced it")));
    }
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH)
        .map_err(io::Error::from)
        .context(|| change_owner(entry))?;
    set_xattrs_by_path(&fd, entry)?;
    if found != FileType::Symlink {
        rustix::fs::chmod(descriptor_path(&fd), Mode::from_raw_mode(entry.mode))
            .map_err(io::Error::from)
            .context(|| "change mode")?;
    }
    rustix::fs::utimensat(dir, name, &timestamps(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)
        .context(|| "set times")?;
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn change_owner(entry: &Entry) -> String {
    format!("change owner to {}:{}", entry.uid, entry.gid)
}

/// A descriptor opened with `O_PATH` takes no attributes itself; the link to it in procfs leads to the very inode.
fn descriptor_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn set_xattrs_by_path(fd: &OwnedFd, entry: &Entry) -> Result<()> {
    for (key, value) in wanted_xattrs(entry) {
        let path = descriptor_path(fd);
        let set = rustix::fs::setxattr(path, OsStr::from_bytes(key), value, XattrFlags::empty());
        accept_xattr(set, key, entry)?;
    }
    Ok(())
}

fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry.xattrs.iter().filter(|(key, _)| !is_forbidden(key)).map(|(key, value)| (&key[..], &value[..]))
}

/// As upstream: what the filesystem does not support is left out, and user attributes where they cannot be.
fn accept_xattr(set: Result<(), Errno>, key: &[u8], entry: &Entry) -> Result<()> {
    let cannot_have = !matches!(entry.kind, Kind::File | Kind::Directory) && key.starts_with(b"user.");
    match set {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if cannot_have => Ok(()),
        Err(errno) => Err(io::Error::from(errno))
            .context(|| format!("set extended attribute {:?}", String::from_utf8_lossy(key))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_become_the_epoch() {
        for (secs, nanos, wanted) in [
            (-1, 5, (0, 0)),
            (1, 2, (1, 2)),
            (9_223_372_036, 854_775_807, (9_223_372_036, 854_775_807)),
            (9_223_372_036, 854_775_808, (0, 0)),
            (i64::MAX, 0, (0, 0)),
        ] {
            let spec = bounded(Time { secs, nanos });
            assert_eq!((spec.tv_sec, spec.tv_nsec), wanted);
        }
    }
}
