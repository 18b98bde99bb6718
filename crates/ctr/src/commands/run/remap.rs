//! Root filesystems for user namespaces: shifted by the snapshotter where it can, or by a snapshot of their own whose
//! files were given away.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use api::containerd::services::introspection::v1::PluginsRequest;
use remote::{RemoteSnapshotter, from_status};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use serde::Serialize;
use snapshots::Snapshotter;
use sys::mount::TempMount;
use types::oci::spec::IdMapping;
use types::{Digest, Error, Labels, Result};

use crate::client::Client;
use crate::go;

const UID_LABEL: &str = "containerd.io/snapshot/uidmapping";
const GID_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// How ids are shifted.
pub struct Mapping<'a> {
    /// Of users.
    pub uids: &'a [IdMapping],
    /// Of groups.
    pub gids: &'a [IdMapping],
    /// Leave it to the snapshotter (`--remap-labels`).
    pub by_labels: bool,
}

/// The snapshot to prepare on instead of `parent`, and the labels to prepare it with.
pub async fn parent(
    client: &Client,
    snapshots: &RemoteSnapshotter,
    parent: String,
    mapping: Mapping<'_>,
) -> Result<(String, Labels)> {
    if mapping.by_labels {
        let labels = Labels::from([
            (UID_LABEL.to_owned(), label(mapping.uids)),
            (GID_LABEL.to_owned(), label(mapping.gids)),
        ]);
        let capabilities = capabilities(client, snapshots.name()).await?;
        let can = |name: &str| capabilities.iter().any(|capability| capability == name);
        if can("remap-ids") {
            return Ok((parent, labels));
        }
        if can("only-remap-ids") {
            return Err(Error::unknown(format!(
                "snapshotter {} doesn't support idmap mounts on this host, configure `slow_chown` to allow a slower \
                 and expensive fallback",
                go::quote(snapshots.name())
            )));
        }
        return Ok((shifted(snapshots, &parent, &mapping).await?, labels));
    }
    Ok((shifted(snapshots, &parent, &mapping).await?, Labels::new()))
}

fn label(mappings: &[IdMapping]) -> String {
    let texts = mappings.iter().map(|m| format!("{}:{}:{}", m.container, m.host, m.size));
    texts.collect::<Vec<_>>().join(",")
}

async fn capabilities(client: &Client, snapshotter: &str) -> Result<Vec<String>> {
    let filter = format!("type==io.containerd.snapshotter.v1, id=={snapshotter}");
    let request = PluginsRequest { filters: vec![filter] };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    let missing = || Error::not_found(format!("snapshotter {snapshotter} is not loaded: not found"));
    Ok(plugins.into_iter().next().ok_or_else(missing)?.capabilities)
}

/// The name under which everybody looks for the shifted form of a snapshot: upstream hashes this.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key<'a> {
    parent: &'a str,
    #[serde(rename = "IDMap")]
    map: Map,
}

#[derive(Serialize)]
struct Map {
    #[serde(rename = "UidMap")]
    uids: Vec<IdMapping>,
    #[serde(rename = "GidMap")]
    gids: Vec<IdMapping>,
}

async fn shifted(snapshots: &RemoteSnapshotter, parent: &str, mapping: &Mapping<'_>) -> Result<String> {
    let sorted = |mappings: &[IdMapping]| {
        let mut sorted = mappings.to_vec();
        sorted.sort_by_key(|mapping| mapping.container);
        sorted
    };
    let map = Map { uids: sorted(mapping.uids), gids: sorted(mapping.gids) };
    let key = Key { parent, map };
    let name = Digest::of(go::json::compact(&key)?.as_bytes()).to_string();
    match snapshots.stat(&name).await {
        Ok(_) => return Ok(name),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let active = format!("{name}-remap");
    let mounts = snapshots.prepare(&active, parent, Labels::new()).await?;
    let shift = move || -> Result<()> {
        let mounted = TempMount::new(&mounts)?;
        give_away(mounted.path(), &key.map)?;
        mounted.close()
    };
    let done = match shift() {
        Ok(()) => snapshots.commit(&name, &active, None, Labels::new()).await,
        failed => failed,
    };
    if let Err(error) = done {
        snapshots.remove(&active).await.ok();
        return Err(error);
    }
    Ok(name)
}

/// Gives everything below `root` to the ids that the container's are outside. Links are not followed.
fn give_away(root: &Path, map: &Map) -> Result<()> {
    let mut directories = vec![root.to_path_buf()];
    shift_one(root, map)?;
    while let Some(directory) = directories.pop() {
        let failed = |e| go::path_error("open", &directory, e);
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            shift_one(&entry.path(), map)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

fn shift_one(path: &Path, map: &Map) -> Result<()> {
    let metadata = std::fs::symlink_metadata(path).map_err(|e| go::path_error("lstat", path, e))?;
    let uid = Uid::from_raw(to_host(&map.uids, metadata.uid())?);
    let gid = Gid::from_raw(to_host(&map.gids, metadata.gid())?);
    let failed = |errno: rustix::io::Errno| go::path_error("lchown", path, errno.into());
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    // The kernel drops these at chown.
    if !metadata.is_symlink() && metadata.mode() & 0o7000 != 0 {
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

fn to_host(mappings: &[IdMapping], id: u32) -> Result<u32> {
    let found = mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container).filter(|offset| *offset < mapping.size)?;
        mapping.host.checked_add(offset)
    });
    found.ok_or_else(|| Error::invalid(format!("container ID {id} cannot be mapped to a host ID")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_of_the_ranges_have_no_owner() {
        let map = [IdMapping { container: 0, host: 1000, size: 10 }];
        assert_eq!(to_host(&map, 3).unwrap(), 1003);
        assert!(to_host(&map, 10).is_err());
    }

    #[test]
    fn the_name_of_a_shifted_snapshot_is_the_one_upstream_computes() {
        let uids = vec![IdMapping { container: 0, host: 1000, size: 10 }];
        let key = Key { parent: "sha256:a", map: Map { uids: uids.clone(), gids: uids } };
        let wanted = r#"{"Parent":"sha256:a","IDMap":{"UidMap":[{"containerID":0,"hostID":1000,"size":10}],"GidMap":[{"containerID":0,"hostID":1000,"size":10}]}}"#;
        assert_eq!(go::json::compact(&key).unwrap(), wanted);
    }
}
