//! Port-forward: each connection to a port of the pod is a pair of streams, one for data and one for an error.

use std::collections::HashMap;
use std::sync::Arc;

use api::cri::PortForwardRequest;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use types::{Error, Result};

use super::command::CREATION;
use super::connection::{Connection, Direction, Gone, Outbound, Stream, Upgraded};
use super::http::Transport;
use super::server::Shared;
use super::spdy::Headers;

/// Serves a port-forward.
pub async fn run(
    upgraded: Upgraded,
    transport: Transport,
    request: PortForwardRequest,
    shared: &Arc<Shared>,
) -> Result<()> {
    let idle = shared.idle;
    let forward = Forward { pod: request.pod_sandbox_id, shared: Arc::clone(shared) };
    match transport {
        Transport::Spdy { tunnel, .. } => {
            let (connection, incoming) = Connection::spdy(upgraded, tunnel, accept)?;
            let (gone, idle) = (connection.gone(), connection.idle(idle));
            tokio::select! {
                () = pairs(forward, incoming, gone) => {}
                () = idle => {}
            }
            connection.close().await;
        }
        Transport::Channels { codec, .. } => {
            let ports: Vec<u16> = request.port.iter().map(|port| port_of(*port)).collect::<Result<_>>()?;
            let directions = [Direction::In, Direction::Out].repeat(ports.len());
            let (connection, streams) = Connection::channels(upgraded, codec, &directions)?;
            let (gone, idle) = (connection.gone(), connection.idle(idle));
            tokio::select! {
                () = channels(forward, ports, streams, gone) => connection.close().await,
                () = idle => {}
            }
        }
    }
    Ok(())
}

/// A port by number, which is none of those that cannot be.
pub fn port_of(port: i32) -> Result<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::invalid(format!("invalid port {port}"))),
    }
}

/// Whether a stream says what it is for.
fn accept(headers: &Headers) -> Result<()> {
    let port = headers.get("port");
    match port.parse::<u16>() {
        _ if port.is_empty() => return Err(Error::invalid("\"port\" header is required")),
        Ok(0) => return Err(Error::invalid("port \"0\" must be > 0")),
        Ok(_) => {}
        Err(e) => return Err(Error::invalid(format!("unable to parse {port:?} as a port: {e}"))),
    }
    match headers.get("streamtype") {
        "" => Err(Error::invalid("\"streamType\" header is required")),
        "error" | "data" => Ok(()),
        other => Err(Error::invalid(format!("invalid stream type {other:?}"))),
    }
}

/// Who connects.
struct Forward {
    pod: String,
    shared: Arc<Shared>,
}

impl Forward {
    /// Connects a stream to a port, and tells what went wrong in the error stream.
    fn start(&self, tasks: &mut JoinSet<()>, port: u16, data: Stream, errors: Outbound) {
        let pod = self.pod.clone();
        let forwarded = (self.shared.handlers.forward)(pod.clone(), port, data.input, data.output);
        tasks.spawn(async move {
            if let Err(error) = forwarded.await {
                let why = format!("error forwarding port {port} to pod {pod}, uid : {error}");
                tracing::debug!(%error, port, pod, "forward a port");
                drop(errors.send(why.into()).await);
            }
            errors.finish().await;
        });
    }
}

/// Half of a pair, and when it is given up.
struct Half {
    stream: Stream,
    until: Instant,
}

/// Puts streams of the same request together until the client is gone.
async fn pairs(forward: Forward, mut incoming: mpsc::Receiver<Stream>, mut gone: Gone) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let next = halves.values().map(|half| half.until).min();
        let overdue = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = gone.wait() => return,
            Some(_) = tasks.join_next() => {}
            stream = incoming.recv() => match stream {
                Some(stream) => pair(&forward, &mut tasks, &mut halves, stream).await,
                None => return,
            },
            () = overdue => give_up(&mut halves).await,
        }
    }
}

async fn pair(
    forward: &Forward,
    tasks: &mut JoinSet<()>,
    halves: &mut HashMap<String, Half>,
    stream: Stream,
) {
    let request = request_of(&stream);
    let Some(first) = halves.remove(&request) else {
        halves.insert(request, Half { stream, until: Instant::now() + CREATION });
        return;
    };
    let (kind, other) = (stream.headers.get("streamtype"), first.stream.headers.get("streamtype"));
    if kind == other {
        let why = format!("error processing stream for request {request}: {kind} stream already assigned");
        if kind == "error" {
            drop(first.stream.output.send(why.into()).await);
        }
        stream.output.reset().await;
        halves.insert(request, first);
        return;
    }
    let (data, errors) = if kind == "data" { (stream, first.stream) } else { (first.stream, stream) };
    // It was read when the stream was accepted.
    let port = data.headers.get("port").parse().unwrap_or_default();
    forward.start(tasks, port, data, errors.output);
}

/// Forgets halves whose other half has not come.
async fn give_up(halves: &mut HashMap<String, Half>) {
    let now = Instant::now();
    let late: Vec<String> =
        halves.iter().filter(|(_, half)| half.until <= now).map(|(request, _)| request.clone()).collect();
    for request in late {
        let Some(Half { stream, .. }) = halves.remove(&request) else { continue };
        if stream.headers.get("streamtype") == "error" {
            let why = format!("(request={request}) timed out waiting for streams");
            drop(stream.output.send(why.into()).await);
        }
        stream.output.reset().await;
    }
}

/// What pairs have in common. Old clients do not say it; theirs follow each other, the error stream first.
fn request_of(stream: &Stream) -> String {
    match stream.headers.get("requestid") {
        "" if stream.headers.get("streamtype") == "data" => (i64::from(stream.id) - 2).to_string(),
        "" => stream.id.to_string(),
        request => request.to_owned(),
    }
}

/// Channels 2n and 2n+1 are data and error of the n-th port; each begins with the port's number.
async fn channels(forward: Forward, ports: Vec<u16>, streams: Vec<Stream>, mut gone: Gone) {
    let mut tasks = JoinSet::new();
    let mut streams = streams.into_iter();
    for port in ports {
        let (Some(data), Some(errors)) = (streams.next(), streams.next()) else { break };
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        for output in [&data.output, &errors.output] {
            if output.send(number.clone()).await.is_err() {
                return;
            }
        }
        forward.start(&mut tasks, port, data, errors.output);
    }
    tokio::select! {
        () = gone.wait() => {}
        () = async { while tasks.join_next().await.is_some() {} } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_that_a_port_can_have() {
        assert_eq!(port_of(65535).unwrap(), 65535);
        for port in [0, -1, 65536] {
            assert_eq!(port_of(port).unwrap_err().to_string(), format!("invalid port {port}"));
        }
    }
}
