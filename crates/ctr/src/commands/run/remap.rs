//! Root filesystems for user namespaces: shifted by the snapshotter where it can, or by a snapshot of their own whose
//! files were given away.

use api::containerd::services::introspection::v1::PluginsRequest;
use remote::{RemoteSnapshotter, from_status};
use snapshots::shift::{self, IdMaps, Owners};
use types::{Error, Labels, Result};

use crate::client::Client;

/// The snapshot to prepare on instead of `parent`, and the labels to prepare it with. It is left to the snapshotter, if it
/// can, only `by_labels` (`--remap-labels`).
pub async fn parent(
    client: &Client,
    snapshots: &RemoteSnapshotter,
    parent: String,
    (maps, by_labels): (IdMaps, bool),
) -> Result<(String, Labels)> {
    if !by_labels {
        return Ok((shift::copy(snapshots, &parent, maps).await?, Labels::new()));
    }
    let labels = maps.labels();
    match Owners::of(&capabilities(client, snapshots.name()).await?) {
        Owners::Shifted => Ok((parent, labels)),
        Owners::Copied => Ok((shift::copy(snapshots, &parent, maps).await?, labels)),
        Owners::Refused => Err(shift::refused(snapshots.name())),
    }
}

async fn capabilities(client: &Client, snapshotter: &str) -> Result<Vec<String>> {
    let filter = format!("type==io.containerd.snapshotter.v1, id=={snapshotter}");
    let request = PluginsRequest { filters: vec![filter] };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    let missing = || Error::not_found(format!("snapshotter {snapshotter} is not loaded: not found"));
    Ok(plugins.into_iter().next().ok_or_else(missing)?.capabilities)
}
