//! Files of the host that a container is given get its label: those below the path of the mount and no others, whatever links and
//! renames are there meanwhile (CVE-2021-43816).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags, XattrFlags};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

const ATTRIBUTE: &str = "security.selinux";

/// The host's own, which would not run with a container's label.
const REFUSED: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Gives a file, or a directory and all below, a label. The directory itself comes last: if it has the label, all have.
pub(in crate::spec) fn relabel(path: &Path, label: &str) -> Result<()> {
    if label.is_empty() {
        return Ok(());
    }
    let doing = || format!("relabel {path:?} with {label:?} failed");
    if REFUSED.iter().any(|refused| path == Path::new(refused)) {
        let why = format!("SELinux relabeling of {} is not allowed", path.display());
        return Err(Error::invalid(why).context(doing()));
    }
    match tree(path, label) {
        // The filesystem keeps no labels.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno)).context(doing),
    }
}

fn tree(path: &Path, label: &str) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    if kind(&root)? == FileType::Directory {
        let mut left = vec![PathBuf::new()];
        while let Some(directory) = left.pop() {
            gone(entries(&root, &directory, label, &mut left))?;
        }
    }
    set(&root, label)
}

/// Labels what is in a directory, and adds the directories among it to what is left to do.
fn entries(root: &OwnedFd, directory: &Path, label: &str, left: &mut Vec<PathBuf>) -> Result<(), Errno> {
    let open = |path: &Path, flags| {
        let beneath = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        sys::fs::openat2(root, path, flags | OFlags::NOFOLLOW, beneath)
    };
    for entry in Dir::read_from(open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
        let entry = entry?;
        if [c".", c".."].contains(&entry.file_name()) {
            continue;
        }
        let path = directory.join(OsStr::from_bytes(entry.file_name().to_bytes()));
        gone(open(&path, OFlags::PATH).and_then(|file| {
            if kind(&file)? == FileType::Directory {
                left.push(path);
            }
            set(&file, label)
        }))?;
    }
    Ok(())
}

fn kind(file: impl AsFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// By the descriptor, whatever has its name by now.
fn set(file: &OwnedFd, label: &str) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut had = Vec::with_capacity(256);
    if rustix::fs::getxattr(&path, ATTRIBUTE, rustix::buffer::spare_capacity(&mut had)).is_ok()
        && had.strip_suffix(b"\0").unwrap_or(&had) == label.as_bytes()
    {
        return Ok(());
    }
    rustix::fs::setxattr(&path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
}

/// What is removed meanwhile needs no label.
fn gone(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
