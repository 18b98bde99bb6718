//! Checkpoints as images: an index that names a task's state, the image it came from and its writable layer.
//!
//! ```text
//!  index   containerd's checkpoint (a tar of CRIU's files)      config (the container's spec)
//!          options of the checkpoint, options of the runtime     image   writable layer
//!          annotations: names of the image, the runtime, the snapshotter
//! ```

use std::time::SystemTime;

use api::containerd::runc::v1::CheckpointOptions;
use api::containerd::services::images::v1::CreateImageRequest;
use api::containerd::services::tasks::v1::CheckpointTaskRequest;
use api::{any, convert};
use content::{Store, WriterOptions};
use diff::differ::CompareOptions;
use prost::Message;
use remote::{RemoteStore, from_status};
use types::container::Container;
use types::image::Image;
use types::oci::Descriptor;
use types::oci::image::{Index, media};
use types::platform::Platform;
use types::{Any, Digest, Error, Labels, Result};

use crate::client::Client;
use crate::commands::snapshots::diff::layer_of;

/// The state of a task.
pub const CHECKPOINT: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// The spec of its container.
pub const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";
/// How it was written.
const OPTIONS: &str = "application/vnd.containerd.container.checkpoint.options.v1+proto";
/// How its runtime is to be called.
pub const RUNTIME_OPTIONS: &str = "application/vnd.containerd.container.checkpoint.runtime.options+proto";

/// A checkpoint that is being put together. Made under a lease.
pub struct Draft<'a> {
    client: &'a Client,
    container: &'a Container,
    index: Index,
}

impl<'a> Draft<'a> {
    /// One with nothing in it.
    pub fn new(client: &'a Client, container: &'a Container) -> Self {
        Self { client, container, index: Index { schema_version: 2, ..Index::default() } }
    }

    /// Says something about it.
    pub fn annotate(&mut self, name: &str, value: &str) {
        self.index.annotations.insert(name.into(), value.into());
    }

    /// Adds the options of the container's runtime, if it has any.
    pub async fn runtime(&mut self) -> Result<()> {
        match &self.container.runtime.options {
            Some(options) if !options.value.is_empty() => {
                let reference = format!("{}-runtime-options", self.container.id);
                let bytes = any::to_wire(options.clone()).encode_to_vec();
                self.blob(RUNTIME_OPTIONS, reference, bytes).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds the image that the container was made of.
    pub async fn image(&mut self) -> Result<()> {
        let image = self.client.image(&self.container.image).await?;
        self.index.manifests.push(image.target);
        Ok(())
    }

    /// Adds what the container has written.
    pub async fn writable_layer(&mut self) -> Result<()> {
        let key = &self.container.snapshot_key;
        let snapshotter = self.client.named_snapshotter(&self.container.snapshotter);
        let options = CompareOptions {
            media_type: media::OCI_LAYER_GZIP.to_owned(),
            reference: format!("checkpoint-rw-{key}"),
            ..CompareOptions::default()
        };
        let layer = layer_of(self.client, snapshotter, key, options).await?;
        self.add(layer);
        Ok(())
    }

    /// Has the task written, and adds its state. With a path in the options there is nothing to be added.
    pub async fn task(&mut self, options: &Any) -> Result<()> {
        let request = CheckpointTaskRequest {
            container_id: self.container.id.clone(),
            options: Some(any::to_wire(options.clone())),
            ..Default::default()
        };
        let written = self.client.tasks().checkpoint(request).await.map_err(from_status)?.into_inner();
        for descriptor in written.descriptors {
            self.add(convert::descriptor(descriptor)?);
        }
        Ok(())
    }

    /// Adds the options that the task was written with.
    pub async fn options(&mut self, options: &Any) -> Result<()> {
        let reference = format!("{}-checkpoint-options", self.container.id);
        self.blob(OPTIONS, reference, any::to_wire(options.clone()).encode_to_vec()).await
    }

    async fn blob(&mut self, kind: &str, reference: String, bytes: Vec<u8>) -> Result<()> {
        let blob = put(&self.client.content(), kind, reference, bytes, Labels::new()).await?;
        self.add(blob);
        Ok(())
    }

    fn add(&mut self, mut part: Descriptor) {
        part.platform = Some(Platform { variant: String::new(), ..Platform::host() });
        self.index.manifests.push(part);
    }

    /// Stores it as the image `name`.
    pub async fn store(self, name: &str, reference: String, labels: Labels) -> Result<Image> {
        let parts = self.index.manifests.iter().enumerate();
        let held =
            parts.map(|(n, part)| (format!("containerd.io/gc.ref.content.{n}"), part.digest.to_string()));
        let bytes =
            serde_json::to_vec(&self.index).map_err(|e| Error::internal(format!("encode index: {e}")))?;
        let target = put(&self.client.content(), media::OCI_INDEX, reference, bytes, held.collect()).await?;
        let image = Image {
            name: name.to_owned(),
            labels,
            target,
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        };
        let request =
            CreateImageRequest { image: Some(convert::image_to_wire(image)), source_date_epoch: None };
        let image = self.client.images().create(request).await.map_err(from_status)?.into_inner().image;
        convert::image(image.ok_or_else(|| Error::internal("images service answered no image"))?)
    }
}

/// What a checkpoint is written with, unless somebody says otherwise.
pub fn default_options() -> Any {
    any::pack(&CheckpointOptions { file_locks: true, ..CheckpointOptions::default() })
}

/// The first part of a kind.
pub fn part<'a>(index: &'a Index, kind: &str) -> Option<&'a Descriptor> {
    index.manifests.iter().find(|part| part.media_type == kind)
}

/// Stores a blob. One that is there already is as good.
async fn put(
    store: &RemoteStore,
    kind: &str,
    reference: String,
    bytes: Vec<u8>,
    labels: Labels,
) -> Result<Descriptor> {
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let options = WriterOptions { reference, total: size, expected: Some(digest.clone()) };
    let written = async {
        let mut writer = store.writer(options).await?;
        // What a client that died has left under this name.
        writer.truncate(0).await?;
        writer.write(bytes.into()).await?;
        writer.commit(size, Some(digest.clone()), labels).await
    };
    match written.await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(Descriptor::new(kind, digest, size)),
    }
}
