//! The contract of comparing two filesystems.

use async_trait::async_trait;
use types::mount::Mount;
use types::oci::Descriptor;
use types::{Labels, Result};

use crate::tar::Time;

/// Makes a layer of what differs between two filesystems, into the content store.
#[async_trait]
pub trait Differ: Send + Sync {
    /// Stores the layer that makes `upper` out of `lower`, and answers with its descriptor. No mounts at all are an empty
    /// filesystem. The same trees always give the same bytes.
    ///
    /// `Unimplemented` for a media type that this differ does not make. After an error, and when the future is dropped
    /// half-way, no ingest stays but one whose reference was given.
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor>;
}

/// How to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompareOptions {
    /// The media type of the layer; empty means a gzip OCI layer.
    pub media_type: String,
    /// The reference of the ingest; empty means a new one. What was written under a given one is thrown away.
    pub reference: String,
    /// Labels for the blob, besides that of its uncompressed digest.
    pub labels: Labels,
    /// Files are told to be no younger than this (SOURCE_DATE_EPOCH).
    pub epoch: Option<Time>,
}
