//! What a sandbox's container stands on: the built-in pause, or the image that somebody has configured.

use runtime::Pause;
use snapshots::shift;
use types::container::Container;
use types::mount::Mount;
use types::oci::ImageConfig;
use types::{Labels, Result, ResultExt};

use super::Plan;
use crate::cri::{Cri, blocking};
use crate::spec::{self, Machine};

/// What a container stands on.
pub struct Ground {
    builtin: Option<Pause>,
    config: ImageConfig,
    /// The image's name, or empty.
    pub image: String,
    /// Of the image.
    pub labels: Labels,
    /// Mounts of the root filesystem; none where the spec names one that is there.
    pub rootfs: Vec<Mount>,
    /// Whose snapshot it is, or empty.
    pub snapshotter: String,
    /// The snapshot, or empty.
    pub snapshot_key: String,
}

impl Ground {
    /// The mounts of its root filesystem, whose files have the pod's SELinux label.
    pub fn labelled(self, label: &str) -> Vec<Mount> {
        spec::with_label(self.rootfs, label)
    }

    /// For the spec.
    pub fn pause(&self) -> spec::Pause<'_> {
        match &self.builtin {
            Some(pause) => spec::Pause::Builtin(pause),
            None => spec::Pause::Image(&self.config, &self.rootfs),
        }
    }
}

/// Makes it. A snapshot is held by the pod's lease.
pub async fn prepare(cri: &Cri, plan: &Plan<'_>) -> Result<Ground> {
    match cri.config.images.pause_image() {
        None => builtin_or_default(cri, plan).await,
        Some(image) => of_image(cri, plan, image).await,
    }
}

/// The default image only where no shim of ours is installed: upstream's cannot pause.
async fn builtin_or_default(cri: &Cri, plan: &Plan<'_>) -> Result<Ground> {
    let missing = match builtin(cri, plan).await {
        Err(error) if error.is_not_found() => error,
        ground => return ground,
    };
    let Some(image) = cri.config.images.default_pause() else { return Err(missing) };
    tracing::debug!(%missing, image, "a pod gets the default pause image");
    of_image(cri, plan, image).await.map_err(|error| error.context(format!("{missing}; instead of it")))
}

/// The built-in pause.
pub async fn builtin(cri: &Cri, plan: &Plan<'_>) -> Result<Ground> {
    let mut pause = cri.runtime.builtin_pause().await?;
    let label = spec::of_program(plan.labels, Machine::here());
    if !label.is_empty() {
        pause = blocking(move || pause.labelled(&label)).await?;
    }
    Ok(Ground {
        builtin: Some(pause),
        config: ImageConfig::default(),
        image: String::new(),
        labels: Labels::new(),
        rootfs: Vec::new(),
        snapshotter: String::new(),
        snapshot_key: String::new(),
    })
}

async fn of_image(cri: &Cri, plan: &Plan<'_>, reference: &str) -> Result<Ground> {
    let pod = plan.pod;
    let image = crate::image::pull_image::ensure(cri, reference, Some(&pod.config), &pod.runtime_handler)
        .await
        .context(|| format!("failed to get sandbox image {reference:?}"))?;
    let settings = &cri.config.images;
    let snapshotter = match plan.handler.snapshotter.as_str() {
        "" => settings.snapshotter.clone(),
        own => own.to_owned(),
    };
    let snapshots = cri.db.snapshotter(cri.scope(Some(&pod.id)), &snapshotter)?;
    let labels = spec::snapshot_labels(&pod.config)?;
    let absent = || format!("failed to create the snapshot of sandbox {}", pod.id);
    let parent = shift::parent(&*snapshots, &snapshotter, &image.chain_id, &labels).await.context(absent)?;
    let rootfs = snapshots.prepare(&pod.id, &parent, labels).await.context(absent)?;
    Ok(Ground {
        builtin: None,
        config: image.config.clone(),
        image: reference.to_owned(),
        labels: image.config.config.labels.clone(),
        rootfs,
        snapshotter,
        snapshot_key: pod.id.clone(),
    })
}

/// Removes the snapshot of a container. May be done again.
pub async fn remove(cri: &Cri, container: &Container) -> Result<()> {
    if container.snapshot_key.is_empty() {
        return Ok(());
    }
    let snapshots = cri.db.snapshotter(cri.scope(None), &container.snapshotter)?;
    crate::cri::gone(snapshots.remove(&container.snapshot_key).await)
}
