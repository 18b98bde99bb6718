//! What `images pull --local` and `content fetch` have in common: content from a registry into the daemon's store, fetched by us.

use std::sync::Arc;
use std::time::Duration;

use images::pull::{Keep, Limits, Metadata, Pull, Pulled, Shared, Source};
use images::walk::Wanted;
use types::image::Image;
use types::oci::Descriptor;
use types::platform::Platform;
use types::{Labels, Result, ResultExt};

use crate::cli::Globals;
use crate::client::{Client, Leased};
use crate::flags::RegistryFlags;
use crate::progress::jobs::{Jobs, Moving};
use crate::{go, log, registry};

/// What a lease of a client that died holds goes after a day.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// Requests that are under way at a time if nobody says how many; upstream has no limit.
const UNLIMITED: usize = 64;

/// What to fetch and how.
pub struct Fetch<'a> {
    /// The command line.
    pub globals: &'a Globals,
    /// How registries are reached.
    pub registry: &'a RegistryFlags,
    /// The image.
    pub name: &'a str,
    /// Which manifests of an index.
    pub wanted: Wanted,
    /// Whether manifests and configs of others come, too.
    pub metadata: Metadata,
    /// How many requests at a time; nothing and less than nothing are no limit.
    pub at_once: i64,
}

/// The platforms that are asked for: exactly these, or all of them.
pub fn wanted(platforms: &[String], all: bool) -> Result<Wanted> {
    if all {
        return Ok(Wanted::All);
    }
    if platforms.is_empty() {
        return Ok(Wanted::Any(vec![Platform::host()]));
    }
    Ok(Wanted::Any(platforms.iter().map(|text| text.parse()).collect::<Result<_>>()?))
}

/// Does `work` under a lease. What a failure leaves is collected before it is told of.
pub async fn leased<T>(client: &Client, work: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
    let lease: Leased = client.lease(None, LEASE).await?;
    let done = work(&lease.client).await;
    let ended = if done.is_ok() { lease.release().await } else { lease.collect().await };
    if let Err(error) = ended {
        log::warn("failed to end lease", Some(&error));
    }
    done
}

impl Fetch<'_> {
    /// Fetches the image's content, and shows how it goes.
    pub async fn run(&self, client: &Client) -> Result<Descriptor> {
        let jobs = Jobs::new(Moving::Down, Some(self.name));
        let fetching = self.fetch(client, &jobs);
        // No progress among the lines of the log.
        let fetched = if self.globals.debug { fetching.await } else { jobs.drawn_while(fetching).await };
        Ok(fetched?.target)
    }

    async fn fetch(&self, client: &Client, jobs: &Arc<Jobs>) -> Result<Pulled> {
        let reference = registry::reference(self.name)?;
        let registry = registry::client(self.globals, self.registry)?;
        let (_, target) = registry
            .resolve(&reference)
            .await
            .context(|| format!("failed to resolve reference {}", go::quote(self.name)))?;
        let at_once = usize::try_from(self.at_once).ok().filter(|n| *n > 0).unwrap_or(UNLIMITED);
        let pull = Pull {
            store: Arc::new(client.content()),
            fetcher: registry.fetcher(&reference),
            source: Source::of(self.name, &reference),
            namespace: client.namespace().to_owned(),
            wanted: self.wanted.clone(),
            manifest_limit: 0,
            metadata: self.metadata,
            keep: Keep::Layers,
            unpack: Vec::new(),
            limits: Limits::default(),
            shared: Shared::new(at_once, 1),
        };
        pull.pull(&target, Arc::clone(jobs) as Arc<_>).await
    }
}

/// An image record.
pub fn image(name: &str, target: Descriptor, labels: Labels) -> Image {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    Image { name: name.to_owned(), labels, target, created_at: epoch, updated_at: epoch }
}

/// Points `name` to `target`, whether or not it was there before.
pub async fn record(client: &Client, image: Image) -> Result<()> {
    use api::containerd::services::images::v1 as wire;
    use remote::from_status;
    let image = Some(api::convert::image_to_wire(image));
    loop {
        let request = wire::CreateImageRequest { image: image.clone(), source_date_epoch: None };
        match client.images().create(request).await.map_err(from_status) {
            Err(error) if error.is_already_exists() => {}
            done => return done.map(drop),
        }
        let request =
            wire::UpdateImageRequest { image: image.clone(), update_mask: None, source_date_epoch: None };
        match client.images().update(request).await.map_err(from_status) {
            // Somebody has just removed it.
            Err(error) if error.is_not_found() => {}
            done => return done.map(drop),
        }
    }
}
