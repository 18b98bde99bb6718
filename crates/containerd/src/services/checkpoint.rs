//! A task's checkpoint as content, and back: the shim writes and reads a directory, clients know two blobs.
//!
//! ```text
//!  checkpoint   shim -> directory -> a tar of it, and the container's spec, in the store -> two descriptors
//!  restore      descriptor -> directory -> the task's bundle -> shim, when it is started
//! ```
//!
//! A client that names a directory of its own gets the shim's files there and no blobs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use api::any;
use api::containerd::runc::v1::CheckpointOptions;
use api::containerd::services::tasks::v1::{CheckpointTaskRequest, CheckpointTaskResponse};
use api::convert;
use content::{Store, WriterOptions};
use diff::applier::{Applier, ApplyOptions};
use diff::compare::WalkingDiffer;
use diff::differ::{CompareOptions, Differ};
use diff::walking::WalkingApplier;
use prost::Message;
use runtime::Checkpoint;
use types::mount::Mount;
use types::oci::Descriptor;
use types::task::Origin;
use types::{Any, Digest, Error, Result, ResultExt, Scope};

use super::House;

const CHECKPOINT: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";
/// What both are to those who make and read tars.
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Says that the checkpoint is a directory here, and where (CRI's restores).
const FROM_PATH: &str = "RestoreFromPath";

/// Has the shim write a checkpoint, and puts it into the store unless the client wants the files themselves.
pub async fn checkpoint(
    house: &House,
    tasks: &tasks::Tasks,
    scope: Scope,
    request: CheckpointTaskRequest,
) -> Result<CheckpointTaskResponse> {
    let namespace = scope.namespace.clone();
    let container = house.db.containers(&namespace).get(&request.container_id)?;
    let options = request.options.map(any::from_wire);
    let image = image_path(&container.runtime.name, options.as_ref())?;
    if !image.is_empty() {
        let checkpoint = Checkpoint { path: image, options };
        tasks.checkpoint(&namespace, &container.id, checkpoint).await?;
        return Ok(CheckpointTaskResponse::default());
    }
    let directory = Directory::new()?;
    let written = async {
        let checkpoint = Checkpoint { path: directory.path(), options };
        tasks.checkpoint(&namespace, &container.id, checkpoint).await?;
        let store = house.db.content(scope);
        let options = CompareOptions { media_type: TAR.to_owned(), ..CompareOptions::default() };
        let tar = WalkingDiffer::new(store.clone()).compare(&[], &[directory.mount()], options).await?;
        let mut described =
            convert::descriptor_to_wire(Descriptor { annotations: Default::default(), ..tar });
        described.media_type = CHECKPOINT.to_owned();
        let spec = container.spec.unwrap_or_default();
        let config = put(&*store, &container.id, any::to_wire(spec).encode_to_vec()).await?;
        Ok(CheckpointTaskResponse { descriptors: vec![described, convert::descriptor_to_wire(config)] })
    };
    let written = written.await;
    directory.remove().await;
    written
}

/// The directory that a client wants a checkpoint in, or nothing.
fn image_path(runtime: &str, options: Option<&Any>) -> Result<String> {
    let Some(options) = options else { return Ok(String::new()) };
    let unpacked: Result<CheckpointOptions> = any::unpack(options);
    unpacked
        .map(|options| options.image_path)
        .map_err(|_| Error::unknown(format!("invalid task checkpoint option for {runtime}")))
}

/// Stores the container's spec next to its checkpoint.
async fn put(store: &dyn Store, id: &str, bytes: Vec<u8>) -> Result<Descriptor> {
    let digest = Digest::of(&bytes);
    let size = bytes.len() as u64;
    let options = WriterOptions {
        reference: format!("checkpoint-spec-{id}"),
        total: size,
        expected: Some(digest.clone()),
    };
    let written = async {
        let mut writer = store.writer(options).await?;
        writer.truncate(0).await?;
        writer.write(bytes.into()).await?;
        writer.commit(size, Some(digest.clone()), Default::default()).await
    };
    match written.await {
        Err(error) if !error.is_already_exists() => Err(error.context("store the checkpoint's config")),
        _ => Ok(Descriptor::new(CONFIG.to_owned(), digest, size)),
    }
}

/// A checkpoint, where the shim can read it.
pub struct Restore {
    path: String,
    directory: Option<Directory>,
}

impl Restore {
    /// Unpacks the checkpoint that a request names; none if it names none.
    pub async fn unpack(
        house: &House,
        scope: Scope,
        checkpoint: Option<api::containerd::types::Descriptor>,
    ) -> Result<Option<Self>> {
        let Some(checkpoint) = checkpoint else { return Ok(None) };
        if let Some(path) = checkpoint.annotations.get(FROM_PATH) {
            return Ok(Some(Self { path: path.clone(), directory: None }));
        }
        if checkpoint.media_type != CHECKPOINT {
            return Err(Error::unknown(format!("unsupported checkpoint type {:?}", checkpoint.media_type)));
        }
        let mut layer = convert::descriptor(checkpoint)?;
        layer.media_type = TAR.to_owned();
        let directory = Directory::new()?;
        let restore = Self { path: directory.path(), directory: Some(directory) };
        let applier = WalkingApplier::new(house.db.content(scope));
        let mounts = restore.directory.iter().map(Directory::mount).collect::<Vec<_>>();
        match applier.apply(&layer, &mounts, ApplyOptions::default()).await {
            Ok(_) => Ok(Some(restore)),
            Err(error) => {
                restore.remove().await;
                Err(error.context("unpack the checkpoint"))
            }
        }
    }

    /// What a task goes on from: what was unpacked here becomes its own.
    pub fn origin(&self) -> Origin {
        match &self.directory {
            Some(directory) => Origin::OwnCheckpoint(directory.0.clone()),
            None => Origin::Checkpoint(self.path.clone()),
        }
    }

    /// The task has it, or will never have it.
    pub async fn remove(self) {
        if let Some(directory) = self.directory {
            directory.remove().await;
        }
    }
}

/// A fresh directory that only we can enter.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        // Seeded by the system's randomness, and another one each time.
        let path = parent.join(format!("ctrd-checkpoint{:016x}", RandomState::new().build_hasher().finish()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context(|| format!("make directory {path:?}"))?;
        Ok(Self(path))
    }

    fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    fn mount(&self) -> Mount {
        let options = vec!["rbind".to_owned(), "rw".to_owned()];
        Mount { kind: "bind".to_owned(), source: self.path(), options, ..Mount::default() }
    }

    async fn remove(self) {
        let path = self.0;
        let removed = tokio::task::spawn_blocking(move || sys::fs::remove_tree(&path)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "a checkpoint's files stay");
        }
    }
}
