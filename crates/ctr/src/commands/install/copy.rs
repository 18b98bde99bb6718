//! Files of an image into a directory of the host. Nothing in the image leads out of it: links are copied, not followed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use types::{Error, Result};

use crate::go;

/// What to do with names that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Replace,
    Refuse,
}

/// Copies what stands directly in these directories of `image`. If something must not be replaced nothing is copied.
pub fn all(image: &Path, target: &Path, directories: &[&str], existing: Existing) -> Result<()> {
    let root = sys::fs::open_dir(image)?;
    let mut found = Vec::new();
    for name in directories {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match sys::fs::open_without_links(&root, name, flags) {
            Ok(directory) => found.push((*name, entries(&directory)?, directory)),
            // Not there, or a link to elsewhere, in which no layer has put anything by this name.
            Err(_) => continue,
        }
    }
    if existing == Existing::Refuse {
        for (directory, names, _) in &found {
            for name in names {
                let place = Path::new(directory).join(name);
                if target.join(&place).symlink_metadata().is_ok() {
                    let (place, target) = (place.display(), target.display());
                    return Err(Error::already_exists(format!("cannot replace {place} in {target}")));
                }
            }
        }
    }
    for (directory, names, from) in found {
        let to = target.join(directory);
        std::fs::create_dir_all(&to).map_err(|e| go::path_error("mkdir", &to, e))?;
        for name in names {
            one(&from, &name, &to).map_err(|e| go::path_error("install", to.join(&name), e.into()))?;
        }
    }
    Ok(())
}

fn entries(directory: &OwnedFd) -> Result<Vec<std::ffi::OsString>> {
    let failed =
        |errno: Errno| Error::from(std::io::Error::from(errno)).context("read a directory of the image");
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Copies one entry; what was there is replaced at once.
fn one(from: &OwnedFd, name: &OsStr, to: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let place = to.join(name);
    let fresh = to.join(format!(".ctr-install-{}", rand::random::<u32>()));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            match rustix::fs::mkdirat(CWD, &place, 0o755.into()) {
                Err(errno) if errno != Errno::EXIST => return Err(errno),
                _ => {}
            }
            return own(&place, &stat);
        }
        FileType::RegularFile => file(from, name, &fresh, &stat)?,
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), CWD, &fresh)?;
        }
        // Devices, sockets and FIFOs are no programs.
        _ => return Ok(()),
    }
    let placed = own(&fresh, &stat).and_then(|()| rustix::fs::renameat(CWD, &fresh, CWD, &place));
    if placed.is_err() {
        std::fs::remove_file(&fresh).ok();
    }
    placed
}

fn file(from: &OwnedFd, name: &OsStr, fresh: &Path, stat: &Stat) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::open(fresh, flags, 0o600.into())?);
    let copied = std::io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
    if let Err(error) = copied {
        std::fs::remove_file(fresh).ok();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    times(&copy, stat)
}

fn times(file: impl AsFd, stat: &Stat) -> Result<(), Errno> {
    let time = |sec, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec.cast_signed() };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(file, &times)
}

/// Owner first: giving a file away takes its set-id bits.
fn own(path: &Path, stat: &Stat) -> Result<(), Errno> {
    let owner = rustix::fs::Uid::from_raw(stat.st_uid);
    let group = rustix::fs::Gid::from_raw(stat.st_gid);
    rustix::fs::chownat(CWD, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn image() -> (tempfile::TempDir, tempfile::TempDir) {
        let (image, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for directory in ["bin/sub", "lib"] {
            std::fs::create_dir_all(image.path().join(directory)).unwrap();
        }
        let tool = image.path().join("bin/tool");
        std::fs::write(&tool, "new").unwrap();
        std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(image.path().join("bin/sub/deep"), "x").unwrap();
        std::fs::write(image.path().join("lib/a.so"), "x").unwrap();
        symlink("tool", image.path().join("bin/alias")).unwrap();
        (image, target)
    }

    #[test]
    fn what_stands_in_bin_is_copied_and_nothing_below() {
        let (image, target) = image();
        all(image.path(), target.path(), &["bin"], Existing::Refuse).unwrap();
        let bin = target.path().join("bin");
        assert_eq!(std::fs::read(bin.join("alias")).unwrap(), b"new");
        assert_eq!(bin.join("tool").metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert!(bin.join("sub").is_dir() && !bin.join("sub/deep").exists());
        assert!(!target.path().join("lib").exists());
        assert_eq!(std::fs::read_dir(&bin).unwrap().count(), 3);
    }

    #[test]
    fn what_is_there_is_only_replaced_if_asked_and_else_nothing_is_copied() {
        let (image, target) = image();
        std::fs::create_dir(target.path().join("bin")).unwrap();
        std::fs::write(target.path().join("bin/tool"), "old").unwrap();
        let error = all(image.path(), target.path(), &["lib", "bin"], Existing::Refuse).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot replace bin/tool in {}", target.path().display()));
        assert!(!target.path().join("lib").exists());
        all(image.path(), target.path(), &["lib", "bin"], Existing::Replace).unwrap();
        assert_eq!(std::fs::read(target.path().join("bin/tool")).unwrap(), b"new");
    }

    #[test]
    fn a_link_in_the_image_leads_nowhere_on_the_host() {
        let (image, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = tempfile::tempdir().unwrap();
        std::fs::write(secret.path().join("canary"), "x").unwrap();
        symlink(secret.path(), image.path().join("bin")).unwrap();
        all(image.path(), target.path(), &["bin"], Existing::Refuse).unwrap();
        assert!(!target.path().join("bin").exists());
    }
}
