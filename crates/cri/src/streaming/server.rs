//! Connections of clients, before they are upgraded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use types::Result;

use super::tokens::Tokens;
use super::{Handlers, http};
use crate::tls::Socket;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of what a request's head may be.
const MAX_HEAD: usize = 64 << 10;

/// What all connections share.
pub struct Shared {
    pub(super) tokens: Arc<Tokens>,
    pub(super) handlers: Handlers,
    pub(super) idle: Duration,
}

/// Takes connections until it is dropped, and they with it.
pub async fn run(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                    connections.spawn(async move {
                        if let Err(error) = serve(socket, tls, shared).await {
                            tracing::debug!(%error, "serve a streaming client");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "take a streaming client's connection");
                    // Such as too many open files: others will close some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> Result<()> {
    // What is said is small and waited for.
    socket.set_nodelay(true)?;
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => {
            let accepted = timeout(PATIENCE, tls.accept(socket)).await.map_err(io::Error::from)?;
            Socket::Tls(Box::new(accepted?))
        }
    };
    let (hand, mut work) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request| {
        let (shared, hand) = (Arc::clone(&shared), hand.clone());
        async move { Ok::<_, std::convert::Infallible>(http::answer(request, &shared, &hand).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD);
    let served = builder.serve_connection(TokioIo::new(socket), service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "read a streaming client's request");
    }
    // What was upgraded goes on.
    match work.recv().await {
        Some(work) => work.await,
        None => Ok(()),
    }
}
