//! A small HTTP/1.1 server for pages that people and scrapers read: metrics, and the debug socket.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use types::{Error, Result, ResultExt};

use crate::config::Listener;
use crate::socket::{self, SocketFile};

/// How many connections are served at a time; others wait until one ends.
const CONNECTIONS: usize = 64;
/// How long a request's headers may take, and an idle connection its next request.
const HEADERS: Duration = Duration::from_secs(300);

/// Where pages are served.
#[derive(Debug)]
pub enum Door {
    /// For whoever reaches the address.
    Tcp(TcpListener),
    /// For owner and group of the file.
    Unix(UnixListener),
}

/// Answers to requests.
pub type Page = Response<Full<Bytes>>;

impl Door {
    /// Listens at `host:port`, where a missing host is every address of the machine.
    pub async fn tcp(address: &str) -> Result<Self> {
        listen(address).await.map(Self::Tcp)
    }

    /// Listens at a path, or at `host:port` if it is none. The file of the path is to be kept as long as the door.
    pub async fn anywhere(address: &str, uid: u32, gid: u32) -> Result<(Self, Option<SocketFile>)> {
        if !Path::new(address).is_absolute() {
            return Ok((Self::tcp(address).await?, None));
        }
        let (listener, file) = socket::bind(&Listener { address: address.into(), uid, gid })?;
        Ok((Self::Unix(listener), Some(file)))
    }

    /// Where it is, with the port that was chosen if none was named.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map(|path| path.display().to_string()).unwrap_or_default()
            }
        }
    }

    /// Serves pages until it is dropped.
    pub async fn serve<F, P>(self, page: F)
    where
        F: Fn(Request<Incoming>) -> P + Clone + Send + Sync + 'static,
        P: Future<Output = Page> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let page = page.clone();
            let accepted = match &self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(converse(stream, page, place)))
                }
                Self::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(converse(stream, page, place)))
                }
            };
            if let Err(error) = accepted {
                warn!(%error, "accept failed, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse<S, F, P, G>(stream: S, page: F, _place: G)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> P,
    P: Future<Output = Page>,
{
    let service = service_fn(|request| {
        let page = page(request);
        async move { Ok::<_, std::convert::Infallible>(page.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "connection to a page ended");
    }
}

/// Listens at `host:port`, where a missing host is every address of the machine.
pub async fn listen(address: &str) -> Result<TcpListener> {
    let what = || format!("listen on {address}");
    let bound = match address.strip_prefix(':') {
        Some(port) => {
            let port: u16 = port.parse().map_err(|_| Error::invalid(format!("{}: no port", what())))?;
            match TcpListener::bind(("::", port)).await {
                // A machine without IPv6.
                Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
                bound => bound,
            }
        }
        None => TcpListener::bind(address).await,
    };
    bound.context(what)
}

/// A page of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Page {
    typed(status, "text/plain; charset=utf-8", text)
}

/// A page with its type.
pub fn typed(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(text.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

/// The page that is not there, in the words of Go's server.
pub fn missing() -> Page {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
