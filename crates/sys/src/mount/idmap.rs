//! Idmapped mounts: a clone of a mount whose files seem to belong to others.
//!
//! The kernel takes the maps from a user namespace, and a user namespace exists only with a process in it. So one is
//! made that does nothing but wait; it is gone before the mount is in place.
#![allow(unsafe_code, reason = "clone into a user namespace and mount_setattr(2), which rustix lacks")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use types::{Error, Result, ResultExt};

use super::options::IdMaps;

/// Covers the mount at `place` by a clone of it, private, that shifts owners through `maps`.
pub(super) fn remap(place: &Path, maps: &IdMaps) -> Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let doing = || maps.doing();
    let tree = open_tree(CWD, place, flags).map_err(io::Error::from).context(doing)?;
    set_id_map(&tree, &namespace(maps)?).context(doing)?;
    attach(&tree, place).context(doing)
}

/// Puts a detached mount on `place`, on top of what lies there.
pub(super) fn attach(tree: &OwnedFd, place: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(tree, "", CWD, place, flags).map_err(io::Error::from)?)
}

/// A detached clone of the mount, from the directory `dir` on, without the mounts below it.
pub(super) fn clone(dir: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, dir, flags).map_err(io::Error::from).context(|| format!("clone the mount at {dir:?}"))
}

/// A user namespace that has `maps`.
pub(super) fn namespace(maps: &IdMaps) -> Result<OwnedFd> {
    user_namespace(&lines(&maps.uids)?, &lines(&maps.gids)?).context(|| maps.doing())
}

impl IdMaps {
    fn doing(&self) -> String {
        format!("shift owners (uidmap={}, gidmap={})", self.uids, self.gids)
    }
}

/// The text of `/proc/<pid>/uid_map` for an option's maps.
fn lines(maps: &str) -> Result<String> {
    let mut text = String::new();
    for map in maps.split(',') {
        let numbers: Vec<u32> = map.split(':').filter_map(|number| number.parse().ok()).collect();
        match (&numbers[..], map.matches(':').count()) {
            ([container, host, size], 2) => text.push_str(&format!("{container} {host} {size}\n")),
            _ => {
                let error = format!("invalid mapping {map:?}: the format is container-id:host-id:size");
                return Err(Error::invalid(error));
            }
        }
    }
    Ok(text)
}

/// A user namespace with these maps; it lives as long as the descriptor.
fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let child = Waiter::start(0)?;
    child.map(uids, gids)?;
    Ok(File::open(child.proc("ns/user")).context(|| "open the user namespace")?.into())
}

/// A process in a user namespace of its own that waits to be killed.
pub(crate) struct Waiter(libc::pid_t);

impl Waiter {
    /// A file of the process below `/proc`.
    pub(crate) fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0)
    }

    /// Gives the user namespace its maps: lines of `container host size`.
    pub(crate) fn map(&self, uids: &str, gids: &str) -> Result<()> {
        std::fs::write(self.proc("uid_map"), uids).context(|| "map users")?;
        std::fs::write(self.proc("gid_map"), gids).context(|| "map groups")
    }

    /// Starts one; `others` are flags of further namespaces that are to belong to the new user namespace.
    pub(crate) fn start(others: libc::c_int) -> Result<Self> {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        // No exit signal: collectors of children do not see it, and it cannot be mistaken for one of theirs.
        // SAFETY: without CLONE_VM the child has its own copy of memory, and no stack is needed (0: it goes on on its
        // copy of ours). Up to its end it makes only the system calls below, by wrappers that take no lock and
        // allocate nothing, so it does not matter which locks other threads held at this moment.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | others, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: all four take numbers by value, or nothing, are async-signal-safe, and never return control to
            // Rust code outside this loop. prctl ends the child with the thread that started it, should that be killed
            // before it can clean up; one that was killed before prctl is no longer the parent. (A parent in another
            // pid namespace, 0, cannot be: the child was not moved.)
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                loop {
                    libc::pause();
                }
            }
        }
        if pid < 0 {
            return Err(io::Error::last_os_error()).context(|| "make a user namespace");
        }
        // The kernel's process ids fit.
        Ok(Self(pid as libc::pid_t))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // SAFETY: the process is our child and nobody has waited for it, so the number is still its own. waitpid gets
        // no pointer; __WALL as the child has no exit signal.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            while libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Shifts the owners that a detached mount shows, and of the mounts below it.
pub(super) fn set_id_map(tree: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    let attributes = MountAttr {
        set: IDMAP,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        // Descriptors are not negative.
        user_namespace: u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX),
    };
    // SAFETY: both descriptors are open, the path is a constant string with its end, and the kernel reads exactly the
    // size it is told of a value that lives until the call is over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_three_numbers() {
        assert_eq!(lines("0:1000:10,10:2000:1").unwrap(), "0 1000 10\n10 2000 1\n");
        for bad in ["", "0:1", "0:1:2:3", "a:1:2", "0:-1:2", "0:1:2,"] {
            assert!(lines(bad).is_err(), "{bad}");
        }
    }
}
