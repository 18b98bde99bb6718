//! An image of the image store to a registry.

use std::sync::Arc;

use api::convert;
use images::push::{NonDistributable, Push};
use images::walk::Wanted;
use types::Result;
use types::platform::Platform;

use super::Job;
use super::registry::Registry;
use super::store::ImageStore;
use super::tracker::Tracker;

/// Pushes what `from` names.
pub async fn run(job: &mut Job, from: ImageStore, to: Registry) -> Result<()> {
    let pushed = push(job, &from, &to).await;
    job.house.transfers.pushed(&pushed);
    to.finish().await;
    pushed
}

async fn push(job: &mut Job, from: &ImageStore, to: &Registry) -> Result<()> {
    let image = job.house.db.images(&job.scope).get(&from.0.name)?;
    job.progress.event(format!("Pushing to {}", to.shown()));
    job.progress.image("pushing content", &image.name, &image.target);
    // With its digest, so that of several manifests only the one that is meant gets the tag.
    let mut reference = to.reference.clone();
    reference.digest.get_or_insert_with(|| image.target.digest.clone());
    let platforms: Vec<Platform> = from.0.platforms.iter().cloned().map(convert::platform).collect();
    let push = Push {
        store: job.house.db.content(job.scope.clone()),
        reference: reference.clone(),
        wanted: if platforms.is_empty() { Wanted::All } else { Wanted::Any(platforms) },
        non_distributable: NonDistributable::PushIfHere,
        uploads: Arc::clone(job.house.transfers.uploads()),
    };
    let tracker = Tracker::new(job.progress.clone(), &image.name, "uploading");
    let _ticking = tracker.tick();
    job.gone.or(push.run(&to.client.pusher(&reference), &image.target, tracker)).await?;
    job.progress.image("pushed content", &image.name, &image.target);
    job.progress.described(format!("Completed push to {}", to.shown()), &image.target);
    Ok(())
}
