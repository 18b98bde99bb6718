//! What the daemon's pulls and pushes have in common: limits, who may veto, into what is unpacked, and what operators see of
//! them while they run.
//!
//! ```text
//!  a pull ──┬── log line after two seconds, then every ten, and at the end      bytes, rate, layers
//!           ├── event `/containerd-rs/pull` with each of those lines            containerd.types.transfer.Progress
//!           ├── metrics `containerd_transfer_*`                                 counts.rs
//!           └── SIGUSR1's and the debug socket's dump                           running()
//! ```

mod counts;
mod follow;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use images::pull::{Running, Shared};
use tokio::sync::Semaphore;
use types::platform::Platform;
use types::{Namespace, Result};

use types::events::Exchange;

pub use counts::{Counts, Outcome};
pub use follow::Follow;

use crate::config;
use crate::proxies::Differs;

/// Where images are unpacked if nobody says where.
pub const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Transfers(Arc<Inner>);

struct Inner {
    settings: config::Transfer,
    verifier: config::Verifier,
    shared: Arc<Shared>,
    uploads: Arc<Semaphore>,
    ways: Option<Vec<Configured>>,
    counts: Arc<Counts>,
    leases: Mutex<BTreeSet<String>>,
}

/// A lease that a transfer of this daemon works under, until it is dropped.
pub struct Used {
    transfers: Transfers,
    lease: String,
}

/// A way to unpack that the configuration allows.
pub struct Configured {
    /// As it was written.
    pub unpack: config::Unpack,
    /// Who applies, if that was written, too.
    pub differs: Option<Differs>,
}

/// How an image is unpacked.
pub struct Way {
    /// Gets the layers.
    pub snapshotter: String,
    /// Who applies them, if not those who always do.
    pub differs: Option<Differs>,
    /// Only images whose config is of this media type; empty is any image.
    pub config_type: String,
    /// Media types of layers beside the usual ones.
    pub layer_types: Vec<String>,
}

impl Transfers {
    /// As configured. `ways` are the ways to unpack whose parts are there; `None` allows all that are.
    pub fn new(
        settings: config::Transfer,
        verifier: config::Verifier,
        ways: Option<Vec<Configured>>,
    ) -> Self {
        // Upstream's default is 1, which there means one after another, and is what people complain about.
        let unpacks = if settings.unpacks > 1 { settings.unpacks } else { processors() };
        let shared = Shared::new(settings.downloads, unpacks);
        let uploads = Arc::new(Semaphore::new(settings.uploads.clamp(1, Semaphore::MAX_PERMITS)));
        let (counts, leases) = (Arc::default(), Mutex::default());
        Self(Arc::new(Inner { settings, verifier, shared, uploads, ways, counts, leases }))
    }

    /// What the configuration says.
    pub fn settings(&self) -> &config::Transfer {
        &self.0.settings
    }

    /// Who may veto a pull.
    pub fn verifier(&self) -> &config::Verifier {
        &self.0.verifier
    }

    /// What pulls share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// How many blobs are uploaded at a time.
    pub fn uploads(&self) -> &Arc<Semaphore> {
        &self.0.uploads
    }

    /// What has been pulled and pushed so far.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// The pulls that fetch at the moment.
    pub fn running(&self) -> Vec<Running> {
        self.0.shared.running()
    }

    /// Begins to follow a pull.
    pub fn pull(&self, namespace: &Namespace, name: &str, events: &Exchange) -> Follow {
        Follow::begin(Arc::clone(&self.0.counts), namespace, name, events)
    }

    /// A transfer works under `lease`.
    pub fn use_lease(&self, lease: &str) -> Used {
        self.leases().insert(lease.to_owned());
        Used { transfers: self.clone(), lease: lease.to_owned() }
    }

    /// Whether a transfer works under `lease`.
    pub fn uses_lease(&self, lease: &str) -> bool {
        self.leases().contains(lease)
    }

    fn leases(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // One id comes or goes at a time: there is no half of it.
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A push has ended.
    pub fn pushed(&self, done: &Result<()>) {
        self.0.counts.pushed(done.is_ok());
    }

    /// How an image of `platform` is unpacked into `snapshotter`, empty for whichever is usual; `None` if it may not be.
    pub fn unpack(&self, platform: &Platform, snapshotter: &str) -> Option<Way> {
        let Some(ways) = &self.0.ways else {
            let name = if snapshotter.is_empty() { DEFAULT_SNAPSHOTTER } else { snapshotter };
            let way = Way {
                snapshotter: name.to_owned(),
                differs: None,
                config_type: String::new(),
                layer_types: Vec::new(),
            };
            return self.suits(&Platform::host(), platform).then_some(way);
        };
        let suits = |way: &&Configured| {
            self.suits(&way.unpack.platform, platform)
                && (snapshotter.is_empty() || way.unpack.snapshotter == snapshotter)
        };
        let usual = |way: &&Configured| way.unpack.snapshotter == DEFAULT_SNAPSHOTTER;
        let mut suitable = ways.iter().filter(suits);
        let first = suitable.next()?;
        let way = std::iter::once(first).chain(suitable).find(usual).unwrap_or(first);
        let config::Unpack { snapshotter, config_type, layer_types, .. } = way.unpack.clone();
        Some(Way { snapshotter, differs: way.differs.clone(), config_type, layer_types })
    }

    fn suits(&self, able: &Platform, image: &Platform) -> bool {
        if self.0.settings.check_platform { able.matches(image) } else { able.os == image.os }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.transfers.leases().remove(&self.lease);
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn transfers(ways: Option<&[(&str, &str)]>, check_platform: bool) -> Transfers {
        let config::Config { mut transfer, verifier, .. } = config::default().unwrap();
        assert_eq!(verifier.limit, Duration::from_secs(10));
        transfer.check_platform = check_platform;
        let configured = |(platform, snapshotter): &(&str, &str)| Configured {
            unpack: config::Unpack {
                platform: platform.parse().unwrap(),
                snapshotter: (*snapshotter).to_owned(),
                differ: String::new(),
                config_type: String::new(),
                layer_types: Vec::new(),
                optional: false,
            },
            differs: None,
        };
        Transfers::new(transfer, verifier, ways.map(|ways| ways.iter().map(configured).collect()))
    }

    fn chosen(transfers: &Transfers, platform: &str, snapshotter: &str) -> Option<String> {
        transfers.unpack(&platform.parse().unwrap(), snapshotter).map(|way| way.snapshotter)
    }

    #[test]
    fn without_a_word_about_it_any_snapshotter_will_do_for_images_of_linux() {
        let open = transfers(None, false);
        assert_eq!(chosen(&open, "linux/s390x", ""), Some("overlayfs".into()));
        assert_eq!(chosen(&open, "linux/s390x", "native"), Some("native".into()));
        assert_eq!(chosen(&open, "windows/amd64", ""), None);
        assert_eq!(chosen(&transfers(None, true), "linux/s390x", ""), None);
    }

    #[test]
    fn what_is_configured_is_all_that_is_allowed_and_overlayfs_is_preferred() {
        let ways = [("linux/amd64", "native"), ("linux/amd64", "overlayfs"), ("linux/arm64", "special")];
        let some = transfers(Some(&ways), false);
        assert_eq!(chosen(&some, "linux/amd64", ""), Some("overlayfs".into()));
        assert_eq!(chosen(&some, "linux/amd64", "native"), Some("native".into()));
        assert_eq!(chosen(&some, "linux/amd64", "other"), None);
        let strict = transfers(Some(&ways), true);
        assert_eq!(chosen(&strict, "linux/arm64", ""), Some("special".into()));
        assert_eq!(chosen(&transfers(Some(&[]), false), "linux/amd64", ""), None);
    }
}
