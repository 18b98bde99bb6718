//! `docker save` archives: manifests are made from `manifest.json`, as upstream makes them, to the byte.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::marker::PhantomData;

use bytes::Bytes;
use content::{Store, WriterOptions};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use types::filters::Filters;
use types::oci::image::media;
use types::oci::{Descriptor, Manifest};
use types::{Digest, Error, Labels, Result, ResultExt, labels};

use super::ingest::Ingest;
use super::{made_index, names};
use crate::unpack::unique;
use crate::walk;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// One image of `manifest.json`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Few<String>,
    #[serde(default)]
    layers: Few<String>,
}

/// A list, or null, that ends before it needs much memory: twenty megabytes of `{},` are seven million images.
struct Few<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Few<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {} entries", walk::MAX_CHILDREN)
            }

            fn visit_unit<E>(self) -> Result<Few<T>, E> {
                Ok(Few(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(next) = seq.next_element()? {
                    if all.len() == walk::MAX_CHILDREN {
                        return Err(serde::de::Error::invalid_length(all.len() + 1, &self));
                    }
                    all.push(next);
                }
                Ok(Few(all))
            }
        }
        deserializer.deserialize_any(Collect(PhantomData))
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Makes the index of a `docker save` archive.
pub async fn index(ingest: &mut Ingest<'_>, compress: bool) -> Result<Bytes> {
    let Some(bytes) = ingest.docker_manifest() else {
        return Err(Error::invalid(
            "unrecognized image format: neither oci-layout nor manifest.json in the archive",
        ));
    };
    let Few(saved): Few<Saved> = serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("untar manifest \"manifest.json\": {e}")))?;
    ingest.check_links()?;
    let mut manifests = Vec::new();
    for image in saved {
        let manifest = store_manifest(ingest, &image, compress).await?;
        let Few(tags) = image.repo_tags;
        for tag in &tags {
            let annotations = BTreeMap::from(names::annotations(tag)?);
            manifests.push(Descriptor { annotations, ..manifest.clone() });
        }
        if tags.is_empty() {
            manifests.push(manifest);
        }
    }
    encode(&made_index(manifests))
}

async fn store_manifest(ingest: &mut Ingest<'_>, image: &Saved, compress: bool) -> Result<Descriptor> {
    let (digest, size) = ingest.stored(&image.config).await.context(|| "image config")?;
    let config = Descriptor::new(media::DOCKER_CONFIG, digest, size);
    let platform = walk::read_config(&**ingest.store(), &config).await?.platform;
    let mut layers = Vec::new();
    for name in &image.layers.0 {
        layers.push(
            layer(ingest, name, compress).await.context(|| format!("failed to resolve layer {name:?}"))?,
        );
    }
    let manifest = encode(&Manifest {
        schema_version: 2,
        media_type: media::DOCKER_MANIFEST.to_owned(),
        config,
        layers,
        annotations: BTreeMap::new(),
    })?;
    let (digest, size) = ingest.store_bytes(manifest, Labels::new()).await?;
    let mut descriptor = Descriptor::new(media::DOCKER_MANIFEST, digest, size);
    // A config without a platform can be left out; whoever chooses reads it again.
    descriptor.platform = Some(platform.normalized()).filter(|platform| !platform.os.is_empty());
    Ok(descriptor)
}

async fn layer(ingest: &mut Ingest<'_>, name: &str, compress: bool) -> Result<Descriptor> {
    let (digest, size) = ingest.stored(name).await?;
    if let Some(known) = compressed_before(&**ingest.store(), &digest).await?
        && ingest.hold(&known.digest).await?
    {
        return Ok(known);
    }
    if is_compressed(&**ingest.store(), &digest).await? {
        return Ok(Descriptor::new(media::DOCKER_LAYER_GZIP, digest, size));
    }
    if !compress {
        return Ok(Descriptor::new(media::DOCKER_LAYER, digest, size));
    }
    let (digest, size) = compressed(ingest, &digest).await?;
    Ok(Descriptor::new(media::DOCKER_LAYER_GZIP, digest, size))
}

/// A compressed blob in the store that is known to be `diff_id` uncompressed: it was pulled once.
async fn compressed_before(store: &dyn Store, diff_id: &Digest) -> Result<Option<Descriptor>> {
    let filters = Filters::parse(&[format!("labels.\"{}\"=={diff_id}", labels::UNCOMPRESSED)])?;
    let mut known = None;
    let mut take = |info: types::content::Info| {
        known = Some(info);
        Ok(())
    };
    store.walk(&filters, &mut take).await?;
    let Some(info) = known else { return Ok(None) };
    let compressed = is_compressed(store, &info.digest).await?;
    let media_type = if compressed { media::DOCKER_LAYER_GZIP } else { media::DOCKER_LAYER };
    Ok(Some(Descriptor::new(media_type, info.digest, info.size)))
}

async fn is_compressed(store: &dyn Store, blob: &Digest) -> Result<bool> {
    let head = store.reader(blob).await?.read_at(0, 10).await?;
    Ok(head.starts_with(&[0x1f, 0x8b, 8]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
}

async fn compressed(ingest: &mut Ingest<'_>, blob: &Digest) -> Result<(Digest, u64)> {
    let store = std::sync::Arc::clone(ingest.store());
    let reader = store.reader(blob).await?;
    let reference = format!("compress-blob-{}", unique());
    let mut writer = store.writer(WriterOptions { reference, ..WriterOptions::default() }).await?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut offset = 0;
    let mut size = 0;
    loop {
        let piece = reader.read_at(offset, PIECE).await?;
        let last = piece.is_empty();
        offset += piece.len() as u64;
        // Compressing takes the processor for a while, so not on the reactor.
        let (rest, out) = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
            encoder.write_all(&piece)?;
            if last {
                return Ok((None, encoder.finish()?));
            }
            let out = std::mem::take(encoder.get_mut());
            Ok((Some(encoder), out))
        })
        .await
        .map_err(|e| Error::internal(format!("compress layer: {e}")))??;
        size += out.len() as u64;
        if !out.is_empty() {
            writer.write(out.into()).await?;
        }
        match rest {
            Some(rest) => encoder = rest,
            None => break,
        }
    }
    let digest = writer.digest().await?;
    let labels = Labels::from([(labels::UNCOMPRESSED.to_owned(), blob.to_string())]);
    ingest.commit(&mut *writer, size, &digest, labels).await?;
    Ok((digest, size))
}

fn encode(document: &impl serde::Serialize) -> Result<Bytes> {
    serde_json::to_vec(document)
        .map(Bytes::from)
        .map_err(|e| Error::internal(format!("encode document: {e}")))
}
