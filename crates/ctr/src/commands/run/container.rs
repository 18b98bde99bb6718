//! Container records: made with their snapshot, and removed with it.
//!
//! ```text
//!  image record || lease || snapshotter's name
//!  manifest, config                          one read each
//!  Snapshots.Prepare                         on the chain; unpacked first where that is not there
//!  users and groups                          read out of the layers
//!  Containers.Create                         from here on the record holds the snapshot, and the lease may go
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::containerd::services::containers::v1 as wire;
use remote::{RemoteSnapshotter, from_status};
use snapshots::Snapshotter;
use snapshots::shift::IdMaps;
use types::any::RUNTIME_SPEC;
use types::container::{Container, RuntimeInfo};
use types::image::Image;
use types::mount::Mount;
use types::{Any, Error, Labels, Result, labels};

use super::flags::{Source, Wanted};
use super::image::{self, Resolved};
use super::spec::Changes;
use super::{remap, runtime, specfile};
use crate::client::{Client, Leased};
use crate::{flags, log, network};
use sys::mount::View;

/// Tells `tasks kill` which signal an image wants.
pub const STOP_SIGNAL_LABEL: &str = "io.containerd.image.config.stop-signal";
/// Upstream's: what a lease of a client that died holds goes after a day.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// A container that was just made.
pub struct Created {
    /// The record.
    pub container: Container,
    /// Mounts of its root filesystem, if it has a snapshot.
    pub rootfs: Vec<Mount>,
    /// Held the snapshot until the record did.
    pub lease: Option<Leased>,
}

/// Makes what is wanted, or nothing. The lease is not ended yet.
pub async fn make(client: &Client, wanted: &Wanted) -> Result<Created> {
    let runtime = runtime::of(&wanted.flags.runtime, wanted.run.cgroup.as_deref())?;
    let name = match &wanted.source {
        Source::Config(path) => {
            let spec = specfile::read(path, &flags::labels(&wanted.flags.label))?;
            return record_only(client, wanted, runtime, spec).await;
        }
        Source::RootFs(path) => {
            let changes = Changes::parse(wanted)?;
            let user = !wanted.flags.user.is_empty();
            let view = user.then(|| View::of_directory(Path::new(path))).transpose()?;
            let spec = changes.spec(&client.namespace().parse()?, None, view.as_ref())?;
            return record_only(client, wanted, runtime, encode(&spec)?).await;
        }
        Source::Image(name) => name,
    };
    let changes = Changes::parse(wanted)?;
    let (image, lease, snapshotter) = tokio::join!(
        client.image(name),
        client.lease(None, LEASE),
        client.snapshotter_name(&wanted.flags.snapshotter.snapshotter),
    );
    let lease = lease?;
    let made = async {
        let image = image?;
        let resolved = image::resolve(&client.content(), &image, changes.platform()).await?;
        let making = Making { wanted, changes: &changes, image, resolved, runtime };
        making.on(&lease.client, &snapshotter?).await
    };
    match made.await {
        Ok((container, rootfs)) => Ok(Created { container, rootfs, lease: Some(lease) }),
        Err(error) => {
            end(lease).await;
            Err(error)
        }
    }
}

/// [`make`], and the lease ended.
pub async fn create(client: &Client, wanted: &Wanted) -> Result<Container> {
    let created = make(client, wanted).await?;
    if let Some(lease) = created.lease {
        end(lease).await;
    }
    Ok(created.container)
}

/// Ends a lease; it would end by itself.
pub async fn end(lease: Leased) {
    if let Err(error) = lease.release().await {
        log::warn("failed to end lease", Some(&error));
    }
}

/// Removes a record, and its snapshot unless that is kept.
pub async fn remove(client: &Client, container: &Container, snapshot: bool) -> Result<()> {
    let request = wire::DeleteContainerRequest { id: container.id.clone() };
    let record = async { client.containers().delete(request).await.map(drop).map_err(from_status) };
    if !snapshot || container.snapshot_key.is_empty() {
        return record.await;
    }
    if container.snapshotter.is_empty() {
        let text = "container.Snapshotter must be set to cleanup rootfs snapshot: invalid argument";
        return Err(Error::invalid(text));
    }
    let snapshotter = client.named_snapshotter(&container.snapshotter);
    let (removed, record) = tokio::join!(snapshotter.remove(&container.snapshot_key), record);
    match removed {
        Err(error) if !error.is_not_found() => Err(error),
        _ => record,
    }
}

/// An image on its way to a container.
struct Making<'a> {
    wanted: &'a Wanted,
    changes: &'a Changes<'a>,
    image: Image,
    resolved: Resolved,
    runtime: RuntimeInfo,
}

impl Making<'_> {
    /// Prepares the snapshot and creates the record; takes the snapshot back if that fails.
    async fn on(self, client: &Client, snapshotter: &str) -> Result<(Container, Vec<Mount>)> {
        let snapshots = Arc::new(client.named_snapshotter(snapshotter));
        let rootfs = self.prepare(client, &snapshots).await?;
        match self.record(client, snapshotter, &rootfs).await {
            Ok(container) => Ok((container, rootfs)),
            Err(error) => {
                if let Err(left) = snapshots.remove(&self.wanted.id).await {
                    log::error("failed to remove snapshot", Some(&left));
                }
                Err(error)
            }
        }
    }

    async fn prepare(&self, client: &Client, snapshots: &Arc<RemoteSnapshotter>) -> Result<Vec<Mount>> {
        let chain = self.resolved.chain()?;
        let (mut parent, mut labels) = (chain.to_string(), Labels::new());
        if self.changes.remapped() {
            let (uids, gids) = (&self.changes.uid_mappings, &self.changes.gid_mappings);
            self.unpacked(client, snapshots, &parent).await?;
            let maps = IdMaps { uids: uids.clone(), gids: gids.clone() };
            (parent, labels) =
                remap::parent(client, snapshots, parent, (maps, self.wanted.run.remap_labels)).await?;
        } else {
            labels.extend(flags::labels(&self.wanted.flags.snapshotter_label));
        }
        match snapshots.prepare(&self.wanted.id, &parent, labels.clone()).await {
            Err(error) if error.is_not_found() => {
                self.unpack(client, snapshots).await?;
                snapshots.prepare(&self.wanted.id, &parent, labels).await
            }
            prepared => prepared,
        }
    }

    async fn unpacked(&self, client: &Client, snapshots: &Arc<RemoteSnapshotter>, chain: &str) -> Result<()> {
        match snapshots.stat(chain).await {
            Err(error) if error.is_not_found() => self.unpack(client, snapshots).await,
            found => found.map(drop),
        }
    }

    async fn unpack(&self, client: &Client, snapshots: &Arc<RemoteSnapshotter>) -> Result<()> {
        let sync = self.wanted.run.sync_fs;
        crate::unpack::unpack(client, snapshots, &self.resolved.manifest, sync).await
    }

    async fn record(&self, client: &Client, snapshotter: &str, rootfs: &[Mount]) -> Result<Container> {
        let namespace = client.namespace().parse()?;
        let view = View::of_mounts(rootfs)?;
        let spec = self.changes.spec(&namespace, Some(&self.resolved.config), Some(&view));
        view.close()?;
        let container = Container {
            labels: self.labels(),
            image: self.image.name.clone(),
            snapshotter: snapshotter.into(),
            snapshot_key: self.wanted.id.clone(),
            ..bare(self.wanted, self.runtime.clone(), encode(&spec?)?)?
        };
        save(client, container).await
    }

    /// The image's labels, then the record's, then those of the command line; and the stop signal.
    fn labels(&self) -> Labels {
        let config = &self.resolved.config.config;
        let mut all = Labels::new();
        for (key, value) in &config.labels {
            if labels::is_reserved(key) {
                log::warn(
                    &format!(
                        "skipping image label {}: the label namespace is reserved for containerd; possible malicious image \
                     attempting to alter containerd behavior",
                        crate::go::quote(key)
                    ),
                    None,
                );
            } else {
                all.insert(key.clone(), value.clone());
            }
        }
        for (key, value) in &self.image.labels {
            match labels::validate(key, value) {
                Ok(()) => drop(all.insert(key.clone(), value.clone())),
                Err(error) => {
                    log::warn(
                        &format!("unable to add image label with key {key} to the container"),
                        Some(&error),
                    );
                }
            }
        }
        all.extend(flags::labels(&self.wanted.flags.label));
        let signal = if config.stop_signal.is_empty() { "SIGTERM" } else { &config.stop_signal };
        all.insert(STOP_SIGNAL_LABEL.into(), signal.into());
        all
    }
}

async fn record_only(client: &Client, wanted: &Wanted, runtime: RuntimeInfo, spec: Any) -> Result<Created> {
    let container = Container { labels: flags::labels(&wanted.flags.label), ..bare(wanted, runtime, spec)? };
    Ok(Created { container: save(client, container).await?, rootfs: Vec::new(), lease: None })
}

fn bare(wanted: &Wanted, runtime: RuntimeInfo, spec: Any) -> Result<Container> {
    let extensions = wanted.run.cni.then(network::extension).transpose()?;
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    Ok(Container {
        id: wanted.id.clone(),
        labels: Labels::new(),
        image: String::new(),
        runtime,
        spec: Some(spec),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        created_at: epoch,
        updated_at: epoch,
        extensions: extensions.into_iter().collect(),
        sandbox: wanted.flags.sandbox.clone(),
    })
}

async fn save(client: &Client, container: Container) -> Result<Container> {
    let mut record = api::convert::container_to_wire(container);
    // The server's clock says when.
    (record.created_at, record.updated_at) = (None, None);
    let request = wire::CreateContainerRequest { container: Some(record) };
    let created = client.containers().create(request).await.map_err(from_status)?.into_inner().container;
    let created = created.ok_or_else(|| Error::internal("containers service answered no container"))?;
    Ok(api::convert::container(created))
}

fn encode(spec: &types::oci::spec::Spec) -> Result<Any> {
    Ok(Any::new(RUNTIME_SPEC, crate::go::json::compact(spec)?))
}
