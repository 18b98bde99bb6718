//! Layers into snapshots.
//!
//! Each layer becomes a committed snapshot named by its chain id, on top of the one below. What is there is not unpacked
//! again; of two that unpack the same layer at once, one commits and the other's work is thrown away. A snapshot is
//! committed only if what was extracted has the diff id that the config promises. When a layer fails, those below that
//! were unpacked for it go too, unless somebody builds on them meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use content::Store;
use diff::{Applier, ApplyOptions};
use snapshots::Snapshotter;
use types::content::Info;
use types::fields::FieldPaths;
use types::mount::Mount;
use types::oci::image::chain_id;
use types::oci::{Descriptor, Manifest};
use types::{Digest, Error, Labels, Result, ResultExt, labels};

use crate::cancel::Cancel;
use crate::progress::{Event, Progress};
use crate::walk;

/// Where layers come from and go to.
#[derive(Clone)]
pub struct Unpacker {
    /// Has the layers, the manifest and the config.
    pub store: Arc<dyn Store>,
    /// Extracts layers onto mounts.
    pub applier: Arc<dyn Applier>,
    /// Gets the snapshots.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Its name, for the label on the config that keeps the snapshot.
    pub snapshotter_name: String,
}

/// How to unpack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Make the files durable layer by layer.
    pub sync: bool,
}

/// A layer and what it must contain.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) chain_id: Digest,
    /// The chain id below, empty for the lowest.
    pub(crate) parent: String,
    /// More labels for its snapshot.
    pub(crate) more: Labels,
}

impl Layer {
    /// A key under which it can be unpacked that nobody else uses.
    pub(crate) fn key(&self) -> String {
        format!("extract-{} {}", unique(), self.chain_id)
    }

    /// Refuses what was extracted if it is something else than the config promises.
    pub(crate) fn check(&self, diff_id: &Digest) -> Result<()> {
        if *diff_id == self.diff_id {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "wrong diff id calculated on extraction {:?}, the config says {:?}",
            diff_id.as_str(),
            self.diff_id.as_str()
        )))
    }

    /// What upstream's unpacker writes on a snapshot.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = self.more.clone();
        labels.insert(labels::SNAPSHOT_REF.to_owned(), self.chain_id.to_string());
        labels.insert(labels::SNAPSHOT_DIFF_ID.to_owned(), self.diff_id.to_string());
        if !self.parent.is_empty() {
            labels.insert(labels::SNAPSHOT_PARENT.to_owned(), self.parent.clone());
        }
        labels
    }
}

impl Unpacker {
    /// Unpacks the image of `manifest`; answers with the chain id of its top layer, `None` for an image without layers.
    pub async fn unpack(
        &self,
        manifest: &Manifest,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Option<Digest>> {
        let config = walk::read_config(&*self.store, &manifest.config).await?;
        let layers = layers(&manifest.layers, config.rootfs.diff_ids)?;
        let mut committed = Vec::new();
        let unpacked = self.unpack_layers(manifest, &layers, options, (&mut committed, progress)).await;
        if unpacked.is_err() {
            self.take_back(&committed).await;
        }
        unpacked
    }

    /// Notes in `committed` which snapshots were not there before.
    async fn unpack_layers<'a>(
        &self,
        manifest: &Manifest,
        layers: &'a [Layer],
        options: &Options,
        (committed, progress): (&mut Vec<&'a Layer>, &dyn Progress),
    ) -> Result<Option<Digest>> {
        for layer in layers {
            progress.report(Event::Unpacking(&layer.blob.digest, layer.blob.size.unsigned_abs()));
            self.unpack_layer(layer, options, committed)
                .await
                .context(|| format!("unpack layer {}", layer.blob.digest))?;
            progress.report(Event::Unpacked(&layer.blob.digest));
        }
        let top = layers.last().map(|layer| layer.chain_id.clone());
        self.keep_snapshot(&manifest.config, top.as_ref()).await?;
        Ok(top)
    }

    /// Removes the snapshots of layers whose image could not be completed; nothing else refers to them.
    async fn take_back(&self, committed: &[&Layer]) {
        for layer in committed.iter().rev() {
            match self.snapshotter.remove(layer.chain_id.as_str()).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                // Another image was built on it meanwhile, and keeps what is below, too.
                Err(error) => {
                    tracing::debug!(%error, snapshot = %layer.chain_id, "a layer of a failed unpack stays");
                    return;
                }
            }
        }
    }

    /// The chain id of the image if it is unpacked, else `None`.
    pub async fn is_unpacked(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        let config = walk::read_config(&*self.store, &manifest.config).await?;
        let Some(top) = chain_id(&config.rootfs.diff_ids) else { return Ok(None) };
        match self.snapshotter.stat(top.as_str()).await {
            Ok(_) => Ok(Some(top)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn has(&self, layer: &Layer) -> Result<bool> {
        match self.snapshotter.stat(layer.chain_id.as_str()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.context("look for snapshot")),
        }
    }

    async fn unpack_layer<'a>(
        &self,
        layer: &'a Layer,
        options: &Options,
        committed: &mut Vec<&'a Layer>,
    ) -> Result<()> {
        if let Committed::ByUs = self.ensure(layer, options, &Cancel::new()).await? {
            committed.push(layer);
        }
        Ok(())
    }

    /// Unpacks a layer whose parent is there, unless it is there too; until `cancel`.
    pub(crate) async fn ensure(
        &self,
        layer: &Layer,
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Committed> {
        if self.has(layer).await? {
            return Ok(Committed::ByAnother);
        }
        match self.prepare(layer).await? {
            Some(prepared) => self.fill(layer, prepared, options, cancel).await,
            None => Ok(Committed::ByAnother),
        }
    }

    /// Prepares a snapshot for a layer whose parent is there. `None` if the layer is there all at once: somebody else has
    /// just finished it, or the snapshotter brings layers itself.
    pub(crate) async fn prepare(&self, layer: &Layer) -> Result<Option<Prepared>> {
        let key = layer.key();
        match self.snapshotter.prepare(&key, &layer.parent, layer.labels()).await {
            Ok(mounts) => Ok(Some(Prepared { key, mounts })),
            // Nothing else makes it right.
            Err(error) if error.is_already_exists() && self.has(layer).await? => Ok(None),
            Err(error) => Err(error.context("prepare snapshot")),
        }
    }

    /// Extracts a layer, which is in the store, into what was prepared for it.
    pub(crate) async fn fill(
        &self,
        layer: &Layer,
        Prepared { key, mounts }: Prepared,
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Committed> {
        let done = match cancel.or(self.extract(layer, &mounts, options)).await {
            Ok(()) => self.commit(layer, &key, None).await,
            Err(error) => Err(error),
        };
        if !matches!(done, Ok(Committed::ByUs)) {
            self.remove(&key).await;
        }
        let done = done?;
        self.label_uncompressed(layer).await?;
        Ok(done)
    }

    /// The layer has been extracted and its diff id is right.
    pub(crate) async fn label_uncompressed(&self, layer: &Layer) -> Result<()> {
        self.set_label(&layer.blob.digest, labels::UNCOMPRESSED, layer.diff_id.as_str()).await
    }

    /// Removes a snapshot that will not be committed.
    pub(crate) async fn remove(&self, key: &str) {
        match self.snapshotter.remove(key).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%error, key, "a half-unpacked snapshot could not be removed");
            }
            _ => {}
        }
    }

    async fn extract(&self, layer: &Layer, mounts: &[Mount], options: &Options) -> Result<()> {
        let how = ApplyOptions { sync: options.sync, ..ApplyOptions::default() };
        let applied = self.applier.apply(&layer.blob, mounts, how).await?;
        layer.check(&applied.uncompressed.digest)
    }

    /// Gives the snapshot `key` its name; on top of `parent` if it was prepared on nothing.
    pub(crate) async fn commit(&self, layer: &Layer, key: &str, parent: Option<&str>) -> Result<Committed> {
        match self.snapshotter.commit(layer.chain_id.as_str(), key, parent, layer.labels()).await {
            Ok(()) => Ok(Committed::ByUs),
            Err(error) if error.is_already_exists() => Ok(Committed::ByAnother),
            Err(error) => Err(error.context("commit snapshot")),
        }
    }

    /// The label by which the config keeps the top snapshot from being collected.
    pub(crate) async fn keep_snapshot(&self, config: &Descriptor, top: Option<&Digest>) -> Result<()> {
        let Some(top) = top else { return Ok(()) };
        let key = format!("{}.{}", labels::GC_REF_SNAPSHOT, self.snapshotter_name);
        self.set_label(&config.digest, &key, top.as_str()).await
    }

    async fn set_label(&self, digest: &Digest, key: &str, value: &str) -> Result<()> {
        set_labels(&*self.store, digest, Labels::from([(key.to_owned(), value.to_owned())])).await
    }
}

/// Adds labels to a blob that it does not have yet.
pub(crate) async fn set_labels(store: &dyn Store, digest: &Digest, mut labels: Labels) -> Result<()> {
    let info: Info = store.info(digest).await?;
    labels.retain(|key, value| info.labels.get(key) != Some(value));
    if labels.is_empty() {
        return Ok(());
    }
    let fields = FieldPaths(labels.keys().map(|key| format!("labels.{key}")).collect());
    store.update(Info { labels, ..info }, &fields).await.map(drop)
}

/// The layers of an image, bottom first. Artifacts may carry other things among them.
pub(crate) fn layers(blobs: &[Descriptor], diff_ids: Vec<Digest>) -> Result<Vec<Layer>> {
    stacked(blobs.iter().filter(|layer| walk::is_layer(&layer.media_type)).collect(), diff_ids)
}

/// Layers, bottom first, of which all are known to be.
pub(crate) fn stacked(blobs: Vec<&Descriptor>, diff_ids: Vec<Digest>) -> Result<Vec<Layer>> {
    if diff_ids.len() != blobs.len() {
        return Err(Error::invalid(format!(
            "mismatched image rootfs and manifest layers: {} diff ids and {} layers",
            diff_ids.len(),
            blobs.len()
        )));
    }
    let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
    for (blob, diff_id) in blobs.into_iter().zip(diff_ids) {
        let below = layers.last().map(|layer| layer.chain_id.clone());
        let chain_id = match &below {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        let parent = below.map(String::from).unwrap_or_default();
        layers.push(Layer { blob: blob.clone(), diff_id, chain_id, parent, more: Labels::new() });
    }
    Ok(layers)
}

/// A snapshot for a layer to be extracted into.
pub(crate) struct Prepared {
    pub(crate) key: String,
    mounts: Vec<Mount>,
}

/// Who made a snapshot.
pub(crate) enum Committed {
    ByUs,
    ByAnother,
}

/// A text no other unpack of this machine uses, in upstream's form: time and something that differs.
pub(crate) fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    format!("{nanos}-{:x}{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}
