//! Layers into snapshots, by the daemon's stores and its diff service.

use std::sync::Arc;

use content::Store;
use images::unpack::{Options, Unpacker};
use remote::RemoteSnapshotter;
use snapshots::Snapshotter;
use types::Result;
use types::oci::Manifest;

use crate::client::Client;
use crate::progress;

/// Unpacks an image. The client's lease holds what is made on the way.
pub async fn unpack(
    client: &Client,
    snapshotter: &Arc<RemoteSnapshotter>,
    manifest: &Manifest,
    sync: bool,
) -> Result<()> {
    let unpacker = Unpacker {
        store: Arc::new(client.content()) as Arc<dyn Store>,
        applier: client.applier(),
        snapshotter: Arc::clone(snapshotter) as Arc<dyn Snapshotter>,
        snapshotter_name: snapshotter.name().into(),
    };
    let options = Options { sync };
    let progress = progress::of_unpack(manifest.layers.len());
    unpacker.unpack(manifest, &options, &*progress).await.map(drop)
}
