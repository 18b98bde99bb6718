//! Removing dead rows, some at a time.
//!
//! Each batch is one mutation on the writer thread, so nothing happens between its look at what was touched and its
//! removals. Whoever queues up behind it waits for a batch, not for a collection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use types::{Error, Namespace, Result, crash};

use crate::db::Db;
use crate::schema::{
    BLOB_HOLDERS, BLOBS, CHILDREN, DEAD, IMAGES, INGESTS, LEASE_RESOURCES, LEASES, SNAPSHOTS,
};
use crate::snapshots::has_children;
use crate::tx::{Counts, Source, Tx};

use super::collectible::{Item, Known};
use super::facts::Reading;
use super::node::{Kind, Node, Owned};
use super::shade::Keep;

/// How many rows a transaction removes. Some milliseconds.
const BATCH: usize = 128;

/// What a batch has removed.
pub(super) enum Removed {
    /// Something of the database only, or of which `dead` has a note.
    Row(Owned),
    /// A snapshot, with its name in the backend.
    Snapshot(Owned, String),
}

/// What came of a batch.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) removed: Vec<Removed>,
    /// Dead snapshots on which others stand that are still there.
    pub(super) blocked: Vec<Owned>,
}

/// What the batches of one collection share.
pub(super) struct Sweep {
    db: Db,
    collection: u64,
    now: SystemTime,
    others: Vec<&'static str>,
    keep: Arc<Mutex<Keep>>,
}

impl Sweep {
    pub(super) fn new(
        db: Db,
        collection: u64,
        now: SystemTime,
        others: Vec<&'static str>,
        keep: Keep,
    ) -> Self {
        Self { db, collection, now, others, keep: Arc::new(Mutex::new(keep)) }
    }

    /// Removes what is still dead of `dead`; `each` gets what was removed, batch by batch, when that is durable.
    pub(super) async fn run(
        &self,
        dead: Vec<Owned>,
        each: &mut (dyn FnMut(&Db, Vec<Removed>) + Send),
    ) -> Result<()> {
        let mut round = dead;
        loop {
            let mut blocked = Vec::new();
            let mut progress = false;
            let mut rest = round.into_iter();
            loop {
                let batch: Vec<Owned> = rest.by_ref().take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                let swept = self.batch(batch).await?;
                crash::point("gc-sweep");
                progress |= !swept.removed.is_empty();
                blocked.extend(swept.blocked);
                each(&self.db, swept.removed);
            }
            // Snapshots that refer to each other in circles may have come in another order than they stand.
            if blocked.is_empty() || !progress {
                return Ok(());
            }
            round = blocked;
        }
    }

    /// Removes what is still dead of `batch`. An empty one only looks at what was touched.
    pub(super) async fn batch(&self, batch: Vec<Owned>) -> Result<Swept> {
        let keep = Arc::clone(&self.keep);
        // Not the database itself: the last of its clones must not be dropped by its own writer thread.
        let observed = Arc::clone(&self.db.inner.observed);
        let (collection, now, others) = (self.collection, self.now, self.others.clone());
        // Taken before the mutation is queued, and looked at each time it runs: its group may run again without somebody
        // whose changes were seen the first time.
        let taken = observed.barrier.take(collection);
        self.db
            .mutate(move |tx| {
                tx.unwatch();
                tx.count_as(Counts::Nothing);
                let reading = Reading { now, others: &others };
                let Some(seen) = observed.barrier.seen(collection) else { return Err(over()) };
                let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
                keep.shade(tx, &reading, &taken)?;
                keep.shade(tx, &reading, &seen)?;
                remove_all(tx, &keep, &batch)
            })
            .await
    }
}

impl Sweep {
    /// Those of a kind of collectibles that nothing keeps.
    pub(super) fn unkept(&self, known: &Known) -> Vec<(Namespace, String)> {
        let keep = self.keep.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |item: &Item| {
            let namespace = item.namespace.as_str();
            let node = Node { kind: Kind::Other, namespace, group: known.kind, key: &item.id };
            keep.marked.has(keep.ids.of(node))
        };
        let unkept = known.items.iter().filter(|item| !kept(item));
        unkept.map(|item| (item.namespace.clone(), item.id.clone())).collect()
    }
}

fn over() -> Error {
    Error::unavailable("the collection is over")
}

fn remove_all(tx: &Tx<'_>, keep: &Keep, batch: &[Owned]) -> Result<Swept> {
    let mut swept = Swept::default();
    for dead in batch {
        if !keep.marked.has(keep.ids.of(dead.node())) {
            remove(tx, dead, &mut swept)?;
        }
    }
    Ok(swept)
}

/// Removes the row of something dead, unless it is gone already or has to stay.
fn remove(tx: &Tx<'_>, dead: &Owned, swept: &mut Swept) -> Result<()> {
    let (ns, key) = (dead.namespace.as_str(), dead.key.as_str());
    let found = match dead.kind {
        Kind::Image => tx.remove(IMAGES.table, (ns, key))?,
        Kind::Lease => {
            crate::leases::remove_resources(tx, LEASE_RESOURCES, ns, key)?;
            tx.remove(LEASES.table, (ns, key))?
        }
        Kind::Content => remove_blob(tx, ns, key)?,
        Kind::Ingest => remove_ingest(tx, ns, key)?,
        Kind::Snapshot => return remove_snapshot(tx, dead, swept),
        Kind::Container | Kind::Sandbox | Kind::Other => false,
    };
    if found {
        swept.removed.push(Removed::Row(dead.clone()));
    }
    Ok(())
}

/// Takes a blob from a namespace; notes that it can be removed if that was the last one.
pub(crate) fn remove_blob(tx: &Tx<'_>, ns: &str, digest: &str) -> Result<bool> {
    if !tx.remove(BLOBS.table, (ns, digest))? {
        return Ok(false);
    }
    tx.remove(BLOB_HOLDERS, (digest, ns))?;
    let mut held = false;
    tx.scan_raw(BLOB_HOLDERS, (digest, ""), |key, ()| {
        held = key.0 == digest;
        Ok(std::ops::ControlFlow::Break(()))
    })?;
    if !held {
        // An ingest may share it; whoever removes it asks.
        tx.mark(DEAD, ("blob", digest))?;
    }
    Ok(true)
}

/// Removes an ingest's row, and notes what is to be removed with it.
pub(crate) fn remove_ingest(tx: &Tx<'_>, ns: &str, reference: &str) -> Result<bool> {
    let Some(row) = tx.get(INGESTS, (ns, reference))? else { return Ok(false) };
    tx.mark(DEAD, ("ingest", &row.backend_ref))?;
    // What it became counts as well: its writer may have gone away in the middle of its commit.
    for blob in [&row.shares, &row.becomes].into_iter().filter(|blob| !blob.is_empty()) {
        tx.mark(DEAD, ("blob", blob))?;
    }
    tx.remove(INGESTS.table, (ns, reference))
}

fn remove_snapshot(tx: &Tx<'_>, dead: &Owned, swept: &mut Swept) -> Result<()> {
    let (ns, sn, key) = (dead.namespace.as_str(), dead.group.as_str(), dead.key.as_str());
    let Some(row) = tx.get(SNAPSHOTS, (ns, sn, key))? else { return Ok(()) };
    if row.intent.is_some() {
        return Ok(());
    }
    if has_children(tx, ns, sn, key)? {
        swept.blocked.push(dead.clone());
        return Ok(());
    }
    tx.remove(CHILDREN, (ns, sn, &row.parent, key))?;
    tx.remove(SNAPSHOTS.table, (ns, sn, key))?;
    swept.removed.push(Removed::Snapshot(dead.clone(), row.backend_key));
    Ok(())
}
