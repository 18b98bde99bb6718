//! Connections to shims, one an address: containers of one pod share their shim, and its connection.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use types::{Error, Result, ResultExt};

use crate::ttrpc::Client;

/// The open connections by address.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<String, Weak<Client>>>,
}

impl Connections {
    /// The connection to `address`: an open one, or a new one.
    pub(crate) async fn connect(&self, address: &str) -> Result<Arc<Client>> {
        if let Some(client) = self.find(address) {
            return Ok(client);
        }
        let stream =
            dial(address).await.context(|| format!("failed to create TTRPC connection: dial {address}"))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been quicker: one of the two goes away again.
        if let Some(client) = open.get(address).and_then(Weak::upgrade).filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        open.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(Client::new(stream));
        open.insert(address.to_owned(), Arc::downgrade(&client));
        Ok(client)
    }

    fn find(&self, address: &str) -> Option<Arc<Client>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(address).and_then(Weak::upgrade).filter(|client| !client.is_closed())
    }
}

async fn dial(address: &str) -> Result<UnixStream> {
    let path = match address.split_once("://") {
        Some(("unix", path)) => path.to_owned(),
        Some((scheme, _)) => {
            return Err(Error::unimplemented(format!("unsupported protocol: {scheme}: not implemented")));
        }
        // An abstract name, of the shims of old daemons.
        None => format!("\0{address}"),
    };
    loop {
        match UnixStream::connect(&path).await {
            // A shim that is stopped does not accept; the kernel queues connections for it up to a limit.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            connected => return Ok(connected?),
        }
    }
}

/// Removes the socket file of a shim that is gone, unless another listens there by now.
pub(crate) fn remove_socket(address: &str) {
    let Some(path) = address.strip_prefix("unix://").map(Path::new) else { return };
    let is_socket = path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return;
    }
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if refused && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, address, "remove socket of dead shim");
    }
}

/// A socket that is younger may belong to a shim that is about to listen.
const FRESH: Duration = Duration::from_secs(60);

/// Removes the sockets in `dir` of shims that a crash took along. A directory that is ours alone: nobody else starts shims there,
/// and ours lock it while they begin to listen.
pub(crate) fn sweep(dir: &Path) -> io::Result<()> {
    let lock = std::fs::File::open(dir)?;
    lock.lock()?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let made = path.symlink_metadata().and_then(|m| m.modified());
        if made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > FRESH)) {
            remove_socket(&format!("unix://{}", path.display()));
        }
    }
    Ok(())
}
