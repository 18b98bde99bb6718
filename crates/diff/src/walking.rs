//! The applier for layers in tar: from the content store onto mounts.
//!
//! What is mounted decides where the files go. A single bind mount: straight into its source. A single overlay: straight
//! into its upper directory, with whiteouts as overlayfs wants to see them; where the layers below matter for where a
//! path leads, the upper directory is emptied again and the overlay really mounted. Anything else is mounted.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use content::{Reader as Blob, Store};
use sys::mount::TempMount;
use tokio::runtime::Handle;
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Class, Error, Result, ResultExt};

use crate::applier::{Applied, Applier, ApplyOptions};
use crate::blob::{BlobReader, INPUT};
use crate::compression::{self, Wrapping};
use crate::extract::{Stop, Target, extract};
use crate::pipeline::{self, Passed, Room};
use crate::stack::{self, Bind, Overlay};
use crate::tar;

/// Applies layers that are tar archives, compressed or not.
pub struct WalkingApplier {
    store: Arc<dyn Store>,
}

impl WalkingApplier {
    /// An applier that finds layers in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Applier for WalkingApplier {
    async fn apply(&self, layer: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied> {
        let doing = || format!("apply layer {}", layer.digest);
        let wrapping = compression::of_media_type(&layer.media_type).context(doing)?;
        let blob: Arc<dyn Blob> = self.store.reader(&layer.digest).await.context(doing)?.into();
        let cancel = Canceller::default();
        let job = Job {
            blob,
            wrapping,
            runtime: Handle::current(),
            cancel: Arc::clone(&cancel.0),
            mounts: mounts.to_vec(),
            sync: options.sync,
            room: options.room,
        };
        let passed = tokio::task::spawn_blocking(move || job.run())
            .await
            .map_err(|error| Error::caused(Class::Internal, "the extraction crashed", error))
            .and_then(|done| done)
            .context(doing)?;
        Ok(Applied { uncompressed: Descriptor::new(media::OCI_LAYER, passed.digest, passed.size) })
    }
}

/// Tells the blocking thread that its caller went away.
#[derive(Default)]
struct Canceller(Arc<AtomicBool>);

impl Drop for Canceller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One layer to be applied, on a thread that may block.
struct Job {
    blob: Arc<dyn Blob>,
    wrapping: Wrapping,
    runtime: Handle,
    cancel: Arc<AtomicBool>,
    mounts: Vec<Mount>,
    sync: bool,
    room: Option<Room>,
}

impl Job {
    fn run(&self) -> Result<Passed> {
        if let Some(Bind { source: dir, read_only }) = stack::bind(&self.mounts) {
            if read_only {
                return Err(Error::precondition(format!("{dir:?} is mounted read-only")));
            }
            let passed = self.only(Target::View(dir.clone()))?;
            return self.synced(&dir, passed);
        }
        if let Some(Overlay { upper: Some(upper), lowers }) = stack::overlay(&self.mounts) {
            let target = Target::Upper { dir: upper.clone(), lowers };
            match self.extract(target) {
                Ok(passed) => return self.synced(&upper, passed),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::NeedsMergedView) => empty(&upper)?,
            }
        }
        self.mounted()
    }

    fn mounted(&self) -> Result<Passed> {
        let mount = TempMount::new(&self.mounts)?;
        let passed = self.only(Target::View(mount.path().to_owned()))?;
        let passed = self.synced(mount.path(), passed)?;
        mount.close()?;
        Ok(passed)
    }

    fn synced(&self, dir: &Path, passed: Passed) -> Result<Passed> {
        if self.sync {
            sys::fs::syncfs(dir)?;
        }
        Ok(passed)
    }

    fn only(&self, target: Target) -> Result<Passed> {
        self.extract(target).map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::NeedsMergedView => Error::internal("the merged view is not enough"),
        })
    }

    fn extract(&self, target: Target) -> Result<Passed, Stop> {
        let blob = BlobReader::new(Arc::clone(&self.blob), self.runtime.clone());
        let source = BufReader::with_capacity(INPUT, Source { blob, cancel: &self.cancel });
        let room = self.room.map_or_else(|| Room::free(target.dir()), Ok)?;
        let (_, passed) = pipeline::run(source, self.wrapping, room, |stream| {
            extract(&mut tar::Reader::new(stream), target, &self.cancel)
        })?;
        Ok(passed)
    }
}

/// The layer, until the caller goes away.
struct Source<'a> {
    blob: BlobReader,
    cancel: &'a AtomicBool,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            // Not `Interrupted`: readers try again after that.
            return Err(io::Error::other(Error::new(Class::Canceled, "canceled")));
        }
        self.blob.read(buf)
    }
}

/// Removes everything in `dir` and what an extraction may have put on it.
fn empty(dir: &Path) -> Result<()> {
    let doing = || format!("empty {dir:?}");
    let fd = sys::fs::open_dir(dir)?;
    for entry in std::fs::read_dir(dir).context(doing)? {
        let name = entry.context(doing)?.file_name();
        sys::fs::remove_tree_at(&fd, Path::new(&name)).context(doing)?;
    }
    Ok(())
}
