//! Who is writing which ingest.
//!
//! ```text
//!  free --lock--> held --writer dropped--> leaving --its last write is done--> free
//! ```
//!
//! A second writer is refused while the reference is held. While the first one is only finishing a write that it
//! started before it was dropped, the second waits for that: it is the same client that comes back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Semaphore;
use types::{Error, Result, time};

/// The references that are being written.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<String, Held>>);

struct Held {
    since: SystemTime,
    leaving: bool,
    /// Closed when the reference is free.
    free: Arc<Semaphore>,
}

/// Keeps a reference locked.
pub(super) struct RefLock {
    locks: Arc<Locks>,
    reference: String,
}

impl Locks {
    /// Locks `reference`, or says since when another writer has it.
    pub(super) async fn lock(self: &Arc<Self>, reference: &str) -> Result<RefLock> {
        loop {
            let free = match self.table().entry(reference.to_owned()) {
                Entry::Vacant(entry) => {
                    let free = Arc::new(Semaphore::new(0));
                    entry.insert(Held { since: SystemTime::now(), leaving: false, free });
                    return Ok(RefLock { locks: Arc::clone(self), reference: reference.to_owned() });
                }
                Entry::Occupied(held) if held.get().leaving => Arc::clone(&held.get().free),
                Entry::Occupied(held) => return Err(locked(reference, held.get().since)),
            };
            closed(&free).await;
        }
    }

    /// Waits until a writer that was dropped has finished; does not wait for one that is open.
    pub(super) async fn settled(&self, reference: &str) {
        let leaving =
            self.table().get(reference).filter(|held| held.leaving).map(|held| Arc::clone(&held.free));
        if let Some(free) = leaving {
            closed(&free).await;
        }
    }

    /// The writer of `reference` is gone; what it started may still be going on.
    pub(super) fn leave(&self, reference: &str) {
        if let Some(held) = self.table().get_mut(reference) {
            held.leaving = true;
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Each change is one insert, remove or flag: there is no half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RefLock {
    fn drop(&mut self) {
        if let Some(held) = self.locks.table().remove(&self.reference) {
            held.free.close();
        }
    }
}

async fn closed(semaphore: &Semaphore) {
    // It never has permits: the only way out is that it is closed.
    drop(semaphore.acquire().await);
}

fn locked(reference: &str, since: SystemTime) -> Error {
    let age = since.elapsed().unwrap_or_default();
    let since = time::rfc3339(since);
    Error::unavailable(format!("ref {reference} locked for {age:?} (since {since}): unavailable"))
}
