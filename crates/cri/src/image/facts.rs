//! What the blobs of an image say about it, and whether they are there.

use content::Store;
use images::walk;
use types::oci::image::{chain_id, media};
use types::oci::{Descriptor, ImageConfig, Manifest};
use types::platform::Platform;
use types::{Digest, Result};

use super::Image;

/// What does not change about an image.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The digest of its configuration.
    pub id: Digest,
    /// The snapshot that has all its layers; empty for none.
    pub chain_id: String,
    /// Bytes of all its blobs.
    pub size: u64,
    /// How to run it.
    pub config: ImageConfig,
    /// Whether it is a checkpoint.
    pub checkpoint: bool,
}

/// The annotation of a manifest that says so: it names the container.
const CHECKPOINT: &str = "org.criu.checkpoint.container.name";

impl Facts {
    /// Of an image that is known.
    pub fn of(image: &Image) -> Self {
        Self {
            // It was one when it became an id.
            id: image.id.parse().unwrap_or_else(|_| Digest::of(image.id.as_bytes())),
            chain_id: image.chain_id.clone(),
            size: image.size,
            config: image.config.clone(),
            checkpoint: image.checkpoint,
        }
    }

    /// The image that has these names.
    pub fn image(&self, references: Vec<String>, pinned: bool) -> Image {
        let Self { id, chain_id, size, config, checkpoint } = self.clone();
        Image { id: id.to_string(), references, chain_id, size, config, pinned, checkpoint }
    }

    /// Reads them for this machine's platform. `NotFound` if a blob that they are in is not there.
    pub async fn read(store: &dyn Store, target: &Descriptor) -> Result<(Self, Manifest)> {
        let (found, manifest) = walk::manifest_for(store, target, &Platform::host()).await?;
        let config = walk::read_config(store, &manifest.config).await?;
        let index = (found.digest != target.digest).then_some(target.size);
        let blobs = manifest.layers.iter().map(|layer| layer.size);
        let size =
            blobs.chain(index).chain([found.size, manifest.config.size]).map(|size| size.max(0)).sum::<i64>();
        let facts = Self {
            id: manifest.config.digest.clone(),
            chain_id: chain_id(&config.rootfs.diff_ids).map(|id| id.to_string()).unwrap_or_default(),
            size: size.unsigned_abs(),
            config,
            checkpoint: manifest.annotations.contains_key(CHECKPOINT),
        };
        Ok((facts, manifest))
    }
}

/// The first blob of an image whose bytes are not there; manifest and configuration have been read.
pub async fn missing(store: &dyn Store, manifest: &Manifest) -> Result<Option<Digest>> {
    for layer in manifest.layers.iter().filter(|layer| media::is_layer(&layer.media_type)) {
        match store.reader(&layer.digest).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(Some(layer.digest.clone())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
