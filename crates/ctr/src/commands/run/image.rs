//! From an image's name to what a container needs of it: the chain of its layers and its config.
//!
//! Each document is read with one call. Its bytes are foreign: of bounded size, and hashed before they are believed,
//! as a daemon is not the only one that can write a content store.

use remote::RemoteStore;
use serde::de::DeserializeOwned;
use types::image::Image;
use types::oci::image::{chain_id, media};
use types::oci::{Descriptor, ImageConfig, Index, Manifest};
use types::platform::Platform;
use types::{Digest, Error, Result};

/// Upstream's bound for manifests and configs.
const LIMIT: u64 = 8 << 20;
/// Indexes may name indexes; nobody nests them deeper.
const DEPTH: usize = 4;

/// An image for one platform.
pub struct Resolved {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its config.
    pub config: ImageConfig,
    /// The documents on the way to the manifest, and itself.
    pub path: Vec<Descriptor>,
}

impl Resolved {
    /// The bytes of everything that the image consists of, as its documents say.
    pub fn size(&self) -> u64 {
        let parts = self.path.iter().chain([&self.manifest.config]).chain(&self.manifest.layers);
        parts.map(|part| u64::try_from(part.size).unwrap_or(0)).sum()
    }

    /// The name of the snapshot that holds all layers.
    pub fn chain(&self) -> Result<Digest> {
        chain_id(&self.config.rootfs.diff_ids)
            .ok_or_else(|| Error::invalid("image has no layers: invalid argument"))
    }
}

/// Reads the manifest and config of `image` for `platform`.
pub async fn resolve(store: &RemoteStore, image: &Image, platform: &Platform) -> Result<Resolved> {
    let mut descriptor = image.target.clone();
    let mut path = Vec::new();
    // The manifest is one more.
    for _ in 0..=DEPTH {
        path.push(descriptor.clone());
        if media::is_manifest(&descriptor.media_type) {
            let manifest: Manifest = document(store, &descriptor).await?;
            if !media::is_config(&manifest.config.media_type) {
                let text = format!("unknown image config media type {}", manifest.config.media_type);
                return Err(Error::invalid(text));
            }
            let config = document(store, &manifest.config).await?;
            return Ok(Resolved { manifest, config, path });
        }
        if !media::is_index(&descriptor.media_type) {
            let (kind, digest) = (&descriptor.media_type, &descriptor.digest);
            return Err(Error::not_found(format!("unexpected media type {kind} for {digest}: not found")));
        }
        let index: Index = document(store, &descriptor).await?;
        descriptor = choose(index, platform).ok_or_else(|| {
            let digest = &image.target.digest;
            Error::not_found(format!("no match for platform in manifest {digest}: not found"))
        })?;
    }
    Err(Error::invalid(format!("image index {} is nested too deeply", image.target.digest)))
}

/// The manifest that fits best; one that names no platform fits last.
fn choose(index: Index, platform: &Platform) -> Option<Descriptor> {
    let usable = index
        .manifests
        .into_iter()
        .filter(|manifest| media::is_manifest(&manifest.media_type) || media::is_index(&manifest.media_type));
    let ranked = usable.filter_map(|manifest| {
        let rank = match &manifest.platform {
            Some(built_for) => platform.rank(built_for)?,
            None => u32::MAX,
        };
        Some((rank, manifest))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, manifest)| manifest)
}

/// Reads what `descriptor` points to.
pub async fn document<T: DeserializeOwned>(store: &RemoteStore, descriptor: &Descriptor) -> Result<T> {
    let bytes = store.read(&descriptor.digest, LIMIT).await?;
    let mut hasher = types::digest::Hasher::new(descriptor.digest.algorithm());
    hasher.update(&bytes);
    if hasher.finish() != descriptor.digest {
        return Err(Error::data_loss(format!("content {} does not match its digest", descriptor.digest)));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("decode {} {}: {e}", descriptor.media_type, descriptor.digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_platform_wins_and_attestations_are_never_chosen() {
        let manifest = |platform: Option<&str>, name: &str| {
            let mut descriptor = Descriptor::new(media::OCI_MANIFEST, Digest::of(name.as_bytes()), 1);
            descriptor.platform = platform.map(|text| text.parse().unwrap_or_default());
            descriptor
        };
        let manifests = vec![
            manifest(None, "none"),
            manifest(Some("linux/s390x"), "other"),
            manifest(Some("linux/amd64"), "this"),
        ];
        let index = Index { manifests, ..Default::default() };
        let chosen = choose(index.clone(), &"linux/amd64".parse().unwrap()).unwrap();
        assert_eq!(chosen.digest, Digest::of(b"this"));
        assert_eq!(choose(index, &"linux/arm64".parse().unwrap()).unwrap().digest, Digest::of(b"none"));
    }
}
