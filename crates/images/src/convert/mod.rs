//! Images into other images: layers uncompressed, Docker's media types made OCI's, platforms left out.
//!
//! From the layers up: what refers to something that became another is written anew, with the labels that it had. What does
//! not change stays the same blob. Documents are edited, not rebuilt, so that nothing in them is lost; known fields come in
//! the order in which upstream writes them, and so converted images have the digests that they have there.

mod document;
mod layer;

use std::sync::Arc;

use content::{Store, WriterOptions};
use serde_json::Value;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Digest, Labels, Result, ResultExt, labels};

use crate::walk::{self, Wanted};
use document::Document;

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Layers lose their compression.
    pub uncompress: bool,
    /// Docker's media types become OCI's.
    pub oci: bool,
    /// Which images of an index stay.
    pub wanted: Wanted,
}

/// Converts what `target` describes; answers with what it has become, which may be the same. Blobs that are written are the
/// caller's to hold.
pub async fn convert(store: &Arc<dyn Store>, target: &Descriptor, options: &Options) -> Result<Descriptor> {
    let converter = Converter { store: Arc::clone(store), options };
    let converted = converter.convert(target, 0).await.context(|| format!("convert {}", target.digest))?;
    Ok(converted.unwrap_or_else(|| target.clone()))
}

struct Converter<'a> {
    store: Arc<dyn Store>,
    options: &'a Options,
}

impl Converter<'_> {
    /// `None` for what stays as it is.
    async fn convert(&self, old: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        let mut new = if walk::is_layer(&old.media_type) {
            if self.options.uncompress { layer::uncompress(&self.store, old).await? } else { None }
        } else if media::is_manifest(&old.media_type) {
            self.manifest(old).await?
        } else if media::is_index(&old.media_type) {
            walk::nested(old, depth)?;
            Box::pin(self.index(old, depth)).await?
        } else {
            None
        };
        if old.media_type.starts_with("application/vnd.docker.") {
            if self.options.oci {
                let new = new.get_or_insert_with(|| old.clone());
                new.media_type = oci(&new.media_type).to_owned();
            } else if !new.as_ref().unwrap_or(old).annotations.is_empty() {
                // Docker's formats have none.
                new.get_or_insert_with(|| old.clone()).annotations.clear();
            }
        }
        Ok(new)
    }

    async fn manifest(&self, old: &Descriptor) -> Result<Option<Descriptor>> {
        let manifest = walk::read_manifest(&*self.store, old).await?;
        let mut document = Document::read(&*self.store, old, "layers").await?;
        let mut changed = self.options.oci && document.change_media_type(oci);
        for (at, layer) in manifest.layers.iter().enumerate() {
            if let Some(new) = Box::pin(self.convert(layer, 0)).await? {
                document.replace(at, &layer.digest, &new, &format!("l.{at}"))?;
                changed = true;
            }
        }
        if let Some(new) = Box::pin(self.convert(&manifest.config, 0)).await? {
            document.replace_config(&manifest.config.digest, &new)?;
            changed = true;
        }
        if changed { self.write(document, old).await.map(Some) } else { Ok(None) }
    }

    async fn index(&self, old: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        let index = walk::read_index(&*self.store, old).await?;
        let mut document = Document::read(&*self.store, old, "manifests").await?;
        let mut changed = self.options.oci && document.change_media_type(oci);
        let mut left_out = Vec::new();
        for (at, manifest) in index.manifests.iter().enumerate() {
            if !self.options.wanted.matches(manifest) {
                document.forget(&manifest.digest);
                left_out.push(at);
                changed = true;
            } else if let Some(new) = self.convert(manifest, depth + 1).await? {
                document.replace(at, &manifest.digest, &new, &format!("m.{at}"))?;
                changed = true;
            }
        }
        document.remove(&left_out);
        if changed { self.write(document, old).await.map(Some) } else { Ok(None) }
    }

    /// Stores a document; answers with the old descriptor, made to point to it.
    async fn write(&self, document: Document, old: &Descriptor) -> Result<Descriptor> {
        let (bytes, labels) = document.finish()?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let reference = format!("converter-write-json-{digest}");
        let options = WriterOptions { reference, total: size, expected: Some(digest.clone()) };
        match self.store.writer(options).await {
            Err(error) if error.is_already_exists() => {}
            writer => {
                let mut writer = writer?;
                if writer.status().await?.offset > 0 {
                    writer.truncate(0).await?;
                }
                writer.write(bytes.into()).await?;
                committed(writer.commit(size, Some(digest.clone()), labels).await)?;
            }
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Ok(Descriptor { digest, size, data: String::new(), ..old.clone() })
    }
}

/// What is there already is as good.
fn committed(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.is_already_exists() => Ok(()),
        done => done,
    }
}

/// Labels of a document without those that hold `gone`.
fn without(labels: &mut Labels, gone: &Digest) {
    labels.retain(|key, value| value != gone.as_str() || !key.starts_with(labels::GC_REF_CONTENT));
}

/// OCI's word for a media type of Docker's.
fn oci(media_type: &str) -> &str {
    match media_type {
        media::DOCKER_LIST => media::OCI_INDEX,
        media::DOCKER_MANIFEST => media::OCI_MANIFEST,
        media::DOCKER_CONFIG => media::OCI_CONFIG,
        media::DOCKER_LAYER => media::OCI_LAYER,
        media::DOCKER_LAYER_GZIP => media::OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    }
}

/// A descriptor as JSON, in the order of the fields that everybody writes.
fn json(descriptor: &Descriptor) -> Result<Value> {
    serde_json::to_value(descriptor)
        .map_err(|error| types::Error::internal(format!("encode a descriptor: {error}")))
}
