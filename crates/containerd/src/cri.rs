//! Kubernetes' front door, as a part of the daemon: what the daemon lends it, and where it is served.
//!
//! ```text
//!  disabled? --> directories --> cri::Cri --> routes --> (READY) --> what a daemon before has left, in the background
//! ```
//!
//! That it cannot be started, for instance because its streaming server's address is taken, is told and leaves the rest of the
//! daemon at work, as upstream.

mod mirrors;

use std::pin::Pin;
use std::sync::Arc;

use cri::{Change, Cri, Doors, Parts};
use types::Result;

use crate::config::Config;
use crate::directories;
use crate::plugins::{self, Kind, Plugins};
use crate::proxies::Sandboxers;
use crate::services::House;
use crate::services::transfer::CriPulls;
use crate::work;

/// Where the CRI has its files, below root and state.
const DIRECTORY: &str = "io.containerd.grpc.v1.cri";

/// Puts it together, if it is wanted. A failure is fatal only where the CRI is required.
pub async fn open(
    house: &House,
    config: &Config,
    plugins: &mut Plugins,
    sandboxers: &Sandboxers,
) -> Result<Option<Cri>> {
    if !plugins.wants(Kind::Service, "cri") {
        return Ok(None);
    }
    match build(house, config, plugins, sandboxers).await {
        Ok(cri) => Ok(Some(cri)),
        Err(error) => {
            plugins.failed_cri(config, &error)?;
            Ok(None)
        }
    }
}

async fn build(house: &House, config: &Config, plugins: &Plugins, sandboxers: &Sandboxers) -> Result<Cri> {
    let state = config.state.join(DIRECTORY);
    directories::make_private(&config.root.join(DIRECTORY))?;
    directories::make_passable(&state)?;
    let mut settings = config.cri.settings.clone();
    if !config.cri.mirrors.is_empty() {
        let hosts = state.join("hosts");
        mirrors::write(&hosts, &config.cri.mirrors)?;
        settings.images.hosts = hosts.to_string_lossy().into_owned();
    }
    config.cri.deprecated.iter().for_each(|deprecation| house.deprecations.emit(*deprecation));
    Cri::open(Parts {
        config: settings,
        db: house.db.clone(),
        runtime: house.runtime.clone(),
        mounts: house.mounts.clone(),
        bus: house.events.clone(),
        doors: doors(house, config),
        sandboxers: sandboxers.all(&"k8s.io".parse()?)?,
        nri: config.nri.clone().filter(|_| plugins.wants(Kind::Nri, "nri")),
        root: config.root.clone(),
        state: config.state.clone(),
    })
    .await
}

fn doors(house: &House, config: &Config) -> Doors {
    let pods = house.pods.clone();
    let (gc, config, deprecations) = (house.gc.clone(), config.clone(), house.deprecations.clone());
    Doors {
        spawn: spawn(house),
        pull: Arc::new(CriPulls::new(house)),
        collect: Arc::new(move || {
            let gc = gc.clone();
            Box::pin(async move { gc.collect().await })
        }),
        deprecations: Arc::new(move || {
            let used = deprecations.used().into_iter();
            used.map(|(id, message, _)| (id.to_owned(), message.to_owned())).collect()
        }),
        observe: Arc::new(move |observed| pods.observe(observed)),
        address: config.grpc.address.clone(),
        snapshotter_root: Arc::new(move |id| plugins::snapshotter_root(&config, id)),
    }
}

/// Changes of the CRI are changes of the daemon: logged, shown while they last, and waited for.
fn spawn(house: &House) -> cri::Spawn {
    let work = house.work.clone();
    Arc::new(move |change: Change, run: Pin<Box<dyn Future<Output = Result<()>> + Send>>| {
        work.detach(work::Change::new(change.what, "k8s.io", change.id), run);
    })
}
