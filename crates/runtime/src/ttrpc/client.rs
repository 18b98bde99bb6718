//! The calling side: many calls at a time over one connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::ttrpc::{KeyValue, Kind, NAMESPACE, Response};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use types::{Class, Error, Namespace, Result, crash};

use super::decoder::Incoming;
use super::wire::Wire;

/// Why a call brought no payload.
#[derive(Debug)]
pub enum Failure {
    /// The connection is gone.
    Closed,
    /// No answer in time; the peer may still be at it.
    Deadline,
    /// The peer answered with an error, or with something that is no answer.
    Answer(Error),
}

impl Failure {
    /// Whether the peer does not know the service or the method.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Answer(error) if error.class() == Class::Unimplemented)
    }

    /// Whether the peer answered that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answer(error) if error.class() == Class::NotFound)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::unavailable("ttrpc: closed"),
            Failure::Deadline => Self::deadline("context deadline exceeded"),
            Failure::Answer(error) => error,
        }
    }
}

/// What to call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// e.g. `containerd.task.v3.Task`.
    pub service: &'a str,
    /// e.g. `Create`.
    pub method: &'a str,
    /// Sent as metadata.
    pub namespace: &'a Namespace,
    /// How long to wait for the answer; told to the peer. None waits for as long as the peer is there.
    pub timeout: Option<Duration>,
}

/// A connection to a ttrpc server. Dropping it closes the connection.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    calls: Mutex<Calls>,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Calls {
    next: u32,
    /// None once the connection is gone.
    waiting: Option<HashMap<u32, oneshot::Sender<Result<Response>>>>,
}

impl Client {
    /// Speaks over `stream`; spawns the connection's task on the current runtime.
    pub fn new(stream: UnixStream) -> Self {
        let shared = Arc::new(Shared {
            wire: Wire::new(stream),
            calls: Mutex::new(Calls { next: 1, waiting: Some(HashMap::new()) }),
            closed: watch::Sender::new(false),
        });
        let run = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            if let Err(error) = run.wire.run(|incoming| run.receive(incoming)).await {
                tracing::debug!(%error, "ttrpc connection ended");
            }
            run.close();
        });
        Self { shared, task: task.abort_handle() }
    }

    /// Calls and waits for the answer. Cancel safe: an answer that nobody waits for any more is thrown away.
    pub async fn call(&self, call: Call<'_>, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let answer = self.shared.send(call, payload)?;
        match call.method {
            "Create" => crash::point("create-sent"),
            "Start" => crash::point("start-sent"),
            "Delete" => crash::point("delete-sent"),
            _ => {}
        }
        let answered = match call.timeout {
            None => answer.wait().await,
            Some(limit) => tokio::time::timeout(limit, answer.wait()).await.map_err(|_| Failure::Deadline)?,
        };
        answered?.and_then(api::ttrpc::result).map_err(Failure::Answer)
    }

    /// Returns when the connection is gone. Cancel safe.
    pub async fn closed(&self) {
        // The sender lives as long as `self`, so the wait ends by the value alone.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// As [`Client::closed`], without keeping the client: also when it was dropped.
    pub fn when_closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.shared.closed.subscribe();
        async move {
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }
}

#[cfg(test)]
impl Client {
    /// How many calls wait for an answer.
    pub(super) fn shared_calls(&self) -> usize {
        self.shared.lock().waiting.as_ref().map_or(0, HashMap::len)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A sent request; dropping it forgets the call.
struct Pending<'a> {
    shared: &'a Shared,
    stream: u32,
    receiver: oneshot::Receiver<Result<Response>>,
}

impl Pending<'_> {
    async fn wait(mut self) -> Result<Result<Response>, Failure> {
        (&mut self.receiver).await.map_err(|_| Failure::Closed)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut self.shared.lock().waiting {
            waiting.remove(&self.stream);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, call: Call<'_>, payload: Vec<u8>) -> Result<Pending<'_>, Failure> {
        let timeout_nano = call.timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX));
        let request = api::ttrpc::Request {
            service: call.service.to_owned(),
            method: call.method.to_owned(),
            payload,
            timeout_nano,
            metadata: vec![KeyValue { key: NAMESPACE.to_owned(), value: call.namespace.as_str().to_owned() }],
        };
        // Servers insist on ids that grow, so the frames leave in the order of their ids: under one lock.
        let mut calls = self.lock();
        let stream = calls.next;
        let frame = api::ttrpc::frame(Kind::Request, stream, &request).map_err(Failure::Answer)?;
        let (sender, receiver) = oneshot::channel();
        calls.waiting.as_mut().ok_or(Failure::Closed)?.insert(stream, sender);
        calls.next = stream
            .checked_add(2)
            .ok_or_else(|| Failure::Answer(Error::exhausted("ttrpc connection is out of stream ids")))?;
        let sent = self.wire.send(&frame);
        drop(calls);
        let pending = Pending { shared: self, stream, receiver };
        if let Err(error) = sent {
            tracing::debug!(%error, "write to ttrpc connection");
            self.close();
            return Err(Failure::Closed);
        }
        Ok(pending)
    }

    fn receive(&self, incoming: Incoming) {
        let (header, answer) = match incoming {
            Incoming::Frame(header, message) => {
                let decoded = Response::decode(message.as_slice())
                    .map_err(|e| Error::internal(format!("decode ttrpc response: {e}")));
                (header, decoded)
            }
            Incoming::TooLarge(header) => (header, Err(api::ttrpc::too_large(header.length))),
        };
        if header.kind != Kind::Response {
            return;
        }
        let waiting = self.lock().waiting.as_mut().and_then(|waiting| waiting.remove(&header.stream));
        if let Some(sender) = waiting {
            // The caller may have gone in this moment.
            let _ = sender.send(answer);
        }
    }

    /// Ends all calls; none can be made any more.
    fn close(&self) {
        let waiting = self.lock().waiting.take();
        drop(waiting);
        self.closed.send_replace(true);
    }
}
