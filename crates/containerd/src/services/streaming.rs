//! `containerd.services.streaming.v1.Streaming`: streams that transfers take up by name.
//!
//! ```text
//!  client: StreamInit{id} --> registered under its namespace --> an empty answer --> taken by a transfer
//!                                    |                                                     |
//!                       the client goes: forgotten                      dropped: the stream ends, the id is free
//! ```
//!
//! A stream under a lease goes with it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use api::ProtoAny;
use api::any;
use api::containerd::services::streaming::v1::StreamInit;
use async_trait::async_trait;

use grpc::streaming::streaming_server;
use metadata::{Collectible, Item};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::{Error, Labels, Namespace, Result, Scope};

use super::House;
use super::reply::{reply, required, scope};

/// Messages to a client that may wait.
const AHEAD: usize = 64;

type Key = (Namespace, String);

/// The streams that clients have opened. Cloning shares them.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<Key, Entry>>>);

struct Entry {
    lease: Option<String>,
    /// Gone once a transfer has it.
    stream: Option<Stream>,
}

/// One open stream. Dropping it ends it.
pub struct Stream {
    /// What the client sends.
    pub received: tonic::Streaming<ProtoAny>,
    /// What it gets.
    pub sender: mpsc::Sender<Result<ProtoAny, Status>>,
    _registered: Registered,
}

/// Frees the id.
struct Registered {
    streams: Streams,
    key: Key,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.key);
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(
        &self,
        scope: Scope,
        id: String,
        received: tonic::Streaming<ProtoAny>,
        sender: mpsc::Sender<Result<ProtoAny, Status>>,
    ) -> Result<Key> {
        let key = (scope.namespace, id);
        let mut streams = self.lock();
        if streams.contains_key(&key) {
            return Err(Error::already_exists(format!("stream {:?}: already exists", key.1)));
        }
        let registered = Registered { streams: self.clone(), key: key.clone() };
        let stream = Some(Stream { received, sender, _registered: registered });
        streams.insert(key.clone(), Entry { lease: scope.lease, stream });
        Ok(key)
    }

    /// Takes a stream up; it is nobody else's then.
    pub fn take(&self, namespace: &Namespace, id: &str) -> Result<Stream> {
        self.remove(&(namespace.clone(), id.to_owned()))
            .ok_or_else(|| Error::not_found(format!("stream {id:?}: not found")))
    }

    /// The stream, unless a transfer has it. Not to be dropped under the lock, which it takes itself.
    fn remove(&self, key: &Key) -> Option<Stream> {
        self.lock().get_mut(key)?.stream.take()
    }
}

#[async_trait]
impl Collectible for Streams {
    fn kind(&self) -> &'static str {
        "stream"
    }

    async fn items(&self) -> Vec<Item> {
        let item = |((namespace, id), entry): (&Key, &Entry)| Item {
            namespace: namespace.clone(),
            id: id.clone(),
            active: entry.lease.is_none(),
            lease: entry.lease.clone(),
            labels: Labels::new(),
        };
        self.lock().iter().map(item).collect()
    }

    async fn release(&self, dead: Vec<(Namespace, String)>) {
        for key in dead {
            drop(self.remove(&key));
        }
    }
}

/// The service.
pub struct Streaming(pub House);

#[tonic::async_trait]
impl streaming_server::Streaming for Streaming {
    type StreamStream = Answers;

    async fn stream(
        &self,
        request: Request<tonic::Streaming<ProtoAny>>,
    ) -> Result<Response<Answers>, Status> {
        let scope = scope(request.metadata())?;
        let mut received = request.into_inner();
        let first = required(received.message().await?, "the first message")?;
        let init: StreamInit = reply(any::unpack(&any::from_wire(first)))?;
        let (sender, answers) = mpsc::channel(AHEAD);
        let ready = ProtoAny { type_url: "google.protobuf.Empty".into(), value: Vec::new() };
        // There is room for one.
        drop(sender.try_send(Ok(ready)));
        let streams = self.0.streams.clone();
        let key = reply(streams.register(scope, init.id, received, sender))?;
        Ok(Response::new(Answers { answers: ReceiverStream::new(answers), streams, key }))
    }
}

/// What a client gets. Dropped when it has gone, or has all of it.
pub struct Answers {
    answers: ReceiverStream<Result<ProtoAny, Status>>,
    streams: Streams,
    key: Key,
}

impl futures_util::Stream for Answers {
    type Item = Result<ProtoAny, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.answers).poll_next(context)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // One that no transfer has taken will not be any more.
        drop(self.streams.remove(&self.key));
    }
}
