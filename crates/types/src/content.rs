//! What the content store says about blobs and ingests.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::filters::{self, Fields};
use crate::labels::Labels;

/// A committed blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was committed.
    pub created_at: SystemTime,
    /// When its labels last changed.
    pub updated_at: SystemTime,
    /// Labels, per namespace.
    pub labels: Labels,
}

/// A blob that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The writer's name for it.
    pub reference: String,
    /// Bytes written so far.
    pub offset: u64,
    /// The whole size in bytes, 0 if unknown.
    pub total: u64,
    /// The digest it is meant to have.
    pub expected: Option<Digest>,
    /// When the ingest was begun.
    pub started_at: SystemTime,
    /// When it last grew.
    pub updated_at: SystemTime,
}

impl Fields for Info {
    /// `digest`, `size` in bytes, `labels.<key>`.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "digest" => Some(self.digest.as_str().into()),
            "size" => Some(self.size.to_string().into()),
            "labels" => filters::label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}

impl Fields for Status {
    /// `ref`.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        (path.first()? == "ref").then(|| self.reference.as_str().into())
    }
}
