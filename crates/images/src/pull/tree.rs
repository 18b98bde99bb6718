//! Indexes, manifests and configs: fetched, labelled with what they name, and walked.

use futures_util::future::BoxFuture;
use types::oci::image::media;
use types::oci::{Descriptor, ImageConfig};
use types::platform::Platform;
use types::{Error, Result, ResultExt};

use crate::import::child_labels;
use crate::progress::Event;
use crate::unpack::set_labels;
use crate::walk;

use super::{Found, Image, Job, Keep, MAX_INDEX_DEPTH, MAX_MANIFEST_SIZE, Metadata, blob, chain};

/// What docker called an image of schema 1.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const SCHEMA_1_UNSIGNED: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// Fetches what `target` points to, and answers with its images.
pub(super) async fn fetch(job: &Job, target: &Descriptor) -> Result<Vec<Image>> {
    job.watched.report(Event::Found(target, None));
    node(job, target.clone(), 0).await
}

/// A document, or whatever an index names.
fn node(job: &Job, descriptor: Descriptor, depth: usize) -> BoxFuture<'_, Result<Vec<Image>>> {
    Box::pin(async move {
        check(job, &descriptor, depth)?;
        blob::fetch(job, &descriptor).await?;
        if media::is_index(&descriptor.media_type) {
            return index(job, &descriptor, depth).await;
        }
        if media::is_manifest(&descriptor.media_type) {
            return Ok(manifest(job, descriptor).await?.into_iter().collect());
        }
        Ok(Vec::new())
    })
}

fn check(job: &Job, descriptor: &Descriptor, depth: usize) -> Result<()> {
    let Descriptor { media_type, digest, .. } = descriptor;
    if matches!(media_type.as_str(), SCHEMA_1 | SCHEMA_1_UNSIGNED) {
        return Err(Error::invalid(format!(
            "{digest}: schema 1 image manifests ({media_type}) are no longer supported; rebuild the image as {} or {}",
            media::DOCKER_MANIFEST,
            media::OCI_MANIFEST
        )));
    }
    let limits = &job.pull.limits;
    if media::is_index(media_type) && depth >= limits.depth {
        return Err(Error::invalid(format!(
            "index {digest} is nested more than {} deep, all that {MAX_INDEX_DEPTH} allows",
            limits.depth
        )));
    }
    let size = descriptor.size.unsigned_abs();
    if !walk::is_layer(media_type) && is_document(media_type) && size > limits.document {
        return Err(Error::invalid(format!(
            "{media_type} {digest} has {size} bytes, more than the {} that {MAX_MANIFEST_SIZE} allows",
            limits.document
        )));
    }
    Ok(())
}

fn is_document(media_type: &str) -> bool {
    media::is_index(media_type) || media::is_manifest(media_type) || media::is_config(media_type)
}

async fn index(job: &Job, descriptor: &Descriptor, depth: usize) -> Result<Vec<Image>> {
    let store = &*job.pull.store;
    let mut manifests = walk::read_index(store, descriptor).await?.manifests;
    hold(job, descriptor, &manifests).await?;
    if job.pull.metadata == Metadata::Wanted {
        manifests.retain(|manifest| job.pull.wanted.matches(manifest));
    }
    if job.pull.manifest_limit > 0 {
        manifests.sort_by_key(|manifest| job.pull.wanted.rank(manifest));
        manifests.truncate(job.pull.manifest_limit);
        if manifests.is_empty() {
            return Err(Error::not_found(format!(
                "no match for platform in manifest {}: not found",
                descriptor.digest
            )));
        }
    }
    found(job, descriptor, &manifests);
    let works = manifests.into_iter().map(|manifest| node(job, manifest, depth + 1));
    Ok(job.all(works).await?.into_iter().flatten().collect())
}

/// An image, or an artifact; `None` where only its documents are wanted.
async fn manifest(job: &Job, descriptor: Descriptor) -> Result<Option<Image>> {
    let store = &*job.pull.store;
    let manifest = walk::read_manifest(store, &descriptor).await?;
    let children: Vec<Descriptor> =
        std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect();
    hold(job, &descriptor, &children).await?;
    if !job.pull.wanted.matches(&descriptor) {
        // Here for its metadata only.
        if media::is_config(&manifest.config.media_type) {
            found(job, &descriptor, std::slice::from_ref(&manifest.config));
            check(job, &manifest.config, 0)?;
            blob::fetch(job, &manifest.config).await?;
        }
        return Ok(None);
    }
    found(job, &descriptor, &children);
    let others = children.iter().filter(|child| !is_layer(job, child));
    job.all(others.map(|child| async {
        check(job, child, 0)?;
        blob::fetch(job, child).await
    }))
    .await?;
    let unpacked = layers(job, &Found { descriptor: descriptor.clone(), manifest }).await?;
    Ok(Some(Image { manifest: descriptor, unpacked }))
}

/// Fetches the layers of an image whose other blobs are there, and unpacks them where that is wanted.
async fn layers(job: &Job, image: &Found) -> Result<Option<(String, types::Digest)>> {
    let layers: Vec<&Descriptor> =
        image.manifest.layers.iter().filter(|layer| is_layer(job, layer)).collect();
    if !layers.is_empty() && is_config(job, &image.manifest.config) {
        let config = walk::read_config(&*job.pull.store, &image.manifest.config).await?;
        if let Some(into) = suitable(job, &image.manifest.config, &config) {
            let top = chain::unpack(job, into, image, config.rootfs.diff_ids)
                .await
                .context(|| format!("unpack image {}", image.descriptor.digest))?;
            return Ok(top.map(|top| (into.snapshotter_name.clone(), top)));
        }
    }
    job.all(layers.into_iter().map(|layer| blob::fetch(job, layer))).await?;
    Ok(None)
}

/// Whether it is a layer, or somebody into whom we unpack takes it for one.
pub(super) fn is_layer(job: &Job, blob: &Descriptor) -> bool {
    let mut others = job.pull.unpack.iter().flat_map(|into| &into.layer_types);
    walk::is_layer(&blob.media_type) || others.any(|other| *other == blob.media_type)
}

/// Whether it is a config of something that we may unpack.
fn is_config(job: &Job, blob: &Descriptor) -> bool {
    let mut others = job.pull.unpack.iter().map(|into| &into.config_type);
    !job.pull.unpack.is_empty()
        && (media::is_config(&blob.media_type) || others.any(|other| *other == blob.media_type))
}

fn suitable<'a>(job: &'a Job, blob: &Descriptor, config: &ImageConfig) -> Option<&'a super::UnpackInto> {
    let platform: Platform = config.platform.clone().normalized();
    // The only kind of rootfs that images have; an artifact may have none.
    let of_image = matches!(config.rootfs.kind.as_str(), "" | "layers");
    job.pull.unpack.iter().find(|into| {
        let known = into.config_type.is_empty() || media::is_config(&into.config_type);
        let type_suits = into.config_type.is_empty() || into.config_type == blob.media_type;
        type_suits && (of_image || !known) && into.platforms.suits(&platform)
    })
}

fn found(job: &Job, parent: &Descriptor, children: &[Descriptor]) {
    for child in children {
        job.watched.report(Event::Found(child, Some(&parent.digest)));
    }
}

/// Labels a document with what it names, wanted or not, as upstream does.
async fn hold(job: &Job, parent: &Descriptor, children: &[Descriptor]) -> Result<()> {
    let labels = child_labels(children, job.pull.keep == Keep::Snapshots);
    set_labels(&*job.pull.store, &parent.digest, labels).await
}
