//! A namespace's view of the content store.
//!
//! Blobs are stored once for all namespaces; a row per namespace says who has one, with its labels. A writer that
//! expects a blob which only another namespace has need not send it: its ingest shares that blob, and commits at once
//! (upstream's policy "shared").
//!
//! ```text
//!  writer   ingest row, then the backend's ingest
//!  commit   (ingest row: what it becomes,) then the backend's commit, then the blob's row instead of the ingest's
//!  abort    the backend's ingest, then the row
//!  delete   the row, and a note in `dead` if it was the last one, then the backend's blob (a collection does the same)
//! ```
//!
//! A blob whose file is gone or has another size than its rows say (what an earlier daemon left at a power loss, or
//! somebody's `rm`) counts as absent where one asks for it or wants to write it; its rows stay, with their labels, so that
//! what it refers to is kept until it is written again.
//!
//! So after a crash at any point there is a row or a note for whatever the backend has (see `recover`). While steps span
//! the backend and the database they hold the lock of the digest or of the ingest, so that a blob is never removed
//! between the look and the row of somebody who has just been told that it is there.

mod blobs;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::SystemTime;

use ::content::{Reader, Store, Writer, WriterOptions};
use async_trait::async_trait;
use prost::Message;
use types::content::{Info, Status};
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::{Digest, Error, Result, Scope, labels};

use crate::db::Db;
use crate::record::{Time, record, stored, time};
use crate::schema::{BLOBS, INGESTS};
use crate::tx::{NEXT, Source};

pub(crate) use blobs::{blob_lock, ingest_lock};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlobRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "4")]
    pub(crate) created: Option<Time>,
    #[prost(message, optional, tag = "5")]
    pub(crate) updated: Option<Time>,
}
record!(BlobRecord, "blob", 1);

#[derive(Clone, PartialEq, Message)]
pub(crate) struct IngestRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Its name in the backend.
    #[prost(string, tag = "2")]
    pub(crate) backend_ref: String,
    /// The digest of another namespace's blob that it stands for, or empty. Such a blob stays.
    #[prost(string, tag = "3")]
    pub(crate) shares: String,
    /// The digest it will have, as far as anybody said so, or empty: where to look after a crash in its commit.
    #[prost(string, tag = "4")]
    pub(crate) becomes: String,
    /// When the garbage collector may drop it; absent if a lease holds it.
    #[prost(message, optional, tag = "5")]
    pub(crate) expires: Option<Time>,
}
record!(IngestRecord, "ingest", 1);

/// A namespace's view.
pub(crate) struct Contents {
    db: Db,
    scope: Scope,
}

impl Contents {
    pub(crate) fn new(db: Db, scope: Scope) -> Self {
        Self { db, scope }
    }

    fn ns(&self) -> &str {
        self.scope.namespace.as_str()
    }

    fn ingest(&self, reference: &str) -> Result<IngestRecord> {
        self.db
            .read(|txn| txn.get(INGESTS, (self.ns(), reference)))?
            .ok_or_else(|| Error::not_found(format!("reference {reference}: not found")))
    }

    fn blob(&self, digest: &Digest) -> Result<BlobRecord> {
        self.db.read(|txn| txn.get(BLOBS, (self.ns(), digest.as_str())))?.ok_or_else(|| not_found(digest))
    }

    /// A blob whose file is not what the row says is as good as none: `NotFound`, and who has it may write it again.
    async fn check(&self, digest: &Digest, size: u64) -> Result<()> {
        let has = self.db.inner.content.info(digest).await?.size;
        if has == size { Ok(()) } else { Err(broken(digest, has, size)) }
    }

    /// The state of an ingest, in this namespace's words.
    async fn ingest_status(&self, reference: &str, row: &IngestRecord) -> Result<Status> {
        let status = self.db.inner.content.status(&row.backend_ref).await?;
        let expected = status.expected.or_else(|| row.becomes.parse().ok());
        Ok(Status { reference: reference.to_owned(), expected, ..status })
    }
}

fn not_found(digest: &Digest) -> Error {
    Error::not_found(format!("content digest {digest}: not found"))
}

fn broken(digest: &Digest, has: u64, size: u64) -> Error {
    Error::not_found(format!(
        "content digest {digest}: its file has {has} bytes instead of {size}, pull or import it again: not found"
    ))
}

#[async_trait]
impl Store for Contents {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        if self.db.must_tell(&self.scope) {
            let (scope, digest) = (self.scope.clone(), digest.clone());
            self.db
                .mutate(move |tx| tx.has(BLOBS.table, (scope.namespace.as_str(), digest.as_str())).map(drop))
                .await?;
        }
        let row = self.blob(digest)?;
        self.check(digest, row.size).await?;
        Ok(row.into_info(digest.clone()))
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        let (namespace, fields) = (self.scope.namespace.clone(), fields.clone());
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), info.digest.as_str());
                let mut row = tx.get(BLOBS, key)?.ok_or_else(|| not_found(&info.digest))?;
                apply(&mut row.labels, &info, &fields)?;
                row.updated = Some(SystemTime::now().into());
                tx.put(BLOBS, key, row.clone())?;
                Ok(row.into_info(info.digest.clone()))
            })
            .await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let ns = self.ns();
        self.db.read(|txn| {
            txn.scan(
                BLOBS,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    let info = row.into_info(key.1.parse()?);
                    if filters.matches(&info) {
                        each(info)?;
                    }
                    NEXT
                },
            )
        })
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.db.delete_blob(&self.scope, digest).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        let size = self.blob(digest)?.size;
        let reader = self.db.inner.content.reader(digest).await?;
        if reader.size() != size {
            return Err(broken(digest, reader.size(), size));
        }
        Ok(reader)
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        let row = self.ingest(reference)?;
        self.ingest_status(reference, &row).await
    }

    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        let filters = Filters::parse(filters)?;
        let ns = self.ns();
        let mut rows = Vec::new();
        self.db.read(|txn| {
            txn.scan(
                INGESTS,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    rows.push((key.1.to_owned(), row));
                    NEXT
                },
            )
        })?;
        let mut all = Vec::new();
        for (reference, row) in rows {
            match self.ingest_status(&reference, &row).await {
                Ok(status) if filters.matches(&status) => all.push(status),
                Ok(_) => {}
                // It ended meanwhile, or shares a blob and has no data of its own.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        let _held = self.db.inner.locks.hold(&ingest_lock(&self.scope, reference)).await;
        let row = self.ingest(reference)?;
        match self.db.inner.content.abort(&row.backend_ref).await {
            Ok(()) => {}
            // A shared ingest has nothing in the backend; neither has one whose making ended early.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let (scope, name) = (self.scope.clone(), reference.to_owned());
        self.db.mutate(move |tx| writer::forget(tx, &scope, &name)).await?;
        self.db.release_text(&row.shares).await?;
        // Its writer may have gone away in the middle of its commit: then this blob has no row and will not get one.
        self.db.release_text(&row.becomes).await
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        writer::open(&self.db, &self.scope, options).await
    }
}

/// Applies an update of labels, and checks the result.
fn apply(into: &mut BTreeMap<String, String>, info: &Info, fields: &FieldPaths) -> Result<()> {
    if fields.all() {
        labels::apply(into, &info.labels, None);
    }
    for (path, text) in fields.iter().zip(&fields.0) {
        match path {
            Path::Field("labels") => labels::apply(into, &info.labels, None),
            Path::Key("labels", key) => labels::apply(into, &info.labels, Some(key)),
            Path::Field(_) | Path::Key(..) => {
                return Err(Error::invalid(format!(
                    "cannot update {text:?} field on content info {:?}: invalid argument",
                    info.digest.as_str()
                )));
            }
        }
    }
    validate(into)?;
    labels::writable(into).map_err(|e| e.context(format!("writing labels for info {}", info.digest)))
}

fn validate(all: &BTreeMap<String, String>) -> Result<()> {
    labels::validate_all(all).map_err(|e| e.context("info.Labels"))
}

impl BlobRecord {
    /// A blob that has just been committed.
    pub(crate) fn new(size: u64, labels: BTreeMap<String, String>) -> Self {
        let now = Some(SystemTime::now().into());
        Self { version: 0, size, labels: stored(labels), created: now, updated: now }
    }

    fn into_info(self, digest: Digest) -> Info {
        Info {
            digest,
            size: self.size,
            created_at: time(self.created),
            updated_at: time(self.updated),
            labels: self.labels,
        }
    }
}
