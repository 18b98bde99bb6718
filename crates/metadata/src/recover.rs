//! What is done after a start, for what an earlier life left half done, while the database is in use already.
//!
//! | found                                                     | done                                             |
//! | --------------------------------------------------------- | ------------------------------------------------ |
//! | a note in `dead`                                          | the blob or ingest is removed, then the note     |
//! | an ingest's row without an ingest                         | the row is removed, and the blob that it became, |
//! |                                                           | unless somebody needs it                         |
//! | a snapshot's row that says that it is being committed     | completed, or taken back, as the backend says    |
//! | a snapshot of an earlier generation that no row names     | removed                                          |
//!
//! Only that: blobs and snapshots of which the database never knew are not ours to remove. Each step holds the lock
//! that the ordinary operations hold, so none can be mistaken for what is happening now.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ::snapshots::Snapshotter;
use types::filters::Filters;
use types::{Namespace, Result, Scope};

use crate::content::{IngestRecord, ingest_lock};
use crate::db::Db;
use crate::schema::{INGESTS, SNAPSHOTS};
use crate::snapshots::{resolve, snapshot_lock};
use crate::tx::{NEXT, Source};

impl Db {
    /// [`Db::recover`], of which nobody waits for the end.
    pub(crate) async fn recover_in_background(self) {
        if let Err(error) = self.recover().await {
            tracing::warn!(%error, "not everything that was left half done could be cleaned up; the next start tries again");
        }
    }

    /// Completes or takes back what was left half done.
    pub(crate) async fn recover(&self) -> Result<()> {
        self.bury().await;
        let ingests = self.recover_ingests().await;
        let commits = self.recover_commits().await;
        let mut swept = Ok(());
        for (name, backend) in &self.inner.snapshotters {
            // One that fails does not keep the others from being swept.
            swept = swept.and(self.sweep(name, backend).await);
        }
        ingests.and(commits).and(swept)
    }

    async fn recover_ingests(&self) -> Result<()> {
        let mut earlier = Vec::new();
        self.read(|txn| {
            txn.scan(
                INGESTS,
                ("", ""),
                |_| true,
                |key, row| {
                    if self.made_earlier(&row.backend_ref) {
                        earlier.push((key.0.parse()?, key.1.to_owned()));
                    }
                    NEXT
                },
            )
        })?;
        for (namespace, reference) in earlier {
            self.recover_ingest(Scope::new(namespace), reference).await?;
        }
        Ok(())
    }

    async fn recover_ingest(&self, scope: Scope, reference: String) -> Result<()> {
        let _held = self.inner.locks.hold(&ingest_lock(&scope, &reference)).await;
        let key = (scope.namespace.as_str(), reference.as_str());
        let Some(row) = self.read(|txn| txn.get(INGESTS, key))? else { return Ok(()) };
        match self.inner.content.status(&row.backend_ref).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
        let IngestRecord { shares, becomes, .. } = row;
        self.mutate(move |tx| tx.remove(INGESTS.table, (scope.namespace.as_str(), &reference)).map(drop))
            .await?;
        self.release_text(&shares).await?;
        self.release_text(&becomes).await
    }

    async fn recover_commits(&self) -> Result<()> {
        let mut open: Vec<(Namespace, String, String)> = Vec::new();
        self.read(|txn| {
            txn.scan(
                SNAPSHOTS,
                ("", "", ""),
                |_| true,
                |key, row| {
                    if row.intent.is_some_and(|intent| self.made_earlier(&intent.backend_key)) {
                        open.push((key.0.parse()?, key.1.to_owned(), key.2.to_owned()));
                    }
                    NEXT
                },
            )
        })?;
        for (namespace, snapshotter, key) in open {
            let _held = self.inner.locks.hold(&snapshot_lock(&namespace, &snapshotter, &key)).await;
            resolve(self, &namespace, &snapshotter, &key).await?;
        }
        Ok(())
    }

    /// Removes the snapshots of earlier generations that no row names.
    async fn sweep(&self, snapshotter: &str, backend: &Arc<dyn Snapshotter>) -> Result<()> {
        let known = self.known_snapshots(snapshotter)?;
        let mut orphans = Vec::new();
        backend
            .walk(&Filters::default(), &mut |info| {
                if self.made_earlier(&info.name) && !known.contains(&hash(&info.name)) {
                    orphans.push(info.name);
                }
                Ok(())
            })
            .await?;
        for orphan in orphans {
            tracing::info!(snapshotter, key = orphan, "removing a snapshot that was left half made");
            self.remove_snapshot(snapshotter, &orphan).await;
        }
        Ok(())
    }

    /// Hashes of all backend keys that rows name. Two that collide keep an orphan, which is the safe side.
    fn known_snapshots(&self, snapshotter: &str) -> Result<HashSet<u64>> {
        let mut known = HashSet::new();
        self.read(|txn| {
            txn.scan(
                SNAPSHOTS,
                ("", "", ""),
                |_| true,
                |key, row| {
                    if key.1 == snapshotter {
                        known.insert(hash(&row.backend_key));
                        known.extend(row.intent.map(|intent| hash(&intent.backend_key)));
                    }
                    NEXT
                },
            )
        })?;
        Ok(known)
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
