//! `ctr snapshots unpack`: the image whose target has this digest.

use std::sync::Arc;
use std::time::Duration;

use types::platform::Platform;
use types::{Digest, Error, Result};

use crate::client::Client;
use crate::commands::print;
use crate::commands::run::{container, image};
use crate::unpack::unpack;

/// Unpacks it into the snapshotter `name`.
pub async fn run(client: &Client, name: &str, digest: &Digest, sync: bool) -> Result<()> {
    let images = client.list_images(Vec::new()).await?;
    let image = images.into_iter().find(|image| image.target.digest == *digest);
    let image = image.ok_or_else(|| Error::not_found("manifest not found"))?;
    print(format!("unpacking {digest} ({})...", image.target.media_type))?;
    let lease = client.lease(None, Duration::from_secs(24 * 3600)).await?;
    let unpacked = async {
        let resolved = image::resolve(&client.content(), &image, &Platform::host()).await?;
        let snapshotter = Arc::new(lease.client.snapshotter(name).await?);
        unpack(&lease.client, &snapshotter, &resolved.manifest, sync).await
    };
    let unpacked = unpacked.await;
    container::end(lease).await;
    print(if unpacked.is_ok() { "done\n" } else { "\n" })?;
    unpacked
}
