//! What the pulls of one daemon have in common: who fetches what, how many at once, and the table of those that run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use content::locks::{Held, Locks};
use tokio::sync::Semaphore;
use types::oci::Descriptor;
use types::{Digest, Error, Result};

use crate::cancel::Cancel;
use crate::progress::{Event, Progress};

/// Kept as long as the daemon runs; built from nothing.
pub struct Shared {
    locks: Arc<Locks>,
    pub(super) downloads: Semaphore,
    pub(super) unpacks: Arc<Semaphore>,
    running: Mutex<Vec<Arc<Entry>>>,
}

/// A pull that runs, as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// In which namespace.
    pub namespace: String,
    /// The image's name.
    pub name: String,
    /// What the name points to.
    pub target: Digest,
    /// When it began.
    pub started: SystemTime,
    /// What it needs, by digest.
    pub layers: BTreeMap<Digest, Layer>,
}

/// Something that a pull needs: a layer, or a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many of them are there.
    pub fetched: u64,
    /// How many of them have been extracted; `None` if it is not unpacked.
    pub extracted: Option<u64>,
}

struct Entry(Mutex<Running>);

impl Shared {
    /// For so many downloads, and layers that are unpacked, at once.
    pub fn new(downloads: usize, unpacks: usize) -> Arc<Self> {
        Arc::new(Self {
            locks: Arc::default(),
            downloads: Semaphore::new(downloads.clamp(1, Semaphore::MAX_PERMITS)),
            unpacks: Arc::new(Semaphore::new(unpacks.clamp(1, Semaphore::MAX_PERMITS))),
            running: Mutex::default(),
        })
    }

    /// The pulls that run now.
    pub fn running(&self) -> Vec<Running> {
        self.table().iter().map(|entry| entry.lock().clone()).collect()
    }

    /// Waits until nobody else works on `name`.
    pub(super) async fn alone(&self, cancel: &Cancel, name: &str) -> Result<Held> {
        cancel.or(async { Ok(self.locks.hold(name).await) }).await
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        target: &Descriptor,
        progress: Arc<dyn Progress>,
    ) -> Watched {
        let entry = Arc::new(Entry(Mutex::new(Running {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            target: target.digest.clone(),
            started: SystemTime::now(),
            layers: BTreeMap::new(),
        })));
        self.table().push(Arc::clone(&entry));
        Watched { shared: Arc::clone(self), entry, progress }
    }

    fn table(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        // One push or removal at a time: there is no half of it.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // Each change is of one field.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit of a semaphore that is never closed.
pub(super) async fn permit<'a>(
    cancel: &Cancel,
    of: &'a Semaphore,
) -> Result<tokio::sync::SemaphorePermit<'a>> {
    let closed = |_| Error::internal("a limit of pulls was closed");
    cancel.or(async { of.acquire().await.map_err(closed) }).await
}

/// A pull in the table, until it is dropped.
pub(super) struct Watched {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    progress: Arc<dyn Progress>,
}

impl Watched {
    /// Notes what happens, and tells who draws.
    pub(super) fn report(&self, event: Event<'_>) {
        self.note(event);
        self.progress.report(event);
    }

    fn note(&self, event: Event<'_>) {
        let mut running = self.entry.lock();
        if let Event::Found(what, _) = event {
            running.layers.entry(what.digest.clone()).or_insert_with(|| Layer {
                media_type: what.media_type.clone(),
                size: what.size.unsigned_abs(),
                ..Layer::default()
            });
            return;
        }
        let (digest, change): (_, fn(&mut Layer, u64)) = match event {
            Event::Exists(digest) | Event::Fetched(digest) => (digest, |layer, _| layer.fetched = layer.size),
            Event::Fetching(digest, ..) => (digest, |layer, at| layer.fetched = at),
            Event::Unpacking(digest, _) => (digest, |layer, _| layer.extracted = Some(0)),
            Event::Extracting(digest, ..) => (digest, |layer, at| layer.extracted = Some(at)),
            Event::Unpacked(digest) => (digest, |layer, _| layer.extracted = Some(layer.size)),
            Event::Found(..) | Event::Member(..) | Event::Stored(_) | Event::Sending(..) | Event::Sent(_) => {
                return;
            }
        };
        let at = match event {
            Event::Fetching(_, at, _) | Event::Extracting(_, at, _) => at,
            _ => 0,
        };
        if let Some(layer) = running.layers.get_mut(digest) {
            change(layer, at);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.table().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}
