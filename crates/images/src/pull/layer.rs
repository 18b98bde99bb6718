//! One layer: fetched and extracted at once, then put on the layers below it.
//!
//! ```text
//!  unpacked already ----------------------------------------------------------> done
//!  prepared on nothing -> arriving -> extracted -> below is committed -> rebased, committed
//!        |                   \--> needs the merged view -\
//!        \-> (no rebase) ---> fetched --> below is committed --> applied, committed
//! ```
//!
//! Only so many layers are extracted at once. One for which there is no place is fetched meanwhile, and extracted from the
//! store after that.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diff::arriving::{self, Arriving};
use diff::blob::BlobReader;
use diff::compression;
use diff::extract::{Later, Stop, Target, rebase};
use diff::pipeline::{Passed, Room};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use types::{Class, Error, Labels, Result, labels};

use crate::progress::Event;
use crate::unpack::{Committed, Layer, Options, Unpacker};

use super::blob::{self, Feed, Ingest};
use super::chain::Below;
use super::shared::permit;
use super::{How, Job, Keep, UnpackInto};

/// How often the progress of an extraction is told.
const TICK: Duration = Duration::from_millis(100);

/// A layer and where it goes.
pub(super) struct Unpack<'a> {
    pub(super) job: &'a Job,
    pub(super) into: &'a UnpackInto,
    pub(super) unpacker: &'a Unpacker,
    pub(super) options: &'a Options,
    pub(super) layer: &'a Layer,
}

/// A snapshot on nothing that is being filled.
struct Tree {
    key: String,
    dir: PathBuf,
}

/// What came of a layer that was extracted while it arrived.
enum Arrived {
    /// Its files are in the tree.
    Extracted(Later),
    /// It is in the store, and the tree is as it was.
    Fetched,
    /// It is in the store, and must be applied to the layers below.
    Deferred,
    /// What an earlier pull had left was wrong.
    Again,
}

impl Unpack<'_> {
    pub(super) async fn run(&self, below: Below) -> Result<()> {
        let Layer { blob, chain_id, .. } = self.layer;
        let name = format!("chain {} {} {chain_id}", self.job.pull.namespace, self.into.snapshotter_name);
        let _alone = self.job.pull.shared.alone(&self.job.cancel, &name).await?;
        if self.unpacker.has(self.layer).await? {
            self.complete_store().await?;
        } else {
            self.job.watched.report(Event::Unpacking(&blob.digest, blob.size.unsigned_abs()));
            if self.is_offered() { self.offer(below).await? } else { self.unpack(below).await? }
        }
        self.job.watched.report(Event::Unpacked(&blob.digest));
        Ok(())
    }

    /// Whether the snapshotter may bring the layer itself. Ours, which can rebase, never do.
    fn is_offered(&self) -> bool {
        self.into.remote && !self.into.snapshotter.can_rebase()
    }

    /// Fetches the layer only if the snapshotter does not bring it itself.
    async fn offer(&self, below: Below) -> Result<()> {
        below.committed(&self.job.cancel).await?;
        let Some(prepared) = self.unpacker.prepare(self.layer).await? else { return Ok(()) };
        let fetched = async {
            blob::fetch(self.job, &self.layer.blob).await?;
            permit(&self.job.cancel, &self.job.pull.shared.unpacks).await
        };
        let _permit = match fetched.await {
            Ok(permit) => permit,
            Err(error) => {
                self.unpacker.remove(&prepared.key).await;
                return Err(error);
            }
        };
        self.unpacker.fill(self.layer, prepared, self.options, &self.job.cancel).await.map(drop)
    }

    /// The layer is unpacked; its blob may be missing all the same.
    async fn complete_store(&self) -> Result<()> {
        let digest = &self.layer.blob.digest;
        match self.job.pull.store.info(digest).await {
            Ok(_) => self.job.watched.report(Event::Exists(digest)),
            Err(error) if error.is_not_found() && self.is_offered() => {}
            Err(error) if error.is_not_found() && self.job.pull.keep == Keep::Layers => {
                blob::fetch(self.job, &self.layer.blob).await?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn unpack(&self, below: Below) -> Result<()> {
        if let How::OnePass(_) = self.into.how {
            compression::of_media_type(&self.layer.blob.media_type)?;
        }
        loop {
            let Some(tree) = self.prepare_on_nothing().await? else { break };
            match self.fill(&tree).await {
                Ok(Arrived::Extracted(later)) => {
                    if let Err(error) = below.committed(&self.job.cancel).await {
                        self.unpacker.remove(&tree.key).await;
                        return Err(error);
                    }
                    return match self.settle(&tree, later).await? {
                        Settled::Committed => Ok(()),
                        Settled::NeedsMergedView => self.apply().await,
                    };
                }
                Ok(Arrived::Deferred) => {
                    self.unpacker.remove(&tree.key).await;
                    below.committed(&self.job.cancel).await?;
                    return self.apply().await;
                }
                Ok(Arrived::Again | Arrived::Fetched) => self.unpacker.remove(&tree.key).await,
                Err(error) => {
                    self.unpacker.remove(&tree.key).await;
                    return Err(error);
                }
            }
        }
        blob::fetch(self.job, &self.layer.blob).await?;
        below.committed(&self.job.cancel).await?;
        self.apply().await
    }

    /// A snapshot that gets its parent later, where that can be, and its directory can be written without a mount.
    async fn prepare_on_nothing(&self) -> Result<Option<Tree>> {
        let How::OnePass(_) = self.into.how else { return Ok(None) };
        let snapshotter = &self.into.snapshotter;
        if !snapshotter.can_rebase() || !arriving::can_rebase() {
            return Ok(None);
        }
        let key = self.layer.key();
        let mounts = match snapshotter.prepare(&key, "", self.layer.labels()).await {
            Ok(mounts) => mounts,
            // Somebody else has just made it: the other way finds that out.
            Err(error) if error.is_already_exists() => return Ok(None),
            Err(error) => return Err(error.context("prepare snapshot")),
        };
        match arriving::directory(&mounts) {
            Some(dir) => Ok(Some(Tree { key, dir })),
            None => {
                self.unpacker.remove(&key).await;
                Ok(None)
            }
        }
    }

    /// Extracts the layer into the tree, while it arrives if there is a place, else from the store.
    async fn fill(&self, tree: &Tree) -> Result<Arrived> {
        if let Ok(_permit) = self.job.pull.shared.unpacks.try_acquire() {
            match self.arrive(tree).await? {
                Arrived::Fetched => {}
                arrived => return Ok(arrived),
            }
        } else {
            blob::fetch(self.job, &self.layer.blob).await?;
        }
        let _permit = permit(&self.job.cancel, &self.job.pull.shared.unpacks).await?;
        let digest = &self.layer.blob.digest;
        let blob: Arc<dyn content::Reader> = self.job.pull.store.reader(digest).await?.into();
        let extraction = self.extract(tree, Arriving::of_blob(BlobReader::new(blob, Handle::current())))?;
        let arrived = self.extracted(extraction.join(self).await)?;
        if let Arrived::Extracted(_) = arrived {
            self.unpacker.label_uncompressed(self.layer).await?;
        }
        Ok(arrived)
    }

    /// Fetches the layer and extracts it at once.
    async fn arrive(&self, tree: &Tree) -> Result<Arrived> {
        let Some(mut ingest) = Ingest::open(self.job, &self.layer.blob).await? else {
            return Ok(Arrived::Fetched);
        };
        let (sender, mut arriving) = Arriving::channel();
        match ingest.left_behind() {
            (0, _) => {}
            (len, Some(file)) => arriving = arriving.after(file, len),
            (_, None) => {
                ingest.receive(None).await?;
                return Ok(match ingest.commit(Labels::new()).await? {
                    blob::Committed::Yes => Arrived::Fetched,
                    blob::Committed::Again => Arrived::Again,
                });
            }
        }
        let extraction = self.extract(tree, arriving)?;
        let feed = Feed { sender, taken: Arc::clone(&extraction.taken) };
        let received = ingest.receive(Some(&feed)).await;
        match &received {
            Ok(()) => feed.sender.end().await,
            Err(_) => drop(feed),
        }
        // The thread ends in any case, and before its directory goes.
        let extracted = extraction.join(self).await;
        received?;
        self.commit_blob(ingest, extracted).await
    }

    /// The whole layer has arrived: the blob's digest is looked at first, as it decides whose fault an error is.
    async fn commit_blob(
        &self,
        mut ingest: Ingest<'_>,
        extracted: Result<(Later, Passed), Stop>,
    ) -> Result<Arrived> {
        match ingest.verify().await {
            Ok(blob::Committed::Yes) => {}
            Ok(blob::Committed::Again) => return Ok(Arrived::Again),
            Err(error) => {
                ingest.discard().await;
                return Err(error);
            }
        }
        let (later, passed) = match extracted {
            Ok(extracted) => extracted,
            Err(stop) => {
                ingest.commit(Labels::new()).await?;
                return self.extracted(Err(stop));
            }
        };
        // If not, it is the config that lies: the blob is what its digest says, and others may have use for it.
        let right = self.layer.check(&passed.digest);
        let mut labels = Labels::new();
        if right.is_ok() {
            labels.insert(labels::UNCOMPRESSED.to_owned(), passed.digest.to_string());
        }
        ingest.commit(labels).await?;
        right.map(|()| Arrived::Extracted(later))
    }

    fn extracted(&self, extracted: Result<(Later, Passed), Stop>) -> Result<Arrived> {
        match extracted {
            Ok((later, passed)) => self.layer.check(&passed.digest).map(|()| Arrived::Extracted(later)),
            Err(Stop::NeedsMergedView) => Ok(Arrived::Deferred),
            Err(Stop::Failed(error)) => Err(error.context("extract")),
        }
    }

    /// Starts a thread that extracts into the tree.
    fn extract(&self, tree: &Tree, arriving: Arriving) -> Result<Extraction> {
        let wrapping = compression::of_media_type(&self.layer.blob.media_type)?;
        let (cancel, room) = (self.job.cancel.flag(), self.job.pull.limits.max_unpacked_layer.map(Room));
        let target = match self.layer.parent.as_str() {
            "" => Target::View(tree.dir.clone()),
            _ => Target::Rebase(tree.dir.clone()),
        };
        let taken = arriving.taken();
        let thread =
            tokio::task::spawn_blocking(move || arriving::unpack(arriving, wrapping, target, room, &cancel));
        Ok(Extraction { thread, taken })
    }

    /// The layer below is committed: puts the tree on it. Whatever comes of it, the tree is no longer ours afterwards.
    async fn settle(&self, tree: &Tree, later: Later) -> Result<Settled> {
        let parent = Some(self.layer.parent.as_str()).filter(|parent| !parent.is_empty());
        let done = match parent {
            Some(parent) if !later.is_empty() => self.rebase(tree, later, parent).await,
            _ => Ok(Settled::Committed),
        };
        let done = match done {
            Ok(Settled::Committed) => self.unpacker.commit(self.layer, &tree.key, parent).await,
            Ok(Settled::NeedsMergedView) => {
                self.unpacker.remove(&tree.key).await;
                return Ok(Settled::NeedsMergedView);
            }
            Err(error) => Err(error),
        };
        if !matches!(done, Ok(Committed::ByUs)) {
            self.unpacker.remove(&tree.key).await;
        }
        done.map(|_| Settled::Committed)
    }

    /// Completes the tree by what the layers below have.
    async fn rebase(&self, tree: &Tree, later: Later, parent: &str) -> Result<Settled> {
        let key = self.layer.key();
        let mounts = self.into.snapshotter.view(&key, parent, Labels::new()).await?;
        let done = match arriving::directories(&mounts) {
            None => Ok(Settled::NeedsMergedView),
            Some(lowers) => {
                let dir = tree.dir.clone();
                let work = tokio::task::spawn_blocking(move || rebase(&dir, &later, lowers));
                match work.await.map_err(crashed)? {
                    Ok(()) => Ok(Settled::Committed),
                    Err(Stop::NeedsMergedView) => Ok(Settled::NeedsMergedView),
                    Err(Stop::Failed(error)) => Err(error.context("rebase")),
                }
            }
        };
        self.unpacker.remove(&key).await;
        done
    }

    /// Applies the layer, which is in the store, to the layers below, which are committed.
    async fn apply(&self) -> Result<()> {
        let _permit = permit(&self.job.cancel, &self.job.pull.shared.unpacks).await?;
        self.unpacker.ensure(self.layer, self.options, &self.job.cancel).await.map(drop)
    }
}

/// What came of putting a tree on its parent.
enum Settled {
    Committed,
    NeedsMergedView,
}

/// A thread that extracts.
struct Extraction {
    thread: JoinHandle<Result<(Later, Passed), Stop>>,
    taken: Arc<AtomicU64>,
}

impl Extraction {
    /// Waits for its end and tells how far it is.
    async fn join(mut self, unpack: &Unpack<'_>) -> Result<(Later, Passed), Stop> {
        let blob = &unpack.layer.blob;
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, &mut self.thread).await {
                return done.map_err(crashed)?;
            }
            let taken = self.taken.load(Ordering::Relaxed);
            unpack.job.watched.report(Event::Extracting(&blob.digest, taken, blob.size.unsigned_abs()));
        }
    }
}

fn crashed(error: tokio::task::JoinError) -> Error {
    Error::caused(Class::Internal, "the extraction crashed", error)
}
