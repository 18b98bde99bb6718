//! Listening, and stopping: the order in which doors open and close.
//!
//! ```text
//!  sockets bound -> shims answered -> READY -> ... TERM or INT -> STOPPING -> no new calls, changes that are nearly done are finished,
//!  others cut off, and said so -> sockets removed -> exit 0. Containers are not touched.
//! ```

use std::time::{Duration, Instant};

use futures_util::Stream;
use sd_notify::NotifyState;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::{info, warn};
use types::Result;
use types::events::Exchange;

use crate::calls::Observe;
use crate::config::Config;
use crate::services::House;
use crate::signals::{Signals, notify};
use crate::socket::{self, SocketFile};
use crate::tcp;
use crate::written::Connection;

/// How long changes under way may take when the daemon is told to stop. A longer one is cut off, and its caller told so, as containerd
/// does: the next start deals with it as after a kill -9, so that nothing is gained by waiting but a restart that is late.
const DRAIN: Duration = Duration::from_millis(500);
/// How long shims are waited for before the daemon calls itself ready; each has a shorter time limit of its own.
const SHIMS: Duration = Duration::from_secs(20);
/// How long replies may take to be read once everything is done.
const REPLIES: Duration = Duration::from_millis(200);
/// How much of a stream may be under way unread: a chunk of a blob, not 64 KiB.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Go clients cancel many calls, each by a reset; HTTP/2's defaults (20 and 1024) end the whole connection for that.
const RESETS: usize = 100_000;
/// Bytes of a call's headers.
const HEADERS: u32 = 16 << 20;

/// The bound sockets.
pub struct Sockets {
    grpc: (UnixListener, SocketFile),
    ttrpc: (UnixListener, SocketFile),
}

impl Sockets {
    /// Binds both.
    pub fn bind(config: &Config) -> Result<Self> {
        Ok(Self { ttrpc: socket::bind(&config.ttrpc)?, grpc: socket::bind(&config.grpc)? })
    }
}

/// What goes on from READY until the daemon is told to stop.
pub struct Open {
    /// The services.
    pub routes: Routes,
    /// Where they are served.
    pub sockets: Sockets,
    /// Where the CRI is served as well, and its services.
    pub tcp: Option<(tcp::Door, Routes)>,
    /// Who starts containers again, if anybody does.
    pub monitor: Option<JoinHandle<()>>,
    /// Kubernetes' front door, if it is open.
    pub cri: Option<cri::Cri>,
}

/// Serves until told to stop.
pub async fn serve(house: House, open: Open, signals: &mut Signals, begun: Instant) {
    let Open { routes, sockets, tcp, monitor, cri } = open;
    let (grpc, grpc_file) = sockets.grpc;
    let (ttrpc, ttrpc_file) = sockets.ttrpc;
    let (stop, told) = watch::channel(());
    let stopped = |mut stopped: watch::Receiver<()>| async move {
        // An error means that the sender was dropped, which is the signal.
        drop(stopped.changed().await);
    };
    let (until, until_over_tcp) = (stopped(told.clone()), stopped(told));
    let observe = Observe::new(house.calls.clone());
    // Much of what the start has needed is needed once.
    house.work.disturbed();
    let came = house.work.clone();
    let over_tcp = tcp.map(|(door, routes)| {
        let came = came.clone();
        let connections = door.connections(move || came.disturbed());
        tokio::spawn(grpc_server(connections, routes, observe.clone(), until_over_tcp))
    });
    let connections = socket::connections(grpc, move || came.disturbed());
    let mut server = tokio::spawn(grpc_server(connections, routes, observe.clone(), until));
    let shims = tokio::spawn(ttrpc_server(ttrpc, house.events.clone()));
    if let Some(cri) = cri {
        let loaded = house.runtime.clone();
        tokio::spawn(async move {
            // What its containers are is known when shims have been asked.
            drop(tokio::time::timeout(SHIMS, loaded.loaded()).await);
            cri.start().await;
            cri.serve_streams().await;
        });
    }
    ready(&house, signals, begun).await;
    drop(stop);
    monitor.iter().for_each(JoinHandle::abort);
    let cut_off = house.work.drain(DRAIN).await;
    if cut_off > 0 {
        warn!(changes = cut_off, "stopping although changes are still under way");
    }
    // Open streams never end by themselves; everybody else only has a reply to read.
    drop(tokio::time::timeout(REPLIES, &mut server).await);
    server.abort();
    over_tcp.iter().for_each(JoinHandle::abort);
    shims.abort();
    drop((grpc_file, ttrpc_file));
}

/// Says so when every task is known or its shim had its time, and returns when the daemon is to stop. Calls are answered
/// meanwhile; those about a task that is being looked for wait.
async fn ready(house: &House, signals: &mut Signals, begun: Instant) {
    tokio::select! {
        found = tokio::time::timeout(SHIMS, house.runtime.loaded()) => {
            if found.is_err() {
                warn!(limit = ?SHIMS, "shims do not answer, going on without them");
            }
        }
        () = signals.stop() => return,
    }
    notify(&NotifyState::Ready);
    info!("containerd successfully booted in {:.6}s", begun.elapsed().as_secs_f64());
    signals.stop().await;
}

async fn grpc_server<S>(
    connections: impl Stream<Item = std::io::Result<Connection<S>>>,
    routes: Routes,
    observe: Observe,
    stopped: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .layer(observe)
        .add_routes(routes);
    if let Err(error) = server.serve_with_incoming_shutdown(connections, stopped).await {
        warn!(%error, "gRPC server ended");
    }
}

async fn ttrpc_server(listener: UnixListener, events: Exchange) {
    runtime::ttrpc::serve(listener, runtime::ttrpc::forward_events(events)).await;
}
