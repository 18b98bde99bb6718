//! What the registry has.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use types::Digest;
use types::oci::image::{Descriptor, Index, media};
use types::platform::Platform;

/// A layer to be put into an image.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its blob.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// The digest of the blob without compression.
    pub diff_id: Digest,
}

impl Layer {
    /// A layer that is not compressed.
    pub fn plain(tar: impl Into<Bytes>) -> Self {
        let bytes = tar.into();
        Self { diff_id: Digest::of(&bytes), media_type: media::OCI_LAYER.to_owned(), bytes }
    }
}

/// An image that was put into the registry.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its config.
    pub config: Descriptor,
    /// Its layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// Everything, by repository.
#[derive(Default)]
pub struct Store {
    blobs: HashMap<(String, String), Bytes>,
    manifests: HashMap<(String, String), (String, Bytes)>,
    tags: HashMap<(String, String), String>,
    /// Paths of no repository.
    pub files: HashMap<String, Bytes>,
    /// Uploads under way, by id.
    pub uploads: HashMap<String, Vec<u8>>,
    /// How many there have been.
    pub upload_count: usize,
}

fn key(repository: &str, name: impl ToString) -> (String, String) {
    (repository.to_owned(), name.to_string())
}

impl Store {
    /// See [`super::Fake::add_blob`].
    pub fn add_blob(&mut self, repository: &str, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(key(repository, &digest), bytes);
        digest
    }

    /// See [`super::Fake::blob`].
    pub fn blob(&self, repository: &str, digest: impl ToString) -> Option<Bytes> {
        self.blobs.get(&key(repository, digest)).cloned()
    }

    /// See [`super::Fake::remove_blob`].
    pub fn remove_blob(&mut self, repository: &str, digest: &Digest) {
        self.blobs.remove(&key(repository, digest));
    }

    /// See [`super::Fake::add_manifest`].
    pub fn add_manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: Bytes,
    ) -> Descriptor {
        let digest = Digest::of(&bytes);
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        self.manifests.insert(key(repository, &digest), (media_type.to_owned(), bytes));
        if let Some(tag) = tag {
            self.tags.insert(key(repository, tag), digest.to_string());
        }
        descriptor
    }

    /// See [`super::Fake::manifest`].
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        let digest = self.tags.get(&key(repository, reference)).map_or(reference, String::as_str);
        self.manifests.get(&key(repository, digest)).cloned()
    }

    /// The tags of `repository`.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let mut tags: Vec<_> =
            self.tags.keys().filter(|(r, _)| r == repository).map(|(_, tag)| tag.clone()).collect();
        tags.sort();
        tags
    }

    /// See [`super::Fake::add_image`].
    pub fn add_image(&mut self, repository: &str, tag: &str, layers: &[Layer]) -> Image {
        let platform = Platform::host();
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Bytes::from(config.to_string());
        let config = Descriptor::new(
            media::OCI_CONFIG,
            self.add_blob(repository, config.clone()),
            config.len() as u64,
        );
        let mut blob = |layer: &Layer| {
            let digest = self.add_blob(repository, layer.bytes.clone());
            Descriptor::new(layer.media_type.clone(), digest, layer.bytes.len() as u64)
        };
        let layers: Vec<_> = layers.iter().map(&mut blob).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": config,
            "layers": layers,
        });
        let bytes = Bytes::from(manifest.to_string());
        let manifest = self.add_manifest(repository, Some(tag), media::OCI_MANIFEST, bytes);
        Image { manifest, config, layers }
    }

    /// Who in `repository` says that its subject is `digest`.
    pub fn referrers(&self, repository: &str, digest: &str, artifact_type: Option<&str>) -> Index {
        let mut found =
            Index { schema_version: 2, media_type: media::OCI_INDEX.to_owned(), ..Index::default() };
        for ((owner, own), (media_type, bytes)) in &self.manifests {
            let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else { continue };
            let subject = document.pointer("/subject/digest").and_then(|d| d.as_str());
            let Ok(own) = own.parse() else { continue };
            if owner != repository || subject != Some(digest) {
                continue;
            }
            let kind = document.get("artifactType").or_else(|| document.pointer("/config/mediaType"));
            let mut descriptor = Descriptor::new(media_type.clone(), own, bytes.len() as u64);
            descriptor.artifact_type = kind.and_then(|k| k.as_str()).unwrap_or_default().to_owned();
            if artifact_type.is_none_or(|wanted| wanted == descriptor.artifact_type) {
                found.manifests.push(descriptor);
            }
        }
        found
    }
}
