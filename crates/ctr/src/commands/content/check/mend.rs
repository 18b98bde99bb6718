//! A broken layer, extracted again from its blob.
//!
//! ```text
//!  its directory is there     over what is left of it, unless somebody has it mounted
//!  its directory is gone      as if it had never been unpacked: a daemon that sees that takes the new one in its place
//! ```

use std::sync::Arc;

use diff::{Applier as _, ApplyOptions, verify};
use remote::RemoteSnapshotter;
use snapshots::Snapshotter;
use types::mount::Mount;
use types::{Error, Labels, Result, ResultExt, labels};

use super::layers::{Layer, compare, with_view};
use super::{Space, users};
use crate::client::random_lease_id;

/// Makes a layer whole.
pub(super) async fn layer(space: &Space, snapshots: &RemoteSnapshotter, layer: &Layer) -> Result<()> {
    let name = &layer.info.name;
    match with_view(snapshots, name, async |view| in_place(space, layer, view).await).await {
        Err(error) if error.is_not_found() => anew(space, snapshots, layer).await?,
        mended => mended?,
    }
    let left = with_view(snapshots, name, async |view| compare(space, layer, &view).await).await?;
    match left.differences.iter().next() {
        None => Ok(()),
        Some((path, difference)) => {
            Err(Error::data_loss(format!("after it was extracted again, {} {difference}", path.display())))
        }
    }
}

async fn in_place(space: &Space, layer: &Layer, view: Vec<Mount>) -> Result<()> {
    let Some(top) = verify::top_of(&view) else {
        return Err(Error::unimplemented("its files are no plain directory"));
    };
    let mounted = users::that_stay(&top).await;
    if !mounted.is_empty() {
        return Err(Error::precondition(format!(
            "it is in use, stop its containers first: mounted at {}",
            mounted.join(", ")
        )));
    }
    let diff_id = verify::mend(Arc::new(space.client.content()), &layer.blob, &view).await?;
    if diff_id != layer.diff_id {
        return Err(Error::data_loss(format!("blob {} is of layer {diff_id}", layer.blob.digest)));
    }
    Ok(())
}

async fn anew(space: &Space, snapshots: &RemoteSnapshotter, layer: &Layer) -> Result<()> {
    let key = format!("extract-{} {}", random_lease_id(), layer.info.name);
    let target = Labels::from([(labels::SNAPSHOT_REF.to_owned(), layer.info.name.clone())]);
    let stays = || "its record is in the way: remove its image and what stands on it, and pull again";
    let mounts = snapshots.prepare(&key, &layer.info.parent, target).await.context(stays)?;
    let applied = space
        .client
        .applier()
        .apply(&layer.blob, &mounts, ApplyOptions { sync: true, ..ApplyOptions::default() })
        .await;
    let committed = match applied {
        Ok(applied) if applied.uncompressed.digest != layer.diff_id => {
            Err(Error::data_loss(format!("blob {} is of another layer", layer.blob.digest)))
        }
        Ok(_) => {
            snapshots.commit(&layer.info.name, &key, None, layer.info.labels.clone()).await.context(stays)
        }
        Err(error) => Err(error),
    };
    if committed.is_err() {
        drop(snapshots.remove(&key).await);
    }
    committed
}
