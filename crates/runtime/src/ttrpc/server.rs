//! The serving side, for shims that forward their events.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::ttrpc::Kind;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use types::events::{Delivery, Exchange};
use types::{Error, Result};

use super::decoder::Incoming;
use super::wire::Wire;

/// How many calls of one peer may be under way.
const IN_FLIGHT: usize = 1024;
/// How long an event may take to those who subscribe. Then they do not read, and are behind.
const DELIVERY: Duration = Duration::from_millis(200);

/// A call from a peer.
#[derive(Clone, Debug)]
pub struct Request {
    /// e.g. `containerd.services.events.ttrpc.v1.Events`.
    pub service: String,
    /// e.g. `Forward`.
    pub method: String,
    /// What the peer sent along, e.g. the namespace.
    pub metadata: Vec<(String, String)>,
    /// The encoded message.
    pub payload: Vec<u8>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>>;

/// Accepts connections for ever and answers each call by `handler`. Dropping the future closes all of them.
pub async fn serve<H, F>(listener: UnixListener, handler: H)
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(serve_connection(stream, handler.clone())); }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "accept on ttrpc socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the calls of one peer until it is gone; what is then still under way is dropped.
///
/// A handler that does not wait is run to its end before the next frame is looked at, so that the events of a shim
/// are published in the order in which it sent them.
pub async fn serve_connection<H, F>(stream: UnixStream, handler: H)
where
    H: Fn(Request) -> F,
    F: Future<Output = Result<Vec<u8>>> + Send + 'static,
{
    let wire = Arc::new(Wire::new(stream));
    let mut calls = JoinSet::new();
    let mut last = 0;
    let receive = |incoming| {
        while calls.try_join_next().is_some() {}
        let (stream, begun) = begin(incoming, &mut last, &handler);
        match begun {
            None => {}
            Some(Begun::Answered(result)) => answer(&wire, stream, result),
            Some(Begun::Waiting(_)) if calls.len() >= IN_FLIGHT => {
                answer(&wire, stream, Err(Error::exhausted("too many calls under way on one connection")));
            }
            Some(Begun::Waiting(rest)) => {
                let wire = Arc::clone(&wire);
                calls.spawn(async move { answer(&wire, stream, rest.await) });
            }
        }
    };
    if let Err(error) = wire.run(receive).await {
        tracing::debug!(%error, "ttrpc peer gone");
    }
}

enum Begun {
    Answered(Result<Vec<u8>>),
    Waiting(Answer),
}

fn begin<H, F>(incoming: Incoming, last: &mut u32, handler: &H) -> (u32, Option<Begun>)
where
    H: Fn(Request) -> F,
    F: Future<Output = Result<Vec<u8>>> + Send + 'static,
{
    let (header, message) = match incoming {
        Incoming::Frame(header, message) => (header, Some(message)),
        Incoming::TooLarge(header) => (header, None),
    };
    let refuse = |error| (header.stream, Some(Begun::Answered(Err(error))));
    if header.kind != Kind::Request {
        return (header.stream, None);
    }
    if header.stream % 2 != 1 {
        return refuse(Error::invalid("StreamID must be odd for client initiated streams"));
    }
    if header.stream <= *last {
        return refuse(Error::invalid("StreamID cannot be re-used and must increment"));
    }
    *last = header.stream;
    let Some(message) = message else { return refuse(api::ttrpc::too_large(header.length)) };
    let request = match api::ttrpc::Request::decode(message.as_slice()) {
        Ok(request) => request,
        Err(e) => return refuse(Error::invalid(format!("decode ttrpc request: {e}"))),
    };
    let limit = u64::try_from(request.timeout_nano).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    let call = handler(Request {
        service: request.service,
        method: request.method,
        metadata: request.metadata.into_iter().map(|kv| (kv.key, kv.value)).collect(),
        payload: request.payload,
    });
    let mut future: Answer = Box::pin(call);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => (header.stream, Some(Begun::Answered(result))),
        Poll::Pending => (header.stream, Some(Begun::Waiting(with_limit(future, limit)))),
    }
}

fn with_limit(future: Answer, limit: Option<Duration>) -> Answer {
    let Some(limit) = limit else { return future };
    Box::pin(async move {
        tokio::time::timeout(limit, future)
            .await
            .unwrap_or_else(|_| Err(Error::deadline("context deadline exceeded")))
    })
}

fn answer(wire: &Wire, stream: u32, result: Result<Vec<u8>>) {
    let response = api::ttrpc::response(result);
    let frame = api::ttrpc::frame(Kind::Response, stream, &response)
        .or_else(|error| api::ttrpc::frame(Kind::Response, stream, &api::ttrpc::response(Err(error))));
    let sent = frame.and_then(|frame| Ok(wire.send(&frame)?));
    if let Err(error) = sent {
        tracing::debug!(%error, "answer ttrpc peer");
    }
}

/// The handler of the daemon's `<address>.ttrpc`: what shims forward is published on `exchange` as it is, once. A shim hears that
/// its event was taken when those who subscribe have it, and tells it again if we die before.
pub fn forward_events(exchange: Exchange) -> impl Fn(Request) -> Answer + Clone + Send + Sync + 'static {
    move |request| {
        let forwarded = forward(&exchange, &request);
        Box::pin(async move {
            delivered(forwarded?).await;
            Ok(Vec::new())
        })
    }
}

/// Waits until an event has reached those who subscribe, but not for one that does not read.
pub(crate) async fn delivered(mut delivery: Delivery) {
    let _ = tokio::time::timeout(DELIVERY, delivery.taken()).await;
    delivery.told();
}

fn forward(exchange: &Exchange, request: &Request) -> Result<Delivery> {
    if request.service != "containerd.services.events.ttrpc.v1.Events" {
        return Err(Error::unimplemented(format!("service {}", request.service)));
    }
    if request.method != "Forward" {
        return Err(Error::unimplemented(format!("method {}", request.method)));
    }
    let envelope = ForwardRequest::decode(request.payload.as_slice())
        .map_err(|e| Error::invalid(format!("decode ForwardRequest: {e}")))?
        .envelope
        .ok_or_else(|| Error::invalid("envelope is required"))?;
    exchange.forward_once(api::convert::envelope(envelope))
}
