//! An image from a registry into the image store.
//!
//! ```text
//!  resolve --> verifiers --> fetch and unpack (images::pull) --> names
//! ```
//!
//! The names are the last step. Until then a lease holds what has come; after a failure that may pass, what is worth it is held a
//! while longer, so that the next pull goes on from there.

use std::sync::Arc;

use api::convert;
use images::pull::{How, Keep, Limits, Metadata, Pull, Pulled, Source, UnpackInto};
use images::walk::Wanted;
use types::oci::Descriptor;
use types::platform::Platform;
use types::{Class, Error, Result, ResultExt};

use super::Job;
use super::lease::Leftovers;
use super::registry::Registry;
use super::store::ImageStore;
use super::tracker::Tracker;
use super::unpack;
use crate::transfers::{Follow, Outcome};
use crate::verifier;

/// What is not the same for every pull, and not said by its ends.
#[derive(Default)]
pub struct Wishes {
    /// What labels hold.
    pub keep: Keep,
    /// Who applies layers is to make them durable.
    pub sync: bool,
    /// Snapshotters are told where layers come from, and may bring them themselves.
    pub remote: bool,
    /// Who is told what happens, instead of a client.
    pub progress: Option<Arc<dyn images::Progress>>,
}

/// Pulls what `from` names.
pub async fn run(job: &mut Job, from: Registry, to: ImageStore, wishes: Wishes) -> Result<()> {
    let mut follow = job.house.transfers.pull(&job.scope.namespace, &from.name, &job.house.events);
    let pulled = pull(job, (&from, &to), &wishes, &mut follow).await;
    follow.end(&pulled);
    if pulled.as_ref().is_err_and(|error| may_pass(error.class())) && follow.brought_much() {
        job.leftovers = Leftovers::Keep;
    }
    from.finish().await;
    pulled
}

/// Whether the same pull may go well the next time.
fn may_pass(class: Class) -> bool {
    matches!(class, Class::Canceled | Class::Unavailable | Class::DeadlineExceeded | Class::ResourceExhausted)
}

async fn pull(
    job: &mut Job,
    (from, to): (&Registry, &ImageStore),
    wishes: &Wishes,
    follow: &mut Follow,
) -> Result<()> {
    job.progress.event(format!("Resolving from {}", from.shown()));
    let unpack = unpack::wanted(job, &to.0.unpacks)?.into_iter();
    let unpack = unpack
        .map(|into| UnpackInto { sync: wishes.sync, remote: wishes.remote, ..unpack_into(into) })
        .collect();
    let resolving =
        async { from.client.resolve(&from.reference).await.context(|| "failed to resolve image") };
    let (_, target) = job.gone.or(resolving).await?;
    let settings = job.house.transfers.verifier().clone();
    let verified = verifier::verify(&settings, &from.name, &target);
    let verified = job.gone.or(async { Ok(verified.await) }).await?;
    verified.inspect_err(|_| follow.is(Outcome::Vetoed))?;
    job.progress.event(format!("Pulling from {}", from.shown()));
    job.progress.image("fetching image content", &from.name, &target);
    let names = names(to, &target)?;
    let wanted = Target { target: &target, unpack, wishes };
    let Pulled { target, .. } = fetch(job, (from, to), wanted, follow).await?;
    let named: Vec<_> = names.into_iter().map(|name| (name, target.clone())).collect();
    to.write(job, &named).await?;
    for (name, target) in &named {
        job.progress.image("saved", name, target);
    }
    job.progress.event(format!("Completed pull from {}", from.shown()));
    Ok(())
}

/// What the image will be called; found out before anything is fetched.
fn names(to: &ImageStore, target: &Descriptor) -> Result<Vec<String>> {
    use images::import::Names as _;
    let names = to.index(target);
    if names.is_empty() { Err(Error::not_found("no image name found: not found")) } else { Ok(names) }
}

/// What is fetched, and what becomes of it.
struct Target<'a> {
    target: &'a Descriptor,
    unpack: Vec<UnpackInto>,
    wishes: &'a Wishes,
}

async fn fetch(
    job: &mut Job,
    (from, to): (&Registry, &ImageStore),
    Target { target, unpack, wishes }: Target<'_>,
    follow: &mut Follow,
) -> Result<Pulled> {
    let platforms: Vec<Platform> = to.0.platforms.iter().cloned().map(convert::platform).collect();
    let transfers = &job.house.transfers;
    let pull = Pull {
        store: job.house.db.content(job.scope.clone()),
        fetcher: from.client.fetcher(&from.reference),
        source: Source::of(&from.name, &from.reference),
        namespace: job.scope.namespace.to_string(),
        wanted: wanted(platforms),
        manifest_limit: usize::try_from(to.0.manifest_limit).unwrap_or(usize::MAX),
        metadata: if to.0.all_metadata { Metadata::All } else { Metadata::Wanted },
        keep: wishes.keep,
        unpack,
        limits: limits(transfers.settings()),
        shared: Arc::clone(transfers.shared()),
    };
    let tracker = Tracker::new(job.progress.clone(), &from.name, "downloading");
    let _ticking = tracker.tick();
    follow.begins(target);
    let progress = follow.beside(wishes.progress.clone().unwrap_or(tracker));
    job.gone.or(pull.pull(target, progress)).await
}

/// One platform stands for those that run on it, too; several for themselves.
fn wanted(mut platforms: Vec<Platform>) -> Wanted {
    match (platforms.len(), platforms.pop()) {
        (1, Some(platform)) => Wanted::Only(platform),
        (_, None) => Wanted::All,
        (_, Some(last)) => {
            platforms.push(last);
            Wanted::Any(platforms)
        }
    }
}

fn limits(settings: &crate::config::Transfer) -> Limits {
    let default = Limits::default();
    let or = |number: u64, default: u64| if number == 0 { default } else { number };
    // As upstream: smaller parts are none.
    let buffer = if settings.layer_buffer < 512 { 0 } else { settings.layer_buffer };
    Limits {
        max_unpacked_layer: Some(settings.max_unpacked_layer).filter(|most| *most > 0),
        document: or(settings.max_manifest_size, default.document),
        depth: if settings.max_index_depth == 0 { default.depth } else { settings.max_index_depth },
        fetch_buffer: buffer as u64,
        parts: settings.downloads.min(16),
    }
}

fn unpack_into(into: unpack::UnpackInto) -> UnpackInto {
    let unpack::UnpackInto { platform, snapshotter, name, applier, walking, config_type, layer_types } = into;
    UnpackInto {
        platforms: Wanted::Only(platform),
        snapshotter,
        snapshotter_name: name,
        how: if walking { How::OnePass(applier) } else { How::ByApplier(applier) },
        config_type,
        layer_types,
        remote: false,
        sync: false,
    }
}
