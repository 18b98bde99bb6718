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

use types::{Error, Namespace, Result, Scope};

use crate::db::Db;

use collectible::Known;
pub use collectible::{Collectible, Item};
use facts::Reading;
use node::{Ids, Kind, Owned};
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

    /// Whether what this caller sees has to be looked at on the writer thread first: somebody with a lease builds on it, and
    /// a collection that is under way must know.
    pub(crate) fn must_tell(&self, scope: &Scope) -> bool {
        scope.lease.is_some() && self.inner.observed.barrier.raised()
    }

    async fn collect_rows(
        &self,
        collectibles: &[Arc<dyn Collectible>],
        observer: &Observer<'_>,
    ) -> Result<Statistics> {
        let marked = Begun::new(self, collectibles).await?.mark().await?;
        let begun = marked.begun;
        let (statistics, unkept) = marked.sweep(observer).await?;
        for (collectible, dead) in collectibles.iter().zip(unkept) {
            if !dead.is_empty() {
                collectible.release(dead).await;
            }
        }
        Ok(Statistics { duration: begun.elapsed(), ..statistics })
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

/// A collection whose barrier is raised.
struct Begun {
    raised: Raised,
    begun: Instant,
    known: Vec<Known>,
}

impl Begun {
    async fn new(db: &Db, collectibles: &[Arc<dyn Collectible>]) -> Result<Self> {
        let begun = Instant::now();
        let observed = Arc::clone(&db.inner.observed);
        let collection = db.mutate(move |_| Ok(observed.barrier.raise())).await?;
        let raised = Raised { db: db.clone(), collection };
        let mut known = Vec::new();
        for collectible in collectibles {
            known.push(Known { kind: collectible.kind(), items: collectible.items().await });
        }
        Ok(Self { raised, begun, known })
    }

    /// Marks, and finds the names of what is dead, on a thread that may take its time.
    async fn mark(self) -> Result<Marked> {
        let task = move || {
            let Self { raised, begun, known } = self;
            let (ids, now, kinds) = (Ids::new(), SystemTime::now(), kinds(&known));
            let (found, dead) = raised.db.read(|txn| {
                let found = scan::mark(txn, &ids, Reading { now, others: &kinds }, &known)?;
                let dead = scan::dead(txn, &ids, &found.marked)?;
                Ok((found, dead))
            })?;
            let rows = found.marked.rows();
            let keep = Keep { ids, marked: found.marked, back: found.back };
            let sweep = Sweep::new(raised.db.clone(), raised.collection, now, kinds, keep);
            let statistics = Statistics { rows, next_expiry: found.soonest, ..Statistics::default() };
            Ok(Marked { _raised: raised, begun, known, sweep, dead, statistics })
        };
        let marking = tokio::task::spawn_blocking(task).await;
        marking.map_err(|e| Error::internal(format!("mark what is in use: {e}")))?
    }
}

/// A collection that knows what is dead.
struct Marked {
    _raised: Raised,
    begun: Instant,
    known: Vec<Known>,
    sweep: Sweep,
    dead: Vec<Owned>,
    statistics: Statistics,
}

impl Marked {
    /// Removes what is still dead. Answers, for each kind of collectibles, those that nothing keeps.
    async fn sweep(self, observer: &Observer<'_>) -> Result<(Statistics, Vec<Vec<(Namespace, String)>>)> {
        let Self { sweep, dead, mut statistics, known, .. } = self;
        sweep
            .run(dead, &mut |db, removed| {
                statistics.removed += removed.len();
                removed.into_iter().for_each(|removed| db.removed(removed, observer));
            })
            .await?;
        if known.iter().any(|known| !known.items.is_empty()) {
            // The last look at what was touched.
            sweep.batch(Vec::new()).await?;
        }
        let unkept = known.iter().map(|known| sweep.unkept(known)).collect();
        Ok((statistics, unkept))
    }
}

fn kinds(known: &[Known]) -> Vec<&'static str> {
    known.iter().map(|known| known.kind).collect()
}
