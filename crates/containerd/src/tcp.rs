//! The CRI over TCP (`disable_tcp_service = false` and an address of `io.containerd.server.v1.grpc-tcp`): its two services and nothing else,
//! as containerd serves them. Whoever reaches the address may do anything, unless clients have to show certificates.
//!
//! ```text
//!  accepted -> handshake, of many at once, ten seconds each -> HTTP/2
//! ```
//!
//! Certificates that cannot be used leave the daemon at work without this, and an address that is taken ends it, both as upstream.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};
use types::{Class, Error, Result};

use crate::config::{Config, Tcp, Tls};
use crate::pages;
use crate::plugins::{Kind, Plugins};
use crate::written::Connection;

/// How many handshakes are under way; others wait.
const HANDSHAKES: usize = 64;
/// How long one may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A bound address.
pub struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// Listens, if that is wanted and there is a CRI to be served.
pub async fn bind(config: &Config, plugins: &mut Plugins, cri: bool) -> Result<Option<(Door, Tcp)>> {
    let Some(tcp) = config.tcp.as_ref().filter(|_| plugins.wants(Kind::Server, "grpc-tcp")) else {
        return Ok(None);
    };
    let nothing = || Error::precondition("no tcp grpc services configured: skip plugin");
    let tls = match tcp.tls.as_ref().map(acceptor).transpose() {
        Ok(tls) if cri => tls,
        Ok(_) => return plugins.failed_tcp(config, &nothing()).map(|()| None),
        Err(error) => return plugins.failed_tcp(config, &error).map(|()| None),
    };
    let listener = pages::listen(&tcp.address).await;
    let listener = listener.map_err(|error| error.context("failed to get listener for TCP grpc endpoint"))?;
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    info!(address, encrypted = tls.is_some(), "serving the CRI over TCP");
    Ok(Some((Door { listener, tls }, tcp.clone())))
}

/// How to take connections.
fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unreadable(&tls.key, error))?;
    let failed = |error| Error::caused(Class::InvalidArgument, "use the certificate of grpc-tcp", error);
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let unusable = |e| Error::caused(Class::InvalidArgument, format!("use {}", path.display()), e);
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(failed)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: rustls::pki_types::pem::Error) -> Error {
    Error::caused(Class::InvalidArgument, format!("read {} for grpc-tcp", path.display()), error)
}

impl Door {
    /// Connections as they come, each told to `came`. It ends with who reads them.
    pub fn connections(
        self,
        came: impl Fn() + Send + 'static,
    ) -> impl Stream<Item = std::io::Result<Connection<Talk>>> + Send {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(accept(self, sender, came));
        ReceiverStream::new(receiver)
    }
}

async fn accept(
    door: Door,
    sender: mpsc::Sender<std::io::Result<Connection<Talk>>>,
    came: impl Fn() + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accept failed, trying again until it works");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        came();
        // Small messages go at once, as with Go.
        drop(stream.set_nodelay(true));
        let Some(tls) = door.tls.clone() else {
            drop(sender.send(Ok(Connection::new(Talk::Plain(stream)))).await);
            continue;
        };
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let sender = sender.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
            drop(place);
            match shaken {
                Ok(Ok(stream)) => {
                    drop(sender.send(Ok(Connection::new(Talk::Tls(Box::new(stream))))).await);
                }
                Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
                Err(_) => debug!("a TLS handshake took too long"),
            }
        });
    }
}

/// A client's connection, encrypted or not.
pub enum Talk {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Talk {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Talk {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
