//! What has no row any more leaves the disk.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::task::JoinSet;
use types::{Result, crash};

use crate::content::blob_lock;
use crate::db::Db;
use crate::schema::DEAD;
use crate::tx::{Counts, Source, Tx};

/// How many notes are worked off at a time. Their blobs are locked as long as that takes.
const CHUNK: usize = 64;
/// How long a collection waits for a snapshotter to remove things. It goes on afterwards, without anybody waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// A note in `dead`: what it is, and its digest or name in the backend.
type Note = (String, String);

impl Db {
    /// Removes blobs, ingests and snapshots of which no row knows. What fails is for the next time.
    pub(crate) async fn bury_all(&self) {
        let mut burials = JoinSet::new();
        for snapshotter in self.inner.graves.filled() {
            let db = self.clone();
            burials.spawn(async move { db.bury_snapshots(&snapshotter).await });
        }
        self.bury().await;
        let all = async { while burials.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("a snapshotter takes long to remove snapshots: not waiting for it any more");
            burials.detach_all();
        }
    }

    /// Removes what the notes in `dead` name. What fails is kept for the next time.
    pub(crate) async fn bury(&self) {
        let mut after = (String::new(), String::new());
        loop {
            let chunk = match self.notes(&after) {
                Ok(chunk) => chunk,
                Err(error) => return tracing::warn!(%error, "cannot read the notes of what is to be removed"),
            };
            match chunk.last() {
                Some(last) => after.clone_from(last),
                None => return,
            }
            if let Err(error) = self.bury_chunk(chunk).await {
                tracing::warn!(%error, "cannot clear the notes of what was removed");
            }
        }
    }

    /// The next notes behind `after`.
    fn notes(&self, after: &Note) -> Result<Vec<Note>> {
        let mut notes = Vec::new();
        self.read(|txn| {
            txn.scan_raw(DEAD, (after.0.as_str(), after.1.as_str()), |key, ()| {
                if (key.0, key.1) != (after.0.as_str(), after.1.as_str()) {
                    notes.push((key.0.to_owned(), key.1.to_owned()));
                }
                Ok(if notes.len() < CHUNK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        })?;
        Ok(notes)
    }

    async fn bury_chunk(&self, notes: Vec<Note>) -> Result<()> {
        // Until the notes are gone nobody can make one of these blobs anew, and lose the note of that one. Digests are in
        // order here, and nobody else holds more than one.
        let mut held = Vec::new();
        for (_, digest) in notes.iter().filter(|(kind, _)| kind == "blob") {
            held.push(self.inner.locks.hold(&blob_lock(digest)).await);
        }
        let mut buried = Vec::new();
        for (kind, id) in notes {
            let removed = match (kind.as_str(), id.parse()) {
                ("blob", Ok(digest)) => self.release(&digest).await,
                ("blob", Err(_)) => Ok(()),
                _ => match self.inner.content.abort(&id).await {
                    Err(error) if !error.is_not_found() => Err(error),
                    _ => Ok(()),
                },
            };
            match removed {
                Ok(()) => buried.push((kind, id)),
                Err(error) => tracing::warn!(kind, id, %error, "cannot remove what nobody refers to yet"),
            }
        }
        crash::point("gc-buried");
        self.mutate(move |tx: &Tx<'_>| {
            tx.count_as(Counts::Nothing);
            buried.iter().try_for_each(|(kind, id)| tx.remove(DEAD, (kind, id)).map(drop))
        })
        .await
    }
}
