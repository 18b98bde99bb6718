//! The shim's socket: where it is, who may make it, and when it is a leftover.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use api::containerdrs::shim::v1::Place;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::Digest;
use types::{Error, Result, ResultExt};

use crate::errno::Os;

/// Where sockets are, unless the daemon says otherwise.
pub const DIRECTORY: &str = "/run/containerd/s";
/// The longest path that upstream accepts.
const LIMIT: usize = 106;

/// The path of the socket that serves `group` for the daemon at `address`: the same as upstream's shim computes, so that
/// tools find it.
pub fn path(directory: &Path, address: &str, namespace: &str, group: &str) -> PathBuf {
    // Go's filepath.Join cleans what it joins.
    let joined = clean(&format!("{address}/{namespace}/{group}"));
    let sum = sha2::Sha256::digest(joined.as_bytes());
    directory.join(sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The same for its debug socket.
pub fn debug_path(directory: &Path, address: &str, namespace: &str, group: &str) -> PathBuf {
    path(directory, address, namespace, &format!("{group}/debug"))
}

/// What Go's path.Clean makes of a path.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if rooted { format!("/{joined}") } else { joined }
}

/// A socket of ours, removed from the filesystem by [`Socket::remove`], unless somebody else has taken its place.
#[derive(Clone, Debug)]
pub struct Socket {
    path: PathBuf,
    made: Identity,
}

/// Device, inode, and when it was made: an inode's number is soon used again.
type Identity = (u64, u64, i64, i64);

fn identity(made: &std::fs::Metadata) -> Identity {
    (made.dev(), made.ino(), made.ctime(), made.ctime_nsec())
}

/// What came of asking for a socket.
pub enum Claim {
    /// It is ours: listening.
    Ours(OwnedFd, Socket),
    /// A shim listens there already.
    Taken,
}

/// Listens at `path`, unless a shim does already. A socket where nobody listens is a leftover, and replaced.
///
/// The directory is locked meanwhile: two shims that start for one group must not take each other's new socket for a
/// leftover.
pub fn claim(path: &Path) -> Result<Claim> {
    let doing = || format!("create new shim socket {}", path.display());
    if path.as_os_str().len() > LIMIT {
        let what = format!("{:?}: unix socket path too long (> {LIMIT})", path.display());
        return Err(Error::invalid(what));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).context(doing)?;
    let lock = File::open(directory).context(doing)?;
    flock(&lock, FlockOperation::LockExclusive).os().context(doing)?;
    match listen(path) {
        Err(Errno::ADDRINUSE) if is_served(path) => Ok(Claim::Taken),
        Err(Errno::ADDRINUSE) => {
            std::fs::remove_file(path).context(|| "remove pre-existing socket")?;
            ours(listen(path).os().context(doing)?, path)
        }
        other => ours(other.os().context(doing)?, path),
    }
}

fn ours(listener: OwnedFd, path: &Path) -> Result<Claim> {
    let made = std::fs::symlink_metadata(path).context(|| format!("stat {}", path.display()))?;
    Ok(Claim::Ours(listener, Socket { path: path.to_owned(), made: identity(&made) }))
}

fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

/// Whether somebody accepts connections at `path`.
pub fn is_served(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connect = || -> Result<(), Errno> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    // A full queue belongs to somebody who is alive.
    matches!(connect(), Ok(()) | Err(Errno::AGAIN))
}

impl Socket {
    /// For another program of this process.
    pub fn write_down(&self) -> Place {
        let Self { path, made: (device, inode, seconds, nanos) } = self;
        let path = path.to_string_lossy().into_owned();
        Place { path, device: *device, inode: *inode, seconds: *seconds, nanos: *nanos }
    }

    /// The same, back.
    pub fn read_back(place: Place) -> Self {
        let Place { path, device, inode, seconds, nanos } = place;
        Self { path: PathBuf::from(path), made: (device, inode, seconds, nanos) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub fn remove(&self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| identity(&m) == self.made) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_one_that_upstream_computes() {
        // printf %s /run/containerd/containerd.sock/default/c1 | sha256sum
        let path = path(Path::new(DIRECTORY), "/run/containerd/containerd.sock", "default", "c1");
        let wanted = types::Digest::of(b"/run/containerd/containerd.sock/default/c1");
        assert_eq!(path.to_str().unwrap(), format!("{DIRECTORY}/{}", wanted.hex()));
        assert_eq!(clean("/a//b/../c/./d/"), "/a/c/d");
        assert_eq!(clean("/ns/id"), clean("//ns/id"));
    }

    #[test]
    fn a_served_socket_is_taken_and_a_leftover_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").join("socket");
        let Claim::Ours(listener, first) = claim(&path).unwrap() else { panic!("taken") };
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(claim(&path).unwrap(), Claim::Taken));
        drop(listener);
        let Claim::Ours(_listener, second) = claim(&path).unwrap() else { panic!("taken") };
        first.remove();
        assert!(path.exists());
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_does_not_fit_in_an_address_is_refused() {
        assert!(claim(&Path::new("/tmp").join("x".repeat(110))).is_err());
    }
}
