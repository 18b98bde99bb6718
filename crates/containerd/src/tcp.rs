//! The CRI over TCP (`disable_tcp_service = false` and an address of `io.containerd.server.v1.grpc-tcp`): its two services and nothing else,
//! as containerd serves them. Whoever reaches the address may do anything, unless clients have to show certificates.
//!
//! ```text
//!  accepted -> handshake, of many at once, ten seconds each -> HTTP/2
//! ```
//!
//! Certificates that cannot be used leave the daemon at work without this, and an address that is taken ends it, both as upstream.

use std::sync::Arc;
use std::time::Duration;

use cri::tls::{self, Socket};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};
use types::{Class, Error, Result};

use crate::config::{Config, Tcp, Tls};
use crate::pages;
use crate::plugins::{Kind, Plugins};
use crate::written::Connection;

/// Of the files.
const WHOSE: &str = "grpc-tcp";
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
fn acceptor(files: &Tls) -> Result<TlsAcceptor> {
    let chain = tls::certificates(&files.certificate, WHOSE)?;
    let key = tls::key(&files.key, WHOSE)?;
    let failed = |error| Error::caused(Class::InvalidArgument, "use the certificate of grpc-tcp", error);
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = match &files.clients {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(tls::certificates(path, WHOSE)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let unusable = |e| Error::caused(Class::InvalidArgument, format!("use {}", path.display()), e);
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(failed)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

impl Door {
    /// Connections as they come, each told to `came`. It ends with who reads them.
    pub fn connections(
        self,
        came: impl Fn() + Send + 'static,
    ) -> impl Stream<Item = std::io::Result<Connection<Socket>>> + Send {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(accept(self, sender, came));
        ReceiverStream::new(receiver)
    }
}

async fn accept(
    door: Door,
    sender: mpsc::Sender<std::io::Result<Connection<Socket>>>,
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
            drop(sender.send(Ok(Connection::new(Socket::Plain(stream)))).await);
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
                    drop(sender.send(Ok(Connection::new(Socket::Tls(Box::new(stream))))).await);
                }
                Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
                Err(_) => debug!("a TLS handshake took too long"),
            }
        });
    }
}
