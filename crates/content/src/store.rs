//! The contract of a content store.
//!
//! A writer opens an ingest under a reference of its choice and writes; if it goes away the ingest stays, and the next
//! writer with that reference goes on where it ended (`status().offset`). Commit checks size and digest and makes the
//! blob visible under its digest, durably. Blobs never change; only their labels do.
//!
//! Three stores implement it: the local one (no namespaces, no labels), the namespaced view in `metadata`, and the
//! remote one over gRPC. A store is bound to its namespace and lease where it is made.

use async_trait::async_trait;
use bytes::Bytes;
use types::content::{Info, Status};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Digest, Labels, Result};

/// Blobs by digest.
#[async_trait]
pub trait Store: Send + Sync {
    /// A blob's size and labels. `NotFound` if there is none.
    async fn info(&self, digest: &Digest) -> Result<Info>;

    /// Changes labels (`labels`, `labels.<key>`; empty means all of them). Any other path is `InvalidArgument`.
    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info>;

    /// Calls `each` for every blob that a filter matches (`digest`, `size`, `labels.<key>`), ordered by digest.
    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()>;

    /// Removes a blob. `NotFound` if there is none.
    async fn delete(&self, digest: &Digest) -> Result<()>;

    /// Opens a blob for reading. `NotFound` if there is none.
    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>>;

    /// An ingest's state. `NotFound` if there is none.
    async fn status(&self, reference: &str) -> Result<Status>;

    /// The ingests that one of `filters` matches (the filter language, field `ref`: `ref~=^layer-`), or all.
    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>>;

    /// Drops an ingest. `NotFound` if there is none.
    async fn abort(&self, reference: &str) -> Result<()>;

    /// Opens or resumes an ingest and locks its reference.
    ///
    /// `Unavailable` while another writer has it; `AlreadyExists` if the expected blob is there.
    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>>;
}

/// What a writer knows beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterOptions {
    /// The ingest's name; required.
    pub reference: String,
    /// The whole size in bytes, 0 if unknown.
    pub total: u64,
    /// The digest it will have, if known.
    pub expected: Option<Digest>,
}

/// An open blob.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The blob's size in bytes.
    fn size(&self) -> u64;

    /// Up to `len` bytes at `offset`; empty only at the end. Stores may return less than `len`.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// The blob as a local file, where it is one: for readers that want no copy through this trait.
    fn file(&self) -> Option<std::fs::File> {
        None
    }
}

/// An open ingest. Dropping it without commit keeps what was written and unlocks the reference.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Appends at the current offset.
    async fn write(&mut self, data: Bytes) -> Result<()>;

    /// Where the ingest stands.
    async fn status(&self) -> Result<Status>;

    /// What an earlier writer of this reference wrote, as a local file, where it is one. To be asked for before anything
    /// is written.
    fn file(&self) -> Option<std::fs::File> {
        None
    }

    /// The digest of what has been written so far.
    async fn digest(&mut self) -> Result<Digest>;

    /// Throws away what was written (only `size` 0 is supported: hashes cannot be rewound).
    async fn truncate(&mut self, size: u64) -> Result<()>;

    /// Makes the blob visible, durably, with `labels`.
    ///
    /// `size` 0 and `expected` `None` are not checked. A mismatch is `FailedPrecondition` and keeps the ingest, as
    /// upstream does: the next writer may truncate it, or go on. A blob that is there already is `AlreadyExists` and
    /// drops the ingest. Either way this writer is closed and the reference unlocked.
    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()>;
}

/// Reads a whole blob of at most `limit` bytes: manifests and configs.
pub async fn read_blob(store: &dyn Store, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let reader = store.reader(digest).await?;
    if reader.size() > limit {
        return Err(types::Error::invalid(format!(
            "content {digest} has {} bytes, more than the {limit} allowed here",
            reader.size()
        )));
    }
    let mut all = Vec::new();
    loop {
        let chunk = reader.read_at(all.len() as u64, 1 << 20).await?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&chunk);
    }
}
