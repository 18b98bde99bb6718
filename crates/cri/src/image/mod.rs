//! Images as a kubelet sees them: by id, which is the digest of their configuration, with all their names.
//!
//! ```text
//!  records of the database ── facts (what the blobs say) ──> known (by name, by id)     changed by: pulls, removals,
//!                                                                                        events of others' changes (watch)
//! ```
//!
//! [`Images`] is rebuilt from the records and blobs at the start of the daemon. An image is known only if all of it is there.

mod auth;
mod facts;
pub mod image_fs_info;
pub mod image_status;
mod known;
pub mod list_images;
pub mod pull_image;
mod records;
pub mod remove_image;
pub mod stream_images;
mod watch;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use types::oci::{Descriptor, ImageConfig};
use types::reference::Reference;
use types::{Digest, Error, Labels, Result};

pub use auth::{Auth, Login};
use known::Known;
pub(crate) use watch::load;

/// An image that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Its names: by tag, by digest, and the id itself; the best known first.
    pub references: Vec<String>,
    /// The snapshot that has all its layers; empty for none.
    pub chain_id: String,
    /// Bytes of all its blobs.
    pub size: u64,
    /// How to run it.
    pub config: ImageConfig,
    /// Whether the kubelet is told never to remove it.
    pub pinned: bool,
    /// Whether it is a checkpoint, from which a container can go on.
    pub checkpoint: bool,
}

/// A pull.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// The image, with its registry.
    pub reference: String,
    /// Whose snapshots its layers become.
    pub snapshotter: String,
    /// Labels of its record.
    pub labels: Labels,
    /// Who the caller says that we are; it may say nothing.
    pub auth: Option<Auth>,
    /// The same by registry, from the configuration, where the caller says nothing.
    pub auths: BTreeMap<String, Auth>,
    /// Directories of hosts files.
    pub hosts: String,
    /// Sent to registries.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Whether layers may go once they are unpacked.
    pub discard_layers: bool,
    /// Whether snapshotters are told where layers come from, and may bring them themselves.
    pub remote: bool,
    /// Whether who applies layers is to make them durable.
    pub sync: bool,
    /// Without progress for so long it is given up; zero for never.
    pub progress_timeout: Duration,
}

impl PullRequest {
    /// Who we are to a registry.
    pub fn login(&self, host: &str) -> Result<Option<Login>> {
        match self.auth.as_ref().or_else(|| self.auths.get(host)) {
            Some(auth) => auth.login(host),
            None => Ok(None),
        }
    }
}

/// Who pulls: the daemon, as it does for a transfer.
#[tonic::async_trait]
pub trait Puller: Send + Sync {
    /// Fetches and unpacks an image and gives it its name; what the name points to. Ends with its caller.
    async fn pull(&self, request: PullRequest) -> Result<Descriptor>;
}

/// The images.
pub struct Images {
    known: RwLock<Known>,
    /// One name is looked at at a time, so that what was seen last is what is known.
    looking: tokio::sync::Mutex<()>,
    usage: image_fs_info::Measured,
}

impl Images {
    /// Knows none.
    pub fn new() -> Self {
        Self {
            known: RwLock::default(),
            looking: tokio::sync::Mutex::default(),
            usage: image_fs_info::Measured::default(),
        }
    }

    /// The image of this id, whole or its beginning, or of a reference in any form. `NotFound` if there is none.
    pub fn resolve(&self, image: &str) -> Result<Arc<Image>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if image.parse::<Digest>().is_err()
            && let Ok(name) = normalize(image)
            && let Some(image) = known.named(&name.to_string())
        {
            return Ok(image);
        }
        known.by_id(image)?.ok_or_else(|| Error::not_found(format!("image {image:?}: not found")))
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).list()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

/// A name as Docker completes it. A digest says more than a tag, which is left out then.
fn normalize(name: &str) -> Result<Reference> {
    let mut reference = Reference::normalize(name)?;
    if reference.digest.is_some() {
        reference.tag = None;
    }
    Ok(reference)
}
