//! Network namespaces: a descriptor of one, work inside of it on a thread of its own, which ends there, and files that keep one
//! alive without processes.
//!
//! A thread that has entered another namespace cannot be given back to those who share it: it could not be said where it
//! is if the way back failed. So each work has a new one, which costs 50 microseconds.

#![allow(unsafe_code, reason = "unshare(2), which rustix calls unsafe")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::mount::Waiter;

/// A network namespace. It lives as long as this.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Opens the namespace at `path`: `/proc/<pid>/ns/net`, or what was bound to a file.
    ///
    /// # Errors
    /// If there is nothing, or something else: only a file of the kernel's own `nsfs` is taken.
    pub fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        // What lies there may be a fifo of somebody's, at which we would wait.
        let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        let namespace = Self(File::from(fd));
        if rustix::fs::fstatfs(&namespace.0)?.f_type as u64 != NSFS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no network namespace"));
        }
        Ok(namespace)
    }

    /// Does `work` inside, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// If it cannot be entered: it is no network namespace, or we may not.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let entered = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })?;
            entered
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the work in a network namespace panicked")))
        })
    }
}

/// The ids of a user namespace, as `/proc/<pid>/uid_map` has them: lines of `container host size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMaps {
    /// Of users.
    pub uids: String,
    /// Of groups.
    pub gids: String,
}

/// Makes a network namespace and binds it to a new file, which keeps it alive.
///
/// # Errors
/// If there is a file already, or one of the steps is refused: then nothing is left.
pub fn create(path: &Path) -> io::Result<()> {
    bind(path, |path| {
        thread::scope(|scope| {
            let made = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                // SAFETY: a new network namespace changes neither descriptors nor memory, which is all that unshare could make
                // unsafe; the thread that is in it ends here, so that no other work finds itself there.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
                mount_bind("/proc/thread-self/ns/net", path)?;
                Ok(())
            })?;
            made.join()
                .unwrap_or_else(|_| Err(io::Error::other("the making of a network namespace panicked")))
        })
    })
}

/// As [`create`], and the namespace belongs to a new user namespace, which is bound to the new file `user`.
///
/// # Errors
/// As [`create`].
pub fn create_with_user_namespace(path: &Path, user: &Path, maps: &UserMaps) -> io::Result<()> {
    let waiter = Waiter::start(libc::CLONE_NEWNET).map_err(io::Error::other)?;
    waiter.map(&maps.uids, &maps.gids).map_err(io::Error::other)?;
    bind(user, |user| Ok(mount_bind(waiter.proc("ns/user"), user)?))?;
    bind(path, |path| Ok(mount_bind(waiter.proc("ns/net"), path)?)).inspect_err(|_| {
        // The first error is the one that is told.
        let _ = remove(user);
    })
}

fn bind(path: &Path, mount: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    File::create_new(path)?;
    mount(path).inspect_err(|_| {
        // The first error is the one that is told.
        let _ = std::fs::remove_file(path);
    })
}

/// Lets go of a namespace that is bound to a file. It may be done again.
///
/// # Errors
/// If the file cannot be unmounted or removed.
pub fn remove(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a namespace is bound to a file.
pub fn is_bound(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type as u64 == NSFS)
}

/// `NSFS_MAGIC`
const NSFS: u64 = 0x6e73_6673;

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_namespace_is_one() {
        let own = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(own.inside(|| 7).unwrap(), 7);
            assert!(own.inside(|| panic!("meant")).is_err());
            assert!(Netns::open(Path::new("/proc/self/ns/mnt")).unwrap().inside(|| ()).is_err());
        }
        for path in ["/dev/null", "/proc/self/status", "/no/such", "/tmp"] {
            assert!(Netns::open(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_namespace_lives_as_long_as_it_is_bound() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        create(&path).unwrap();
        assert!(is_bound(&path));
        let there = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_ne!(Netns::open(&path).unwrap().inside(there).unwrap(), own);
        assert_eq!(there(), own, "this thread has not moved");
        assert!(create(&path).is_err(), "a name is used once");
        assert!(is_bound(&path));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!is_bound(&path) && !path.exists());
    }

    #[test]
    fn a_namespace_belongs_to_the_user_namespace_that_was_made_with_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, user) = (dir.path().join("net"), dir.path().join("user"));
        let maps = UserMaps { uids: "0 200000 65536\n".into(), gids: "0 300000 65536\n".into() };
        create_with_user_namespace(&path, &user, &maps).unwrap();
        assert!(is_bound(&path) && is_bound(&user));
        remove(&path).unwrap();
        remove(&user).unwrap();
        let bad = UserMaps { uids: "x".into(), gids: String::new() };
        assert!(create_with_user_namespace(&path, &user, &bad).is_err());
        assert!(!path.exists() && !user.exists());
    }
}
