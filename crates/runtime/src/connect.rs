//! Connections to shims, one an address: containers of one pod share their shim, and its connection.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use types::{Error, Result, ResultExt};

use crate::endpoint::hybrid;
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
        Some(("hvsock", place)) => return dial_hybrid(place).await,
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

/// A port of a virtual machine, through the socket of its monitor: the first line asks for it, the answer's says that it is open.
async fn dial_hybrid(place: &str) -> Result<UnixStream> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (path, port) =
        hybrid(place).ok_or_else(|| Error::invalid(format!("invalid hybrid vsock address {place}")))?;
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    // Byte by byte: what follows the line is the protocol's.
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') && line.len() < HYBRID_ANSWER {
        line.push(stream.read_u8().await?);
    }
    match line.starts_with(b"OK ") && line.ends_with(b"\n") {
        true => Ok(stream),
        false => {
            let said = String::from_utf8_lossy(&line).into_owned();
            Err(Error::unavailable(format!("hybrid vsock handshake response error: {said:?}")))
        }
    }
}

/// The longest first line of a monitor's.
const HYBRID_ANSWER: usize = 64;

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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_port_behind_a_monitor_is_asked_for_and_what_follows_is_the_protocols() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let monitor = tokio::spawn(async move {
            for answer in ["OK 1073741824\nhello", "NO\n", &"x".repeat(100)] {
                let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert_eq!(line, "CONNECT 1024\n");
                stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let address = format!("hvsock://{}:1024", path.display());
        let mut said = String::new();
        dial(&address).await.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello");
        assert!(dial(&address).await.unwrap_err().to_string().contains("NO"));
        assert!(dial(&address).await.is_err());
        monitor.await.unwrap();
        let gone = dial(&format!("hvsock://{}:x", path.display())).await.unwrap_err();
        assert!(gone.to_string().contains("invalid hybrid vsock address"), "{gone}");
    }
}
