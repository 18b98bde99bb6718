//! The layers of one image, each committed on top of the one below.

use tokio::sync::oneshot;
use types::{Class, Digest, Error, Result, ResultExt};

use crate::cancel::Cancel;
use crate::unpack::{self, Options, Unpacker};

use super::layer::Unpack;
use super::{Found, Job, UnpackInto, remote, tree};

/// Tells when the layer below is committed.
pub(super) struct Below(Option<oneshot::Receiver<()>>);

impl Below {
    /// Waits for it. An error if it will never be.
    pub(super) async fn committed(self, cancel: &Cancel) -> Result<()> {
        let Some(committed) = self.0 else { return Ok(()) };
        // Its own error is the one that counts.
        let failed = |_| Error::new(Class::Canceled, "a layer below failed");
        cancel.or(async { committed.await.map_err(failed) }).await
    }
}

/// Fetches and unpacks the layers of an image, side by side; answers with the chain id of the top one.
pub(super) async fn unpack(
    job: &Job,
    into: &UnpackInto,
    image: &Found,
    diff_ids: Vec<Digest>,
) -> Result<Option<Digest>> {
    let blobs: Vec<_> = image.manifest.layers.iter().filter(|blob| tree::is_layer(job, blob)).collect();
    let mut layers = unpack::stacked(blobs, diff_ids)?;
    if into.remote {
        remote::tell(&mut layers, &job.pull.source.name, &image.descriptor.digest);
    }
    let unpacker = Unpacker {
        store: job.pull.store.clone(),
        applier: into.how.applier().clone(),
        snapshotter: into.snapshotter.clone(),
        snapshotter_name: into.snapshotter_name.clone(),
    };
    let options = Options { sync: into.sync };
    let mut below = Below(None);
    let works: Vec<_> = layers
        .iter()
        .map(|layer| {
            let (tell, committed) = oneshot::channel();
            let below = std::mem::replace(&mut below, Below(Some(committed)));
            let unpack = Unpack { job, into, unpacker: &unpacker, options: &options, layer };
            async move {
                unpack.run(below).await.context(|| format!("layer {}", unpack.layer.blob.digest))?;
                // Nobody waits above the top.
                let _ = tell.send(());
                Ok(())
            }
        })
        .collect();
    job.all(works).await?;
    let top = layers.last().map(|layer| layer.chain_id.clone());
    unpacker.keep_snapshot(&image.manifest.config, top.as_ref()).await?;
    Ok(top)
}
