//! Unix sockets that the daemon listens on.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;
use types::{Class, Error, Result, ResultExt};

use crate::config::Listener;
use crate::written::Connection;

/// A socket file of ours. It is removed when this is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Which file this is. The number of an inode alone is used again as soon as it is free.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> std::io::Result<Identity> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Whoever finds a file that could not be removed finds that nobody answers there.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Listens at the address, for its owner and group only. A file that is there already is removed if it is a socket where
/// nobody answers.
pub fn bind(listener: &Listener) -> Result<(UnixListener, SocketFile)> {
    let path = &listener.address;
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(parent)
            .context(|| format!("create directory {}", parent.display()))?;
    }
    remove_stale(path)?;
    let bound = UnixListener::bind(path).context(|| format!("listen on {}", path.display()))?;
    let identity = identity(path).context(|| format!("stat {}", path.display()))?;
    let file = SocketFile { path: path.clone(), identity };
    std::os::unix::fs::chown(path, Some(listener.uid), Some(listener.gid))
        .context(|| format!("set owner of {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .context(|| format!("set mode of {}", path.display()))?;
    Ok((bound, file))
}

fn remove_stale(path: &Path) -> Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.context(|| format!("stat {}", path.display()))?,
    };
    let refuse = |why: &str| {
        Err(Error::new(Class::FailedPrecondition, format!("listen on {}: {why}", path.display())))
    };
    if !found.file_type().is_socket() {
        return refuse("the file is there and is not a socket");
    }
    match Probe::connect(path) {
        Ok(_) => refuse("another process answers there"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).context(|| format!("remove stale socket {}", path.display()))
        }
        Err(error) => refuse(&error.to_string()),
    }
}

/// Connections as they come, each told to `came`. An error in accepting is waited out: a daemon that stops to listen because it once ran out of
/// descriptors is of no use.
pub fn connections(
    listener: UnixListener,
    came: impl Fn(),
) -> impl Stream<Item = std::io::Result<Connection<UnixStream>>> {
    futures_util::stream::unfold((listener, came), |(listener, came)| async move {
        let mut told = false;
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    came();
                    return Some((Ok(Connection::new(connection)), (listener, came)));
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(%error, "accept failed, trying again until it works");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &Path) -> Listener {
        let me = std::fs::metadata(path.parent().unwrap()).unwrap();
        Listener { address: path.to_owned(), uid: me.uid(), gid: me.gid() }
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/s");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let (first, file) = bind(&listener(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(bind(&listener(&path)).unwrap_err().to_string().contains("another process answers there"));
        drop(first);
        let (_second, second_file) = bind(&listener(&path)).unwrap();
        drop(file);
        assert!(path.exists(), "the first owner removed the second's socket");
        drop(second_file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&listener(&path)).unwrap_err().class(), Class::FailedPrecondition);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
