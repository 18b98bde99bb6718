//! What holds what a transfer makes until it has a name, and what becomes of that if the transfer does not end well.
//!
//! ```text
//!  under way ── held by a lease, for a day at most
//!    ├── ended well ────────────── the lease goes, and with it what earlier pulls of the image have left
//!    ├── failed, may pass ──────── another lease holds it for an hour (Leftovers::Keep)
//!    ├── failed ────────────────── the lease goes, and what only it held is collected before the answer
//!    └── the daemon was killed ─── the lease stays; the next pull of the image goes on from there, and removes it
//! ```

use std::time::{Duration, SystemTime};

use metadata::Leases;
use tracing::warn;
use types::filters::Filters;
use types::{Labels, Result, labels};

use super::Job;

/// How long what a transfer has made is held, should it not come to its end.
const HELD: Duration = Duration::from_secs(24 * 3600);
/// How long what a pull that failed has brought is held for the next.
const KEPT: Duration = Duration::from_secs(3600);
/// On the lease of a pull: the image's name.
const PULLS: &str = "containerd-rs/pulls";

/// What becomes of what a failed transfer has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// It is collected at once.
    #[default]
    Collect,
    /// It is held for a while: another try will want it.
    Keep,
}

/// Does `work` under the caller's lease, or one of its own. `image` is the name of what is pulled.
pub async fn leased(
    job: &mut Job,
    image: Option<&str>,
    work: impl AsyncFnOnce(&mut Job) -> Result<()>,
) -> Result<()> {
    if job.scope.lease.is_some() {
        return work(job).await;
    }
    let leases = job.house.db.leases(&job.scope.namespace);
    let labels = image.map(pulls).unwrap_or_default();
    let lease = Leases::random_id();
    let _used = job.house.transfers.use_lease(&lease);
    leases.create(Some(lease.clone()), expiring(HELD, &labels)).await?;
    job.scope.lease = Some(lease.clone());
    let done = work(job).await;
    if done.is_err()
        && job.leftovers == Leftovers::Keep
        && let Err(error) = keep(&leases, &lease, &labels).await
    {
        warn!(%error, "what a failed pull has brought is not kept for the next");
    }
    if let Err(error) = leases.delete(&lease).await {
        warn!(%error, lease, "the lease of a transfer stays until it expires");
    }
    match &done {
        Ok(()) => {
            if let Err(error) = forget(job, &leases, &labels).await {
                warn!(%error, "what earlier pulls have left stays until it expires");
            }
        }
        Err(_) => {
            if let Err(error) = job.house.gc.collect().await {
                warn!(%error, "what a failed transfer has left stays until the next collection");
            }
        }
    }
    done
}

/// The label that says what is pulled; none for a name that is too long for one.
fn pulls(image: &str) -> Labels {
    let fits = labels::validate(PULLS, image).is_ok();
    fits.then(|| (PULLS.to_owned(), image.to_owned())).into_iter().collect()
}

/// `labels`, and the one of a lease that ends after so long.
fn expiring(after: Duration, labels: &Labels) -> Labels {
    let (seconds, _) = types::time::unix(SystemTime::now() + after);
    let expire = types::time::rfc3339(types::time::from_unix(seconds, 0));
    let mut labels = labels.clone();
    labels.insert(labels::GC_EXPIRE.to_owned(), expire);
    labels
}

/// Holds what the lease `id` holds for [`KEPT`].
async fn keep(leases: &Leases, id: &str, labels: &Labels) -> Result<()> {
    let lease = leases.create(None, expiring(KEPT, labels)).await?;
    for resource in leases.list_resources(id)? {
        leases.add_resource(&lease.id, resource).await?;
    }
    Ok(())
}

/// Removes the leases of earlier pulls of the image, which is there now; not those of pulls that are under way.
async fn forget(job: &Job, leases: &Leases, labels: &Labels) -> Result<()> {
    let Some(image) = labels.get(PULLS) else { return Ok(()) };
    let mut left = Vec::new();
    leases.list(&Filters::default(), &mut |lease| {
        if lease.labels.get(PULLS) == Some(image) && !job.house.transfers.uses_lease(&lease.id) {
            left.push(lease.id);
        }
        Ok(())
    })?;
    for id in left {
        match leases.delete(&id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            // Another pull of the image was first.
            _ => {}
        }
    }
    Ok(())
}
