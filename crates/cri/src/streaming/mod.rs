//! The server of exec, attach and port-forward: a CRI call leaves what it wants and gets a URL with a token; who comes to that
//! URL gets it, over SPDY/3.1 or a WebSocket.
//!
//! ```text
//!  tokens       what was asked for, by token         address, tls   where it listens, and how
//!  server       connections                          http           requests: token, protocol, upgrade
//!  spdy         frames     websocket    frames       connection     streams of an upgraded connection
//!  command      exec and attach: their streams, their ending (status), sizes of the terminal (resize)
//!  forward      port-forward: pairs of streams
//!  process      what exec and ExecSync run           attach, port   what attach and port-forward do
//! ```

mod address;
mod attach;
mod command;
pub mod connection;
mod forward;
mod http;
mod port;
pub mod process;
mod resize;
mod server;
pub mod spdy;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
pub mod websocket;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use types::{Error, Result};

use crate::config;
use crate::cri::Cri;
use command::Streams;
use connection::{Inbound, Outbound};
use tokens::{Asked, Tokens};

/// The server.
pub struct Streaming {
    listener: Mutex<Option<TcpListener>>,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    tokens: Arc<Tokens>,
    idle: Duration,
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").field("address", &self.address).finish_non_exhaustive()
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Who does what clients want.
struct Handlers {
    /// Runs a process and tells its exit code. Dropping the future does not end it.
    exec: Box<dyn Fn(ExecRequest, Streams) -> Answer<u32> + Send + Sync>,
    attach: Box<dyn Fn(AttachRequest, Streams) -> Answer<()> + Send + Sync>,
    /// Connects to a port of a pod.
    forward: Box<dyn Fn(String, u16, Inbound, Outbound) -> Answer<()> + Send + Sync>,
}

impl Streaming {
    /// Binds the server's socket.
    pub async fn bind(config: &config::Streaming) -> Result<Self> {
        let listener = address::bind(&config.address, &config.port).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener: Mutex::new(Some(listener)),
            tls: tls::acceptor(config, address.ip())?,
            address,
            tokens: Arc::default(),
            idle: config.idle,
        })
    }

    /// Serves clients until it is dropped. Only who comes first serves.
    async fn run(&self, handlers: Handlers) {
        let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let shared = server::Shared { tokens: Arc::clone(&self.tokens), handlers, idle: self.idle };
        server::run(listener, self.tls.clone(), Arc::new(shared)).await;
    }

    /// Where a process of a container can be run.
    pub fn exec(&self, request: ExecRequest) -> Result<String> {
        check(&request.container_id, request.tty, [request.stdin, request.stdout, request.stderr])?;
        Ok(self.url("exec", &self.tokens.insert(Asked::Exec(request))?))
    }

    /// Where a container can be attached to.
    pub fn attach(&self, request: AttachRequest) -> Result<String> {
        check(&request.container_id, request.tty, [request.stdin, request.stdout, request.stderr])?;
        Ok(self.url("attach", &self.tokens.insert(Asked::Attach(request))?))
    }

    /// Where ports of a pod can be connected to.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        if request.pod_sandbox_id.is_empty() {
            return Err(Error::invalid("missing required pod_sandbox_id"));
        }
        Ok(self.url("portforward", &self.tokens.insert(Asked::PortForward(request))?))
    }

    fn url(&self, what: &str, token: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{what}/{token}", self.address)
    }
}

/// Whether an exec or attach can be.
fn check(container: &str, tty: bool, [stdin, stdout, stderr]: [bool; 3]) -> Result<()> {
    if container.is_empty() {
        Err(Error::invalid("missing required container_id"))
    } else if tty && stderr {
        Err(Error::invalid("tty and stderr cannot both be true"))
    } else if !stdin && !stdout && !stderr {
        Err(Error::invalid("one of stdin, stdout, or stderr must be set"))
    } else {
        Ok(())
    }
}

impl Cri {
    /// Serves those who come for streams, until it is dropped.
    pub async fn serve_streams(&self) {
        let (exec, attach, forward) = (self.clone(), self.clone(), self.clone());
        let handlers = Handlers {
            exec: Box::new(move |request, streams| process::stream(exec.clone(), request, streams)),
            attach: Box::new(move |request, streams| {
                let cri = attach.clone();
                Box::pin(async move { attach::run(&cri, request, streams).await })
            }),
            forward: Box::new(move |pod, port, input, output| {
                let cri = forward.clone();
                Box::pin(async move { port::forward(&cri, &pod, port, input, output).await })
            }),
        };
        self.streaming.run(handlers).await;
    }
}
