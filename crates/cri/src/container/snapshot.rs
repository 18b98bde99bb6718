//! A container's root filesystem: a snapshot with the container's id, on the layers of its image.

use std::path::Path;
use std::sync::Arc;

use diff::walking::WalkingApplier;
use images::progress::Silent;
use images::unpack::{Options, Unpacker};
use images::walk;
use snapshots::shift;
use sys::mount::TempMount;
use types::mount::Mount;
use types::platform::Platform;
use types::snapshot::Kind;
use types::{Labels, Result, ResultExt};

use crate::cri::{Cri, blocking, gone, new_id};
use crate::image::Image;

/// A new snapshot on an image, held by the pod's lease.
pub async fn prepare(cri: &Cri, new: &New<'_>, labels: Labels) -> Result<Vec<Mount>> {
    let made = make(cri, (new.pod, new.snapshotter), (new.id, Kind::Active), new.image, labels).await;
    made.context(|| format!("failed to prepare the root filesystem of container {:?}", new.id))
}

/// A snapshot on an image for a volume, held by the lease of the pod; one that is there is as good.
pub async fn volume(
    cri: &Cri,
    of: (&str, &str),
    key: &str,
    image: &Image,
    labels: Labels,
) -> Result<Vec<Mount>> {
    match make(cri, of, (key, Kind::Active), image, labels).await {
        Err(error) if error.is_already_exists() => {
            cri.db.snapshotter(cri.scope(Some(of.0)), of.1)?.mounts(key).await
        }
        made => made,
    }
}

/// A snapshot on an image, held by the lease of `pod`. Layers that are not unpacked for this snapshotter are now.
async fn make(
    cri: &Cri,
    (pod, snapshotter): (&str, &str),
    (key, kind): (&str, Kind),
    image: &Image,
    labels: Labels,
) -> Result<Vec<Mount>> {
    let snapshots = cri.db.snapshotter(cri.scope(Some(pod)), snapshotter)?;
    let make = async || {
        let parent = shift::parent(&*snapshots, snapshotter, &image.chain_id, &labels).await?;
        match kind {
            Kind::View => snapshots.view(key, &parent, labels.clone()).await,
            Kind::Active | Kind::Committed => snapshots.prepare(key, &parent, labels.clone()).await,
        }
    };
    match make().await {
        Err(error) if error.is_not_found() && !image.chain_id.is_empty() => {
            unpack(cri, (pod, snapshotter), image).await?;
            make().await
        }
        made => made,
    }
}

/// What `work` makes of an image that is mounted for it alone. It may block.
pub async fn inside<T: Send + 'static>(
    cri: &Cri,
    of: (&str, &str),
    image: &Image,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let key = format!("inside-{}", new_id());
    let mounts = make(cri, of, (&key, Kind::View), image, Labels::new()).await?;
    let done = blocking(move || {
        let mounted = TempMount::new(&mounts)?;
        let done = work(mounted.path());
        mounted.close().and(done)
    });
    let done = done.await;
    let removed = gone(cri.db.snapshotter(cri.scope(None), of.1)?.remove(&key).await);
    removed.and(done)
}

/// Unpacks an image that another snapshotter has; the layers are held by the lease of `pod`.
async fn unpack(cri: &Cri, (pod, snapshotter): (&str, &str), image: &Image) -> Result<()> {
    unpack_layers(cri, (pod, snapshotter), image).await.context(|| "error unpacking image")
}

async fn unpack_layers(cri: &Cri, (pod, snapshotter): (&str, &str), image: &Image) -> Result<()> {
    let scope = cri.scope(Some(pod));
    let name = image.references.first().map(String::as_str).unwrap_or_default();
    let target = cri.db.images(&scope).get(name)?.target;
    let store = cri.db.content(scope.clone());
    let (_, manifest) = walk::manifest_for(&*store, &target, &Platform::host()).await?;
    let unpacker = Unpacker {
        applier: Arc::new(WalkingApplier::new(Arc::clone(&store))),
        snapshotter: cri.db.snapshotter(scope, snapshotter)?,
        snapshotter_name: snapshotter.to_owned(),
        store,
    };
    unpacker.unpack(&manifest, &Options::default(), &Silent).await.map(drop)
}

/// A snapshot to be made.
#[derive(Debug)]
pub struct New<'a> {
    /// The container.
    pub id: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// What is in it at first.
    pub image: &'a Image,
    /// Whose it is.
    pub snapshotter: &'a str,
}
