//! The contract of a snapshotter.
//!
//! To unpack an image, a client prepares an active snapshot on top of the layer below, mounts it, applies the layer's
//! archive, and commits it under the chain id of what it now contains; the next layer is prepared on that name. To run a
//! container it prepares one more, which is removed afterwards. Nothing is ever mounted by the snapshotter: it answers
//! with mounts that others perform.
//!
//! ```text
//!  prepare(key, parent) -> active  --commit(name)--> committed -- parent of others
//!  view(key, parent)    -> view    --remove(key)
//! ```
//!
//! Keys and names share one space of free-form texts. The same contract is implemented by overlayfs, native, the
//! namespaced view in `metadata` and the remote one over gRPC.

use async_trait::async_trait;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Usage};
use types::{Labels, Result};

use crate::shift::Owners;

/// Filesystems in layers.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// What is known of a snapshot. `NotFound` if there is none.
    async fn stat(&self, key: &str) -> Result<Info>;

    /// Changes labels (`labels`, `labels.<key>`; empty means all). Any other path is `InvalidArgument`.
    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info>;

    /// What it occupies, without its parents; for active ones as of now.
    async fn usage(&self, key: &str) -> Result<Usage>;

    /// How to mount an active snapshot or view. `FailedPrecondition` for committed ones.
    async fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Makes a writable snapshot on the committed `parent`, or an empty one if that is empty.
    ///
    /// `AlreadyExists` if the key is taken, `NotFound` if the parent does not exist, `InvalidArgument` if it is not
    /// committed.
    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>>;

    /// Makes a read-only use of the committed `parent`; errors as [`Snapshotter::prepare`].
    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed `name`; `key` is gone afterwards. Its files are on the disk when
    /// this returns, whatever wrote them.
    ///
    /// A `name` whose files are gone (see [`Snapshotter::is_whole`]) is replaced; what stands on it stays.
    ///
    /// A `parent` rebases: the snapshot was prepared on nothing and belongs on that one (layers unpacked side by side);
    /// `Unimplemented` unless [`Snapshotter::can_rebase`]. A parent that it has already is fine, another one is
    /// `InvalidArgument`.
    /// `AlreadyExists` if the name is taken; the active snapshot stays then.
    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()>;

    /// Removes a snapshot and its files. `FailedPrecondition` while it has children.
    async fn remove(&self, key: &str) -> Result<()>;

    /// Calls `each` for every snapshot that a filter matches (`kind`, `name`, `parent`, `labels.<key>`).
    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()>;

    /// Removes files that no snapshot refers to (after a crash).
    async fn cleanup(&self) -> Result<()>;

    /// Whether the files of a committed snapshot, and of those below it, are there: a cheap look for what is gone, not
    /// a comparison. `NotFound` if there is no such snapshot.
    async fn is_whole(&self, _key: &str) -> Result<bool> {
        Ok(true)
    }

    /// Whether a layer may be unpacked without its parents and get them by [`Snapshotter::commit`].
    fn can_rebase(&self) -> bool {
        false
    }

    /// How files come to belong to users of a user namespace; see [`crate::shift`].
    fn owners(&self) -> Owners {
        Owners::Copied
    }
}
