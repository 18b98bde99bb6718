//! What happens, told to the client on a stream of its own.
//!
//! What cannot be sent at once waits, in order, for who reads it; how far something has come is left out while much waits, so
//! that a client that does not read costs no memory. Nothing waits for a client but the end of a transfer, a moment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::containerd::types::transfer as wire;
use api::{ProtoAny, any, convert};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use types::oci::Descriptor;
use types::{Namespace, Result};

use crate::services::streaming::{Stream, Streams};

/// Messages that may wait, and of those that tell how far something has come.
const MOST: usize = 10_000;
const MOST_AMOUNTS: usize = 64;
/// How long the end of a transfer waits for what is left to tell.
const LATE: Duration = Duration::from_secs(1);

/// Where progress is told; nowhere if the client does not care. Cloning shares the stream.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Told>>);

struct Told {
    /// Until there is nothing more to tell.
    telling: Mutex<Option<Telling>>,
    waiting: Arc<AtomicUsize>,
}

struct Telling {
    messages: mpsc::UnboundedSender<ProtoAny>,
    sending: JoinHandle<()>,
}

impl Told {
    fn telling(&self) -> MutexGuard<'_, Option<Telling>> {
        // Only ever taken out whole.
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Takes up the stream that the client has opened for it.
    pub fn open(streams: &Streams, namespace: &Namespace, id: &str) -> Result<Self> {
        if id.is_empty() {
            return Ok(Self(None));
        }
        let stream = streams.take(namespace, id)?;
        let (messages, received) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sending = tokio::spawn(send(stream, received, Arc::clone(&waiting)));
        let telling = Mutex::new(Some(Telling { messages, sending }));
        Ok(Self(Some(Arc::new(Told { telling, waiting }))))
    }

    /// Whether somebody is told.
    pub fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of the transfer as a whole.
    pub fn event(&self, event: impl Into<String>) {
        self.send(wire::Progress { event: event.into(), ..wire::Progress::default() }, MOST);
    }

    /// Tells of the transfer as a whole, and what it was about.
    pub fn described(&self, event: String, target: &Descriptor) {
        let desc = Some(convert::descriptor_to_wire(target.clone()));
        self.send(wire::Progress { event, desc, ..wire::Progress::default() }, MOST);
    }

    /// Tells of an image.
    pub fn image(&self, event: &str, name: &str, target: &Descriptor) {
        let desc = Some(convert::descriptor_to_wire(target.clone()));
        let event = event.to_owned();
        self.send(wire::Progress { event, name: name.to_owned(), desc, ..wire::Progress::default() }, MOST);
    }

    /// Tells what has become of a piece of content.
    pub fn content(&self, progress: wire::Progress) {
        self.send(progress, MOST);
    }

    /// Tells how far a piece of content has come.
    pub fn amount(&self, progress: wire::Progress) {
        self.send(progress, MOST_AMOUNTS);
    }

    fn send(&self, progress: wire::Progress, most: usize) {
        let Some(told) = &self.0 else { return };
        if let Some(telling) = &*told.telling()
            && told.waiting.load(Ordering::Relaxed) < most
        {
            told.waiting.fetch_add(1, Ordering::Relaxed);
            // A client that is gone needs to know nothing.
            drop(telling.messages.send(any::to_wire(any::pack(&progress))));
        }
    }

    /// Ends the stream when everything has been told, or after a moment. Whoever shares it tells nothing any more.
    pub async fn finish(&self) {
        let telling = self.0.as_ref().and_then(|told| told.telling().take());
        let Some(Telling { messages, mut sending }) = telling else { return };
        drop(messages);
        if tokio::time::timeout(LATE, &mut sending).await.is_err() {
            sending.abort();
        }
    }
}

async fn send(stream: Stream, mut messages: mpsc::UnboundedReceiver<ProtoAny>, waiting: Arc<AtomicUsize>) {
    while let Some(message) = messages.recv().await {
        waiting.fetch_sub(1, Ordering::Relaxed);
        if stream.sender.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
