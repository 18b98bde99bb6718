//! The program, put together: who is built from what, in which order.
//!
//! ```text
//!  root ours? --> lock, content, snapshotters --> database --> events --> runtime (shims, in the background) --> house
//! ```
//!
//! Nothing is created below root or state before it is certain that both are ours to use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use content::Store;
use content::local::LocalStore;
use metadata::Db;
use runtime::Runtime;
use snapshots::Snapshotter;
use snapshots::native::Native;
use snapshots::overlay::{self, Overlay};
use tracing::{info, warn};
use types::events::Exchange;
use types::{Result, ResultExt};

use crate::config::{Config, ProxyKind, Unpack};
use crate::directories;
use crate::estimates;
use crate::gc::Collector;
use crate::plugins::{Kind, Plugins, snapshotter_root};
use crate::proxies::{self, Differs, ProxySnapshotter};
use crate::services::{House, Parts};
use crate::transfers::{Configured, Transfers};

/// Where mounts that the daemon keeps are, below the state directory.
const MOUNTS: &str = "io.containerd.mount-manager.v1.records";

/// Builds the daemon's inside. Afterwards it can be served.
pub async fn build(config: &Config, plugins: &mut Plugins) -> Result<House> {
    Db::check_root(&config.root)?;
    runtime::check_state(&config.state)?;
    directories::make_state(&config.state)?;
    let lock = runtime::lock_state(&config.state)?;
    let root = Db::lock_root(&config.root)?;
    directories::make_root(&config.root)?;
    let content = content(config, plugins)?;
    let snapshotters = snapshotters(config, plugins)?;
    let differs = Differs::new(&config.differs, &plugins.proxies(ProxyKind::Differ))?;
    let transfers = transfers(config, plugins, &snapshotters)?;
    let dir = config.root.join("io.containerd.metadata.v1.redb");
    let db = Db::open_locked(metadata::Options { dir, content, snapshotters }, root)?;
    let events = Exchange::new();
    tokio::spawn(estimates::label(db.clone(), events.subscribe()));
    let runtime = Runtime::open(runtime_options(config, events.clone())?).await?;
    let mounts = mounts::Manager::open(config.state.join(MOUNTS), vec![config.root.clone()]).await?;
    let gc = Collector::start(&db, events.clone(), &config.gc);
    Ok(House::new(Parts { db, runtime, mounts, events, gc, differs, transfers, state: lock }))
}

/// The store of blobs: ours, or the one that is to take its place.
fn content(config: &Config, plugins: &Plugins) -> Result<Arc<dyn Store>> {
    match proxies::content(plugins.proxies(ProxyKind::Content).into_iter())? {
        Some(store) => Ok(store),
        None => Ok(LocalStore::open(config.root.join("io.containerd.content.v1.content"))?),
    }
}

/// Opens the snapshotters that are wanted. One that cannot be opened is reported by Introspection, not fatal.
fn snapshotters(config: &Config, plugins: &mut Plugins) -> Result<BTreeMap<String, Arc<dyn Snapshotter>>> {
    let mut opened = BTreeMap::new();
    for id in ["native", "overlayfs"] {
        if !plugins.wants(Kind::Snapshotter, id) {
            info!(id, "snapshotter is disabled");
            continue;
        }
        match open_snapshotter(config, plugins, id) {
            Ok(snapshotter) => drop(opened.insert(id.to_owned(), snapshotter)),
            Err(error) => {
                warn!(id, %error, "failed to load snapshotter");
                plugins.failed(config, id, &error)?;
            }
        }
    }
    for proxy in plugins.proxies(ProxyKind::Snapshotter) {
        opened.insert(proxy.name.clone(), Arc::new(ProxySnapshotter::new(proxy)?));
    }
    Ok(opened)
}

fn open_snapshotter(config: &Config, plugins: &mut Plugins, id: &str) -> Result<Arc<dyn Snapshotter>> {
    let root = snapshotter_root(config, id);
    if id == "native" {
        return Ok(Native::open(root)?);
    }
    let options = overlay::Options {
        mount_options: config.overlayfs.mount_options.clone(),
        upperdir_label: config.overlayfs.upperdir_label,
        remap_ids: true,
        slow_chown: config.overlayfs.slow_chown,
    };
    let overlay = Overlay::open(root, options)?;
    plugins.found(id, overlay.capabilities());
    Ok(overlay)
}

/// Pulls and pushes. A way to unpack whose parts are not there is left out if it may be; else there are no transfers.
fn transfers(
    config: &Config,
    plugins: &mut Plugins,
    snapshotters: &BTreeMap<String, Arc<dyn Snapshotter>>,
) -> Result<Transfers> {
    let mut ways = Vec::new();
    for unpack in config.transfer.unpack.iter().flatten() {
        match way(unpack, plugins, snapshotters)? {
            Ok(way) => ways.push(way),
            Err(_) if unpack.optional => {}
            Err(why) => plugins.failed_transfers(config, &why)?,
        }
    }
    let ways = config.transfer.unpack.is_some().then_some(ways);
    Ok(Transfers::new(config.transfer.clone(), config.verifier.clone(), ways))
}

/// A way to unpack, or what of it is not there.
fn way(
    unpack: &Unpack,
    plugins: &Plugins,
    snapshotters: &BTreeMap<String, Arc<dyn Snapshotter>>,
) -> Result<Result<Configured, String>> {
    if !snapshotters.contains_key(&unpack.snapshotter) {
        return Ok(Err(format!("snapshotter {:?} not found: not found", unpack.snapshotter)));
    }
    let mut differs = None;
    if !unpack.differ.is_empty() {
        let one = Differs::new(std::slice::from_ref(&unpack.differ), &plugins.proxies(ProxyKind::Differ))?;
        if one.is_empty() {
            let differ = &unpack.differ;
            return Ok(Err(format!("failed to get instance for diff plugin {differ:?}: plugin: not found")));
        }
        differs = Some(one);
    }
    Ok(Ok(Configured { unpack: unpack.clone(), differs }))
}

fn runtime_options(config: &Config, events: Exchange) -> Result<runtime::Options> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    Ok(runtime::Options {
        root: config.root.clone(),
        state: config.state.clone(),
        address: text(&config.grpc.address),
        ttrpc_address: text(&config.ttrpc.address),
        binary: std::env::current_exe().context(|| "find the daemon's own binary")?,
        socket_dir: Some(&config.shims.socket_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        env: config.shims.env.clone(),
        events,
        debug: config.log.threshold.debug(),
        timeouts: runtime::Timeouts {
            load: config.shims.load,
            cleanup: config.shims.cleanup,
            shutdown: config.shims.shutdown,
            state: config.shims.task_state,
            stats: config.shims.stats,
            ..runtime::Timeouts::default()
        },
    })
}
