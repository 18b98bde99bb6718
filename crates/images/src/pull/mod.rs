//! From a descriptor in a registry to blobs in the store and layers in snapshotters, in one pass.
//!
//! ```text
//!  socket -> ingest, hashed  ----------------------------------> blob
//!     \-> inflate -> hash                    = the diff id?  \
//!             \----> tar -> files of a snapshot on nothing ---+-> snapshot on its parent, in chain order
//! ```
//!
//! Layers run side by side. Where a layer depends on those below it, where the snapshotter cannot rebase, or where
//! somebody else extracts, the layer is fetched first and applied when its turn comes. Nothing is committed before its
//! digest, and of a layer its diff id, is known to be right; blobs and files are durable before a row says that they are there.
//!
//! The caller holds a lease, to which the stores that it gives here belong, and writes the image's record when the pull is
//! done: that is the commit point. What a pull that failed has brought is held by that lease alone, and used again by the next
//! pull if that comes soon. Its ingests stay too, and are resumed.
//!
//! Pulls of one daemon share work: a blob is fetched, and a layer unpacked, by the first that wants it; the others wait, and
//! if the first goes away the next one goes on with what is there.
//!
//! ```text
//!  shared    what pulls have in common: locks, limits, the table of those that run
//!  tree      indexes, manifests and configs: fetched, labelled, walked
//!  blob      one blob into the store, resumed, and fed to the extraction on the way
//!  chain     the layers of one image, one on top of the other
//!  layer     one layer: fetched and extracted at once, then rebased
//!  remote    what snapshotters are told that bring layers themselves
//! ```

mod blob;
mod chain;
mod layer;
mod remote;
mod shared;
mod tree;

use std::sync::Arc;

use content::Store;
use diff::Applier;
use snapshots::Snapshotter;
use types::oci::{Descriptor, Manifest};
use types::reference::Reference;
use types::{Digest, Result, ResultExt};

use crate::cancel::{Cancel, CancelOnDrop};
use crate::progress::Progress;
use crate::walk::{self, Wanted};

pub use blob::reference;
use shared::Watched;
pub use shared::{Layer as RunningLayer, Running, Shared};

/// The configuration key of [`Limits::document`].
pub const MAX_MANIFEST_SIZE: &str = "plugins.\"io.containerd.transfer.v1.local\".max_manifest_size";
/// The configuration key of [`Limits::depth`].
pub const MAX_INDEX_DEPTH: &str = "plugins.\"io.containerd.transfer.v1.local\".max_index_depth";

/// One pull.
pub struct Pull {
    /// Gets the blobs, held by the caller's lease.
    pub store: Arc<dyn Store>,
    /// Opens what descriptors point to.
    pub fetcher: registry::Fetcher,
    /// Where it comes from.
    pub source: Source,
    /// Whose store and snapshotters those are: names in them are unique in it.
    pub namespace: String,
    /// Which images of an index.
    pub wanted: Wanted,
    /// The most images of an index, best first; 0 for no limit.
    pub manifest_limit: usize,
    /// Manifests and configs of other platforms too.
    pub metadata: Metadata,
    /// What labels hold.
    pub keep: Keep,
    /// Where layers are unpacked; the first that suits an image's platform gets it.
    pub unpack: Vec<UnpackInto>,
    /// What is too much.
    pub limits: Limits,
    /// What pulls have in common.
    pub shared: Arc<Shared>,
}

/// Where an image comes from, for labels and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As the image is called.
    pub name: String,
    /// The registry, without a port.
    pub host: String,
    /// The repository there.
    pub repository: String,
}

impl Source {
    /// Where `reference` is from, of the image called `name`.
    pub fn of(name: &str, reference: &Reference) -> Self {
        let (_, repository) = reference.locator.split_once('/').unwrap_or_default();
        let host = reference.hostname().to_owned();
        Self { name: name.to_owned(), host, repository: repository.to_owned() }
    }
}

/// Whether documents of unwanted platforms are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// No.
    #[default]
    Wanted,
    /// Their manifests and configs, without layers.
    All,
}

/// What the labels of a manifest hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Everything it names.
    #[default]
    Layers,
    /// Not the layers: once unpacked their blobs may go.
    Snapshots,
}

/// Where, and how, layers are unpacked.
#[derive(Clone)]
pub struct UnpackInto {
    /// Images of which platforms.
    pub platforms: Wanted,
    /// Gets the snapshots, held by the caller's lease.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Its name, for labels.
    pub snapshotter_name: String,
    /// Who extracts.
    pub how: How,
    /// Only images whose config is of this media type; empty for those that are known to be configs.
    pub config_type: String,
    /// Media types of layers beside those that are known to be.
    pub layer_types: Vec<String>,
    /// Labels tell the snapshotter where each layer comes from, and one that brings layers itself may say that a layer is
    /// there before it is fetched.
    pub remote: bool,
    /// The applier is to make files durable. In one pass they always are.
    pub sync: bool,
}

/// Who extracts layers.
#[derive(Clone)]
pub enum How {
    /// We, while they arrive, where the snapshotter can rebase; else this applier.
    OnePass(Arc<dyn Applier>),
    /// An applier, one after another.
    ByApplier(Arc<dyn Applier>),
}

impl How {
    fn applier(&self) -> &Arc<dyn Applier> {
        match self {
            Self::OnePass(applier) | Self::ByApplier(applier) => applier,
        }
    }
}

/// What is too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a layer, uncompressed; by default the free space less 5%.
    pub max_unpacked_layer: Option<u64>,
    /// The most bytes of an index, manifest or config.
    pub document: u64,
    /// How deep indexes may nest.
    pub depth: usize,
    /// The size in bytes of the parts of a layer that are fetched side by side; 0 for one part.
    pub fetch_buffer: u64,
    /// How many parts of one layer at once.
    pub parts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_unpacked_layer: None,
            document: walk::DOCUMENT_LIMIT,
            depth: walk::MAX_DEPTH,
            fetch_buffer: 0,
            parts: 3,
        }
    }
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// What was asked for.
    pub target: Descriptor,
    /// The images that were fetched whole.
    pub images: Vec<Image>,
}

/// An image that was fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Where it is unpacked, and the chain id of its top layer there.
    pub unpacked: Option<(String, Digest)>,
}

impl Pull {
    /// Fetches what `target` points to and unpacks its images.
    ///
    /// Dropping the future cancels the pull: its threads stop, half-extracted layers are removed, what was fetched stays
    /// to be resumed.
    pub async fn pull(self, target: &Descriptor, progress: Arc<dyn Progress>) -> Result<Pulled> {
        let cancel = Cancel::new();
        let canceled = CancelOnDrop(cancel.clone());
        let watched = self.shared.begin(&self.namespace, &self.source.name, target, progress);
        let job = Arc::new(Job { pull: self, cancel, watched });
        let target = target.clone();
        // A task of its own, so that it can clean up after a caller that went away.
        let work = tokio::spawn(async move { job.run(target).await });
        let done = work.await;
        drop(canceled);
        done.map_err(|error| types::Error::caused(types::Class::Internal, "the pull crashed", error))?
    }
}

/// A pull that runs.
struct Job {
    pull: Pull,
    cancel: Cancel,
    watched: Watched,
}

impl Job {
    async fn run(&self, target: Descriptor) -> Result<Pulled> {
        let images =
            tree::fetch(self, &target).await.context(|| format!("pull {}", self.pull.source.name))?;
        Ok(Pulled { target, images })
    }

    /// Runs all of `works` to their end; after the first error the others are canceled. That error is the answer.
    async fn all<T>(
        &self,
        works: impl IntoIterator<Item = impl Future<Output = Result<T>>>,
    ) -> Result<Vec<T>> {
        let first = std::sync::Mutex::new(None);
        let works = works.into_iter().map(|work| async {
            match work.await {
                Ok(done) => Some(done),
                Err(error) => {
                    self.cancel.cancel();
                    // Later ones are mostly its consequences.
                    first.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                    None
                }
            }
        });
        let done = futures_util::future::join_all(works).await;
        match first.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(done.into_iter().flatten().collect()),
        }
    }
}

/// A manifest with its descriptor.
struct Found {
    descriptor: Descriptor,
    manifest: Manifest,
}
