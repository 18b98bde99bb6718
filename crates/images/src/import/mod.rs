//! Archives into the content store: OCI layouts and what `docker save` writes, plain or compressed.
//!
//! ```text
//!  archive -> members (a thread) -> blobs in the store, small ones in memory until they turn out to be needed
//!          -> an index: the layout's own, or one made from manifest.json
//!          -> labels that hold children, image names
//! ```
//!
//! An import removes nothing. What it wrote and does not need, or wrote before it failed, is held by nobody but the lease of
//! the store that it was given, and is collected when that ends: a blob that is deleted by name may be one that another
//! import, at the same time, has just found to be there.

mod archive;
mod docker;
mod ingest;
mod names;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use content::Store;
use types::oci::image::media;
use types::oci::{Descriptor, Index};
use types::{Digest, Error, Labels, Result, ResultExt, labels};

use crate::progress::Progress;
use crate::unpack::set_labels;
use crate::walk::{self, Wanted};

use ingest::Ingest;
pub use names::{DigestNames, IMAGE_NAME, Names, Naming, REF_NAME, complete};

/// How to import; the flags of `ctr images import`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which platforms' images must be complete and are kept.
    pub wanted: Wanted,
    /// Compress layers of a `docker save` archive.
    pub compress: bool,
    /// Do not hold the layers by labels: once unpacked they may be collected.
    pub discard_layers: bool,
}

/// What an import brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Names and what they should point to, in the archive's order.
    pub images: Vec<(String, Descriptor)>,
}

/// Imports `archive` into `store`, all of whose calls should be held by a lease.
pub async fn import(
    archive: Box<dyn Read + Send>,
    store: &Arc<dyn Store>,
    options: &Options,
    names: &dyn Names,
    progress: &dyn Progress,
) -> Result<Imported> {
    let mut ingest = Ingest::new(Arc::clone(store), progress);
    Ok(Imported { images: store_archive(archive, &mut ingest, options, names).await? })
}

async fn store_archive(
    archive: Box<dyn Read + Send>,
    ingest: &mut Ingest<'_>,
    options: &Options,
    names: &dyn Names,
) -> Result<Vec<(String, Descriptor)>> {
    ingest.read_members(archive).await?;
    let index = match ingest.layout()? {
        Some(index) => {
            ingest.store_layout_blobs().await?;
            index
        }
        None => docker::index(ingest, options.compress).await?,
    };
    let index = ingest.store_index(&index).await?;
    let images = name_images(&**ingest.store(), &index, options, names).await?;
    hold_children(&**ingest.store(), &index, options).await?;
    Ok(images)
}

async fn name_images(
    store: &dyn Store,
    index: &Descriptor,
    options: &Options,
    names: &dyn Names,
) -> Result<Vec<(String, Descriptor)>> {
    let mut images: Vec<_> = names.index(index).into_iter().map(|name| (name, index.clone())).collect();
    // An image that is not wanted is not kept either: a name for it would name nothing.
    let manifests = walk::read_index(store, index).await?.manifests;
    for manifest in manifests.into_iter().filter(|manifest| options.wanted.matches(manifest)) {
        images.extend(names.manifest(&manifest).into_iter().map(|name| (name, manifest.clone())));
    }
    Ok(images)
}

/// Checks that everything wanted is there, and labels each document with its children so that they are held.
async fn hold_children(store: &dyn Store, index: &Descriptor, options: &Options) -> Result<()> {
    let mut queue = vec![(index.clone(), 0)];
    let mut leaves = 0;
    while let Some((descriptor, depth)) = queue.pop() {
        if media::is_index(&descriptor.media_type) {
            walk::nested(&descriptor, depth)?;
        }
        let mut children = walk::children(store, &descriptor).await?;
        children.retain(|child| options.wanted.matches(child));
        if media::is_manifest(&descriptor.media_type) {
            leaves += 1;
            check_present(store, &children).await.context(|| format!("image {}", descriptor.digest))?;
        }
        label_children(store, &descriptor.digest, &children, options).await?;
        queue.extend(children.into_iter().filter(|child| !is_blob(child)).map(|child| (child, depth + 1)));
    }
    if leaves == 0 {
        return Err(Error::not_found(match &options.wanted {
            Wanted::All => "the archive has no image".to_owned(),
            Wanted::Any(platforms) => {
                let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                format!("the archive has no image for platform {}", platforms.join(", "))
            }
            Wanted::Only(platform) => format!(
                "the archive has no image for platform {platform}: import it with --platform or --all-platforms"
            ),
        }));
    }
    Ok(())
}

fn is_blob(descriptor: &Descriptor) -> bool {
    !media::is_index(&descriptor.media_type) && !media::is_manifest(&descriptor.media_type)
}

async fn check_present(store: &dyn Store, blobs: &[Descriptor]) -> Result<()> {
    for blob in blobs {
        if blob.media_type.contains("foreign") || blob.media_type.contains("nondistributable") {
            continue;
        }
        let info = store.info(&blob.digest).await.context(|| "the archive is not complete")?;
        if blob.size != i64::try_from(info.size).unwrap_or(-1) {
            return Err(Error::precondition(format!(
                "blob {} has {} bytes, its descriptor says {}",
                blob.digest, info.size, blob.size
            )));
        }
    }
    Ok(())
}

/// Upstream's keys below `containerd.io/gc.ref.content`: `config`, `l.N`, `m.N`, a bare number for the rest.
pub(crate) fn child_labels(children: &[Descriptor], discard_layers: bool) -> Labels {
    let mut labels = Labels::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for child in children {
        let kind = match child.media_type.as_str() {
            _ if child.annotations.contains_key(walk::SUBJECT) => "referrer.sha256.",
            t if media::is_config(t) => "config",
            t if media::is_manifest(t) => "m.",
            t if walk::is_layer(t) && discard_layers => continue,
            t if walk::is_layer(t) => "l.",
            _ => "",
        };
        let count = counts.entry(kind).or_default();
        let suffix = match kind {
            "referrer.sha256." => child.digest.hex().chars().take(12).collect(),
            // A key that ends in a dot is always numbered, the config's only from its second on.
            "config" if *count == 0 => String::new(),
            _ => count.to_string(),
        };
        *count += 1;
        labels.insert(format!("{}.{kind}{suffix}", labels::GC_REF_CONTENT), child.digest.to_string());
    }
    labels
}

async fn label_children(
    store: &dyn Store,
    parent: &Digest,
    children: &[Descriptor],
    options: &Options,
) -> Result<()> {
    set_labels(store, parent, child_labels(children, options.discard_layers)).await
}

/// An index that is made here rather than read.
fn made_index(manifests: Vec<Descriptor>) -> Index {
    Index { schema_version: 2, manifests, ..Index::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_numbered_by_kind_as_upstream_does() {
        let child =
            |media_type: &str, text: &str| Descriptor::new(media_type, Digest::of(text.as_bytes()), 1);
        let mut children = vec![
            child(media::OCI_CONFIG, "c"),
            child(media::OCI_LAYER_GZIP, "0"),
            child(media::OCI_LAYER, "1"),
            child(media::OCI_MANIFEST, "m"),
            child(media::OCI_INDEX, "i"),
            child("text/plain", "t"),
        ];
        let mut referrer = child(media::OCI_MANIFEST, "r");
        referrer.annotations.insert(walk::SUBJECT.into(), "x".into());
        children.push(referrer);
        let keys: Vec<String> = child_labels(&children, false).into_keys().collect();
        let referrer = format!(".referrer.sha256.{}", &Digest::of(b"r").hex()[..12]);
        let wanted = [".0", ".1", ".config", ".l.0", ".l.1", ".m.0", &referrer];
        assert_eq!(keys, wanted.map(|key| format!("containerd.io/gc.ref.content{key}")));
        assert_eq!(child_labels(&children, true).len(), 5);
    }
}
