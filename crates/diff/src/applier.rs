//! The contract of applying a layer.

use crate::pipeline::Room;
use async_trait::async_trait;
use types::Result;
use types::mount::Mount;
use types::oci::Descriptor;

/// Extracts layers from the content store onto mounts.
#[async_trait]
pub trait Applier: Send + Sync {
    /// Applies `layer` to the filesystem that `mounts` describe and answers with the descriptor of its uncompressed
    /// form (whose digest is the layer's diff id).
    ///
    /// `Unimplemented` for a media type this applier does not know. Dropping the future half-way leaves the
    /// filesystem half-written: its owner removes the snapshot.
    async fn apply(&self, layer: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied>;
}

/// How to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Make the files durable before answering.
    pub sync: bool,
    /// The most bytes that the layer may have, uncompressed; by default as many as [`crate::pipeline::Room`] says.
    pub room: Option<Room>,
}

/// What was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The uncompressed stream: media type, diff id, size in bytes.
    pub uncompressed: Descriptor,
}
