//! The differ: two trees compared name by name, and what differs as a layer in the content store.
//!
//! ```text
//!  tree      directories that somebody may change meanwhile
//!  walk      both trees in step, or only where an overlay's upper directory has something
//!  same      whether a file is what it was
//!  layer     changes as entries of an archive
//!  chunks    the archive hashed, compressed and handed over
//! ```

mod chunks;
mod layer;
mod same;
mod tree;
mod walk;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use content::{Store, Writer, WriterOptions};
use sys::mount::{TempMount, read_only};
use tokio::sync::{mpsc, oneshot};
use types::content::Info;
use types::fields::FieldPaths;
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Class, Digest, Error, Labels, Result, ResultExt, labels};

use crate::differ::{CompareOptions, Differ};
use crate::encoder::Encoding;
use crate::stack;
use crate::tar::Time;

use layer::Layer;
use tree::Tree;
use walk::Trees;

/// Pieces of the blob that may wait to be written.
const AHEAD: usize = 4;

/// Compares filesystems by walking them.
pub struct WalkingDiffer {
    store: Arc<dyn Store>,
}

impl WalkingDiffer {
    /// A differ that puts layers into `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Differ for WalkingDiffer {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let media_type = Some(options.media_type).filter(|media_type| !media_type.is_empty());
        let media_type = media_type.unwrap_or_else(|| media::OCI_LAYER_GZIP.to_owned());
        let encoding = Encoding::of_media_type(&media_type).ok_or_else(|| {
            Error::unimplemented(format!("unsupported diff media type: {media_type}: not implemented"))
        })?;
        let walk = Walk {
            lower: lower.to_vec(),
            upper: upper.to_vec(),
            encoding,
            epoch: options.epoch,
            cancel: Arc::default(),
        };
        let (store, reference, labels) = (Arc::clone(&self.store), options.reference, options.labels);
        // On a task of its own, which takes back what it has done when we are dropped.
        let (caller, gone) = oneshot::channel::<()>();
        let task =
            tokio::spawn(
                async move { Ingest { store, media_type, labels, gone }.run(reference, walk).await },
            );
        let done =
            task.await.map_err(|error| Error::caused(Class::Internal, "the comparison crashed", error))?;
        drop(caller);
        done
    }
}

/// The blob that a comparison makes.
struct Ingest {
    store: Arc<dyn Store>,
    media_type: String,
    labels: Labels,
    /// Ends when the caller went away.
    gone: oneshot::Receiver<()>,
}

impl Ingest {
    async fn run(mut self, given: String, walk: Walk) -> Result<Descriptor> {
        let reference = if given.is_empty() { unique() } else { given.clone() };
        let options = WriterOptions { reference: reference.clone(), ..WriterOptions::default() };
        let mut writer = self.store.writer(options).await.context(|| "failed to open writer")?;
        let done = self.fill(&mut *writer, walk).await;
        drop(writer);
        if done.is_err() && given.is_empty() {
            match self.store.abort(&reference).await {
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(%error, reference, "an ingest of a comparison stays");
                }
                _ => {}
            }
        }
        done
    }

    async fn fill(&mut self, writer: &mut dyn Writer, walk: Walk) -> Result<Descriptor> {
        if writer.status().await?.offset > 0 {
            writer.truncate(0).await?;
        }
        let encoding = walk.encoding;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let cancel = Arc::clone(&walk.cancel);
        let walking = tokio::task::spawn_blocking(move || walk.run(&sender));
        let written = tokio::select! {
            written = write_all(writer, receiver) => written,
            _ = &mut self.gone => Err(Error::new(Class::Canceled, "canceled")),
        };
        // Mounts are gone before anybody hears of it.
        cancel.store(written.is_err(), Ordering::Relaxed);
        let walked =
            walking.await.map_err(|error| Error::caused(Class::Internal, "the walk crashed", error))?;
        written?;
        let diff_id = walked?;
        if encoding != Encoding::Plain {
            self.labels.insert(labels::UNCOMPRESSED.to_owned(), diff_id.to_string());
        }
        let digest = writer.digest().await?;
        match writer.commit(0, Some(digest.clone()), self.labels.clone()).await {
            Err(error) if error.is_already_exists() => self.label(&digest).await?,
            done => done.context(|| "failed to commit")?,
        }
        let info = self.store.info(&digest).await.context(|| "failed to get info from content store")?;
        Ok(Descriptor::new(self.media_type.clone(), digest, info.size))
    }

    /// A blob that was there before may lack the label.
    async fn label(&self, digest: &Digest) -> Result<()> {
        let Some(diff_id) = self.labels.get(labels::UNCOMPRESSED) else { return Ok(()) };
        let info = self.store.info(digest).await?;
        if info.labels.contains_key(labels::UNCOMPRESSED) {
            return Ok(());
        }
        let labels = Labels::from([(labels::UNCOMPRESSED.to_owned(), diff_id.clone())]);
        let fields = FieldPaths(vec![format!("labels.{}", labels::UNCOMPRESSED)]);
        match self.store.update(Info { labels, ..info }, &fields).await {
            // The bare local store keeps no labels.
            Err(error) if error.class() == Class::Unimplemented => Ok(()),
            done => done.map(drop).context(|| "error setting uncompressed label"),
        }
    }
}

/// Writes what comes, until it ends.
async fn write_all(writer: &mut dyn Writer, mut pieces: mpsc::Receiver<Bytes>) -> Result<()> {
    while let Some(piece) = pieces.recv().await {
        writer.write(piece).await?;
    }
    Ok(())
}

/// The comparison itself, on a thread that may block.
struct Walk {
    lower: Vec<Mount>,
    upper: Vec<Mount>,
    encoding: Encoding,
    epoch: Option<Time>,
    cancel: Arc<AtomicBool>,
}

impl Walk {
    /// Sends the layer's bytes and answers with the digest of its uncompressed form.
    fn run(&self, out: &mpsc::Sender<Bytes>) -> Result<Digest> {
        let (lower, upper) = (Mounted::new(&self.lower)?, Mounted::new(&self.upper)?);
        let done = self.walk(lower.path(), upper.path(), out);
        for mounted in [upper, lower] {
            mounted.close()?;
        }
        done
    }

    fn walk(&self, lower: &Path, upper: &Path, out: &mpsc::Sender<Bytes>) -> Result<Digest> {
        let guide = stack::upper_of(&self.lower, &self.upper);
        let guide = guide.map(|dir| Tree::open(&dir)).transpose()?;
        let trees = Trees { lower: Tree::open(lower)?, upper: Tree::open(upper)?, guide };
        let mut send = |bytes| {
            let gone = |_| io::Error::other(Error::new(Class::Canceled, "nobody takes the layer any more"));
            out.blocking_send(bytes).map_err(gone)
        };
        chunks::run(self.encoding, &mut send, |chunks| {
            let mut layer = Layer::new(chunks, &trees.upper, self.epoch, &self.cancel);
            trees.compare(&self.cancel, &mut |change, path, found| layer.add(change, path, found))?;
            layer.finish()
        })
    }
}

/// Where mounts can be read.
enum Mounted {
    /// Mounted by us.
    Here(TempMount),
    /// A directory that needs no mount.
    There(PathBuf),
}

impl Mounted {
    fn new(mounts: &[Mount]) -> Result<Self> {
        match stack::bind(mounts) {
            Some(bind) => Ok(Self::There(bind.source)),
            None => Ok(Self::Here(TempMount::new(&read_only(mounts))?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Here(mount) => mount.path(),
            Self::There(path) => path,
        }
    }

    fn close(self) -> Result<()> {
        match self {
            Self::Here(mount) => mount.close(),
            Self::There(_) => Ok(()),
        }
    }
}

/// A reference that no other ingest has.
fn unique() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{nanos}-{:016x}", RandomState::new().build_hasher().finish())
}
