//! A connection to a port of a pod.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use types::{Error, Result, ResultExt};

use super::connection::{Inbound, Outbound, PIECE};
use crate::cri::Cri;

/// How long a client may say nothing when the pod has ended its direction.
const SILENCE: Duration = Duration::from_secs(1);

/// Connects a stream to a port of a pod, until both directions have ended.
pub async fn forward(cri: &Cri, pod: &str, port: u16, input: Inbound, output: Outbound) -> Result<()> {
    let pod = cri.pods.get(pod).context(|| format!("failed to find sandbox {pod:?} in store"))?;
    let netns = &pod.record.netns;
    let place = if netns.is_empty() { "host" } else { netns };
    let connected = connect(netns, pod.id(), port).await;
    let connected =
        connected.context(|| format!("failed to execute portforward in network namespace {place:?}"));
    match connected {
        Ok(socket) => {
            copy(socket, input, output).await;
            Ok(())
        }
        Err(error) => {
            output.reset().await;
            Err(error)
        }
    }
}

/// Connects to a port of localhost in the network namespace at `netns`, or in ours if that is empty.
async fn connect(netns: &str, pod: &str, port: u16) -> Result<TcpStream> {
    let v4 = match dial(netns, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(socket) => return Ok(socket),
        Err(error) => error,
    };
    dial(netns, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|v6| {
        let what = format!("failed to connect to localhost:{port} inside namespace {pod:?}");
        Error::unavailable(format!("{what}, IPv4: {v4} IPv6 {v6}"))
    })
}

async fn dial(netns: &str, to: SocketAddr) -> io::Result<TcpStream> {
    if netns.is_empty() {
        return TcpStream::connect(to).await;
    }
    // A socket stays in the namespace in which it was made.
    let netns = netns.to_owned();
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let make = move || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let netns = sys::netns::Netns::open(Path::new(&netns))?;
        netns.inside(|| socket_with(family, SocketType::STREAM, flags, None).map_err(io::Error::from))?
    };
    let socket = tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Copies both ways. A direction that has ended ends alone, as with any connection; the pod's end gives the client another moment.
async fn copy(socket: TcpStream, input: Inbound, output: Outbound) {
    // It only makes answers quicker.
    drop(socket.set_nodelay(true));
    let reset = output.reset_mark();
    let (read, write) = socket.into_split();
    let from_pod = from_pod(read, output);
    let (said, heard) = tokio::sync::watch::channel(false);
    let to_pod = to_pod(input, write, heard);
    let from_pod = async move {
        let ended = from_pod.await;
        said.send_replace(true);
        ended
    };
    tokio::pin!(from_pod, to_pod);
    tokio::select! {
        // The client does not want any more: nothing that it would say counts.
        ended = &mut from_pod => if ended.is_ok() { to_pod.await },
        () = &mut to_pod => if !reset.load(Ordering::Relaxed) { drop(from_pod.await) },
    }
}

async fn from_pod(mut socket: OwnedReadHalf, output: Outbound) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        socket.readable().await?;
        if buffer.capacity() < PIECE / 16 {
            buffer.reserve(PIECE);
        }
        if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            output.finish().await;
            return Ok(());
        }
        output.send(buffer.split().freeze()).await?;
    }
}

/// Ends with the client's direction, or when `ended` says that the pod's has and the client falls silent.
async fn to_pod(
    mut input: Inbound,
    mut socket: OwnedWriteHalf,
    mut ended: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let bytes = tokio::select! {
            bytes = input.next() => bytes,
            () = async { drop(ended.wait_for(|ended| *ended).await) } => match timeout(SILENCE, input.next()).await {
                Ok(bytes) => bytes,
                Err(_) => return,
            },
        };
        let Some(bytes) = bytes else {
            drop(socket.shutdown().await);
            return;
        };
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
