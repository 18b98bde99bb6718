//! Garbage collection: what nothing keeps any more is removed, and nothing that is in use is ever lost.
//!
//! ```text
//!  raise the barrier   on the writer thread; from now on it notes what is touched
//!  mark                on a version of the database of its own, on a blocking thread; nobody waits for it
//!  sweep               batches of rows, each a mutation: first keep what was touched and all that it refers to, then remove
//!                      what is still dead; whoever refers goes before what it refers to
//!  collectibles        what does not stand in the database (streams, mounts)
//!  bury                blobs, ingests and snapshots without rows leave the disk
//! ```
//!
//! What keeps: images and leases that have not expired, containers, ingests for a day, the label `gc.root`, snapshots
//! that are being committed, active collectibles; and everything that these refer to (see `facts` and `reference`).
//!
//! Why it loses nothing: at the time of a batch something is in use if a chain of references leads to it from something
//! that stays. If all links of the chain are older than the mark, the mark has gone along it. Otherwise go to the last link
//! that is younger: the row that has it was written since, so it was noted, and the batch has gone along the rest.
//!
//! A crash between any two steps leaves rows that the next collection removes, notes in `dead`, or snapshots of an
//! earlier generation without a row (see `recover`).

mod bury;
mod collectible;
mod facts;
mod graph;
mod node;
mod reference;
mod row;
mod scan;
mod shade;
mod sweep;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use types::{Error, Namespace, Result};

use crate::db::Db;

use collectible::Known;
pub use collectible::{Collectible, Item};
use facts::Reading;
use node::{Ids, Kind, Node, Owned};
use scan::Found;
use shade::Keep;
use sweep::{Removed, Sweep};
pub(crate) use sweep::{remove_blob, remove_ingest};

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How many rows it looked at.
    pub rows: usize,
    /// How many it removed.
    pub removed: usize,
    /// How long mark and sweep took. Nobody waited for it.
    pub duration: Duration,
    /// When the next thing expires that has not yet.
    pub next_expiry: Option<SystemTime>,
}

/// Something that clients may want to know is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collected {
    /// An image that had expired.
    Image {
        /// Its name.
        name: String,
    },
    /// A snapshot.
    Snapshot {
        /// Of which snapshotter.
        snapshotter: String,
        /// Its key.
        key: String,
    },
}

/// Is told of what was collected.
pub type Observer<'a> = dyn Fn(&Namespace, Collected) + Send + Sync + 'a;

/// Lowers the barrier, whichever way a collection ends.
struct Raised {
    db: Db,
    collection: u64,
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.db.inner.observed.barrier.lower(self.collection);
    }
}

impl Db {
    /// Lets collections look after a kind of things that does not stand in the database.
    pub fn collect_also(&self, collectible: Arc<dyn Collectible>) {
        self.inner.collectibles.lock().unwrap_or_else(PoisonError::into_inner).push(collectible);
    }

    /// Removes what nothing keeps. One collection runs at a time; `observer` is told of what others may know.
    ///
    /// Cancel safety: what is removed then stays removed, the rest is for the next collection.
    pub async fn collect(&self, observer: &Observer<'_>) -> Result<Statistics> {
        let _one = self.inner.collecting.lock().await;
        let collectibles = self.inner.collectibles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let statistics = self.collect_rows(&collectibles, observer).await;
        // Also what an earlier one left, and what clients have removed.
        self.bury_all().await;
        statistics
    }

    async fn collect_rows(
        &self,
        collectibles: &[Arc<dyn Collectible>],
        observer: &Observer<'_>,
    ) -> Result<Statistics> {
        let begun = Instant::now();
        let writer = self.clone();
        let collection = self.mutate(move |_| Ok(writer.inner.observed.barrier.raise())).await?;
        let _raised = Raised { db: self.clone(), collection };
        let mut known = Vec::new();
        for collectible in collectibles {
            known.push(Known { kind: collectible.kind(), items: collectible.items().await });
        }
        let now = SystemTime::now();
        let (marked, known) = self.mark(now, known).await?;
        let mut statistics = Statistics {
            rows: marked.keep.marked.rows(),
            next_expiry: marked.soonest,
            ..Statistics::default()
        };
        let sweep = Sweep::new(self.clone(), collection, now, kinds(&known), marked.keep);
        sweep
            .run(marked.dead, &mut |removed| {
                statistics.removed += removed.len();
                removed.into_iter().for_each(|removed| self.removed(removed, observer));
            })
            .await?;
        statistics.duration = begun.elapsed();
        if !collectibles.is_empty() {
            sweep.batch(Vec::new()).await?;
            release(collectibles, known, &sweep).await;
        }
        Ok(statistics)
    }

    /// Marks, and finds the names of what is dead, on a thread that may take its time.
    async fn mark(&self, now: SystemTime, known: Vec<Known>) -> Result<(Marks, Vec<Known>)> {
        let db = self.clone();
        let task = move || {
            let ids = Ids::new();
            let kinds = kinds(&known);
            let (found, dead) = db.read(|txn| {
                let found = scan::mark(txn, &ids, Reading { now, others: &kinds }, &known)?;
                let dead = scan::dead(txn, &ids, &found.marked)?;
                Ok((found, dead))
            })?;
            let Found { marked, back, soonest } = found;
            Ok((Marks { keep: Keep { ids, marked, back }, dead, soonest }, known))
        };
        let marking = tokio::task::spawn_blocking(task).await;
        marking.map_err(|e| Error::internal(format!("mark what is in use: {e}")))?
    }

    fn removed(&self, removed: Removed, observer: &Observer<'_>) {
        let (owned, collected) = match removed {
            Removed::Snapshot(owned, backend_key) => {
                self.note_dead_snapshot(&owned.group, &backend_key);
                let (snapshotter, key) = (owned.group.clone(), owned.key.clone());
                (owned, Some(Collected::Snapshot { snapshotter, key }))
            }
            Removed::Row(owned) => {
                let image = owned.kind == Kind::Image;
                let collected = image.then(|| Collected::Image { name: owned.key.clone() });
                (owned, collected)
            }
        };
        tracing::debug!(namespace = owned.namespace, kind = ?owned.kind, key = owned.key, "collected");
        // A namespace that is no name of one cannot have come in.
        if let (Some(collected), Ok(namespace)) = (collected, owned.namespace.parse()) {
            observer(&namespace, collected);
        }
    }
}

/// What came of a mark.
struct Marks {
    keep: Keep,
    dead: Vec<Owned>,
    soonest: Option<SystemTime>,
}

fn kinds(known: &[Known]) -> Vec<&'static str> {
    known.iter().map(|known| known.kind).collect()
}

/// Lets collectibles go that nothing keeps.
async fn release(collectibles: &[Arc<dyn Collectible>], known: Vec<Known>, sweep: &Sweep) {
    for (collectible, known) in collectibles.iter().zip(known) {
        let dead: Vec<(Namespace, String)> = {
            let keep = sweep.keep.lock().unwrap_or_else(PoisonError::into_inner);
            let is_dead = |item: &Item| {
                let namespace = item.namespace.as_str();
                let node = Node { kind: Kind::Other, namespace, group: known.kind, key: &item.id };
                !keep.marked.has(keep.ids.of(node))
            };
            known
                .items
                .iter()
                .filter(|item| is_dead(item))
                .map(|item| (item.namespace.clone(), item.id.clone()))
                .collect()
        };
        if !dead.is_empty() {
            collectible.release(dead).await;
        }
    }
}
