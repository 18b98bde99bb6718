//! Checkpoints of containers: a directory in the making, the archive that a kubelet gets, and what CreateContainer is given to
//! go on from (`given`): such an archive, or an image of it.
//!
//! ```text
//!  config.dump   what and of which image      status.dump  as the kubelet sees it      status   as this daemon keeps it
//!  spec.dump     the OCI spec                 checkpoint/  the processes, of CRIU      dump.log, stats-dump   about those
//!  rootfs-diff.tar   what it has written      container.log   what it has said
//! ```

pub mod archive;
pub mod criu;
pub mod given;
pub mod restore;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use content::Store;
use diff::compare::WalkingDiffer;
use diff::differ::{CompareOptions, Differ};
use serde::{Deserialize, Serialize};
use types::oci::Descriptor;
use types::oci::image::media;
use types::time::rfc3339;
use types::{Error, Labels, Result, ResultExt, labels};

use super::Container;
use crate::cri::{Cri, blocking};
use crate::runtime::container_status;

/// The directory of a container that goes on from a checkpoint, until it does.
pub fn restore_dir(cri: &Cri, id: &str) -> PathBuf {
    cri.dirs.container(id).join("ctrd-restore")
}

/// So long what differs may lie in the content store, should the daemon die.
const EXPIRY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `config.dump`, as tools that look at checkpoints read it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    /// The container.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub rootfs_image: String,
    /// By digest.
    pub rootfs_image_ref: String,
    /// By name.
    pub rootfs_image_name: String,
    /// Its runtime.
    pub runtime: String,
    /// RFC 3339, as the other times.
    pub created_time: String,
    /// When this was made.
    pub checkpointed_time: String,
    /// When it was restored.
    pub restored_time: String,
    /// Whether it was.
    pub restored: bool,
}

/// A checkpoint in the making.
#[derive(Debug)]
pub struct Dump {
    dir: PathBuf,
}

impl Dump {
    /// Makes the directory anew: what is in the place of an earlier one is removed, and no link is followed.
    pub async fn begin(cri: &Cri, container: &Container) -> Result<Self> {
        let dir = cri.dirs.container(container.id()).join("ctrd-checkpoint");
        let dump = Self { dir: dir.clone() };
        blocking(move || {
            remove(&dir)?;
            let make = |dir: &Path| fs::DirBuilder::new().mode(0o700).create(dir);
            make(&dir).and_then(|()| make(&dir.join("checkpoint"))).context(|| format!("make {dir:?}"))
        })
        .await?;
        Ok(dump)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the processes go.
    pub fn images(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    /// Writes down what it is a checkpoint of.
    pub async fn describe(&self, cri: &Cri, container: &Container) -> Result<()> {
        let row = cri.db.containers(&cri.namespace).get(container.id()).context(|| "get container info")?;
        let status = container_status::status_of(cri, container);
        let image = status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let config = Config {
            id: container.id().to_owned(),
            name: container.record.name.clone(),
            rootfs_image: image.clone(),
            rootfs_image_ref: status.image_ref.clone(),
            rootfs_image_name: image,
            runtime: row.runtime.name,
            created_time: rfc3339(row.created_at),
            checkpointed_time: rfc3339(SystemTime::now()),
            restored_time: NEVER.to_owned(),
            restored: false,
        };
        let encode = |error: serde_json::Error| Error::internal(format!("encode checkpoint: {error}"));
        let config = serde_json::to_vec(&config).map_err(encode)?;
        let told = serde_json::to_vec(&status).map_err(encode)?;
        let spec = row.spec.unwrap_or_default().value;
        let (dir, log) = (self.dir.clone(), PathBuf::from(&container.record.log_path));
        let kept = cri.dirs.container(container.id()).join("status");
        blocking(move || {
            write(&dir.join("config.dump"), &config)?;
            write(&dir.join("status.dump"), &told)?;
            write(&dir.join("spec.dump"), &spec)?;
            copy(&kept, &dir.join("status"))?;
            copy(&log, &dir.join("container.log"))
        })
        .await
    }

    /// Adds what the container has written to its root filesystem.
    pub async fn add_changes(&self, cri: &Cri, container: &Container) -> Result<()> {
        let expiry = (labels::GC_EXPIRE.to_owned(), rfc3339(SystemTime::now() + EXPIRY));
        let leases = cri.db.leases(&cri.namespace);
        let lease = leases.create(None, Labels::from([expiry])).await?;
        let added = self.add_changes_held(cri, container, &lease.id).await;
        let ended = leases.delete(&lease.id).await;
        added.and(ended)
    }

    async fn add_changes_held(&self, cri: &Cri, container: &Container, lease: &str) -> Result<()> {
        let row = cri.db.containers(&cri.namespace).get(container.id())?;
        let scope = cri.scope(Some(lease));
        let snapshots = cri.db.snapshotter(scope.clone(), &row.snapshotter)?;
        let parent = snapshots.stat(&row.snapshot_key).await?.parent;
        let view = format!("{}-checkpoint-{lease}", row.snapshot_key);
        let lower = snapshots.view(&view, &parent, Labels::new()).await?;
        let store = cri.db.content(scope);
        let changes = async {
            let upper = snapshots.mounts(&row.snapshot_key).await?;
            let options =
                CompareOptions { media_type: media::OCI_LAYER_GZIP.to_owned(), ..Default::default() };
            WalkingDiffer::new(store.clone()).compare(&lower, &upper, options).await
        };
        let changes = changes.await;
        if let Err(error) = snapshots.remove(&view).await {
            tracing::warn!(container = container.id(), %error, "remove the view of a checkpoint");
        }
        let changes = changes.context(|| "compare the root filesystem with its image")?;
        save(&*store, &changes, &self.dir.join("rootfs-diff.tar")).await
    }

    /// Removes what is left.
    pub async fn remove(self) -> Result<()> {
        blocking(move || remove(&self.dir)).await
    }
}

fn remove(dir: &Path) -> Result<()> {
    match sys::fs::remove_tree(dir) {
        Err(error) if error.is_not_found() => Ok(()),
        removed => removed,
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = options().open(path).and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    written.context(|| format!("write {path:?}"))
}

/// Copies a file. One that is not there is no file of the checkpoint.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copy {from:?} to {to:?}");
    if from.as_os_str().is_empty() {
        return Ok(());
    }
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut source = match fs::OpenOptions::new().read(true).custom_flags(flags).open(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        source => source.context(doing)?,
    };
    let mut target = options().open(to).context(doing)?;
    std::io::copy(&mut source, &mut target).map(drop).context(doing)
}

/// Copies a blob to a file.
async fn save(store: &dyn Store, blob: &Descriptor, path: &Path) -> Result<()> {
    let reader = store.reader(&blob.digest).await?;
    let size = u64::try_from(blob.size).unwrap_or_default();
    let file = options().open(path).context(|| format!("write {path:?}"))?;
    let mut file = tokio::fs::File::from_std(file);
    let mut at = 0;
    while at < size {
        let piece = reader.read_at(at, PIECE).await?;
        if piece.is_empty() {
            return Err(Error::data_loss(format!("blob {} is too short", blob.digest)));
        }
        at += piece.len() as u64;
        tokio::io::AsyncWriteExt::write_all(&mut file, &piece).await.context(|| format!("write {path:?}"))?;
    }
    tokio::io::AsyncWriteExt::flush(&mut file).await.context(|| format!("write {path:?}"))
}

/// Bytes of a blob that are read at once.
const PIECE: usize = 1 << 20;
