//! Files for user namespaces: they belong to whom their owners are outside.
//!
//! ```text
//!  the snapshotter shifts owners when it is mounted     the labels say how, nothing is to be done
//!  it does not                                          a copy of the parent whose files are given away, made once for
//!                                                       each parent and map; what is prepared on it is right at once
//! ```

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use serde::Serialize;
use sys::mount::TempMount;
use types::mount::Mount;
use types::oci::spec::IdMapping;
use types::{Digest, Error, Labels, Result, ResultExt};

use crate::Snapshotter;
use crate::blocking::blocking;

/// On a snapshot: whose root owns its root, as `container:host:size`, comma separated.
pub const UID_MAPPING: &str = "containerd.io/snapshot/uidmapping";
/// The same for groups.
pub const GID_MAPPING: &str = "containerd.io/snapshot/gidmapping";

/// Shifts owners by itself where labels say so.
pub const REMAP_IDS: &str = "remap-ids";
/// Is not to be used with copies.
pub const ONLY_REMAP_IDS: &str = "only-remap-ids";

/// How the files of a snapshotter come to belong to the users of a user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// It shifts them when a snapshot with the labels is mounted.
    Shifted,
    /// By a copy whose files are given away.
    #[default]
    Copied,
    /// It does not shift them, and the administrator has not allowed a copy, which takes the time and space of an image.
    Refused,
}

impl Owners {
    /// What the capabilities of a snapshotter's plugin say.
    pub fn of(capabilities: &[impl AsRef<str>]) -> Self {
        let has = |name: &str| capabilities.iter().any(|capability| capability.as_ref() == name);
        match (has(REMAP_IDS), has(ONLY_REMAP_IDS)) {
            (true, _) => Self::Shifted,
            (false, true) => Self::Refused,
            (false, false) => Self::Copied,
        }
    }
}

/// The ids of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdMaps {
    /// Of users.
    #[serde(rename = "UidMap")]
    pub uids: Vec<IdMapping>,
    /// Of groups.
    #[serde(rename = "GidMap")]
    pub gids: Vec<IdMapping>,
}

impl IdMaps {
    /// What the labels of a snapshot say; none if they say nothing of it.
    pub fn of(labels: &Labels) -> Result<Option<Self>> {
        let (uids, gids) = match (labels.get(UID_MAPPING), labels.get(GID_MAPPING)) {
            (None, None) => return Ok(None),
            (uids, gids) => (uids.map_or("", String::as_str), gids.map_or("", String::as_str)),
        };
        let parsed = parse(uids).zip(parse(gids)).map(|(uids, gids)| Self { uids, gids });
        let error = || Error::invalid(format!("failed to parse id mappings {uids:?} and {gids:?}"));
        parsed.map(Some).ok_or_else(error)
    }

    /// As labels of a snapshot.
    pub fn labels(&self) -> Labels {
        let text = |maps: &[IdMapping]| {
            let texts = maps.iter().map(|map| format!("{}:{}:{}", map.container, map.host, map.size));
            texts.collect::<Vec<_>>().join(",")
        };
        [(UID_MAPPING, &self.uids), (GID_MAPPING, &self.gids)]
            .map(|(key, maps)| (key.into(), text(maps)))
            .into()
    }

    /// The user and group that root is outside.
    pub fn root(&self) -> Result<(u32, u32)> {
        Ok((to_host(&self.uids, 0)?, to_host(&self.gids, 0)?))
    }
}

fn parse(text: &str) -> Option<Vec<IdMapping>> {
    let map = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
        let map = IdMapping { container: numbers.next()??, host: numbers.next()??, size: numbers.next()?? };
        numbers.next().is_none().then_some(map)
    };
    text.split(',').filter(|text| !text.is_empty()).map(map).collect()
}

fn to_host(maps: &[IdMapping], id: u32) -> Result<u32> {
    let found = maps.iter().find_map(|map| {
        let offset = id.checked_sub(map.container).filter(|offset| *offset < map.size)?;
        map.host.checked_add(offset)
    });
    found.ok_or_else(|| Error::invalid(format!("container ID {id} cannot be mapped to a host ID")))
}

/// The snapshot to prepare on instead of `parent`, for a snapshot with these labels of the snapshotter `name`. A copy that
/// is made is held by the scope of `snapshots`.
pub async fn parent(
    snapshots: &dyn Snapshotter,
    name: &str,
    parent: &str,
    labels: &Labels,
) -> Result<String> {
    let Some(maps) = IdMaps::of(labels)? else { return Ok(parent.to_owned()) };
    match snapshots.owners() {
        Owners::Shifted => Ok(parent.to_owned()),
        Owners::Copied => copy(snapshots, parent, maps).await,
        Owners::Refused => Err(refused(name)),
    }
}

/// Says that owners cannot be shifted, and what can be done.
pub fn refused(name: &str) -> Error {
    Error::unknown(format!(
        "snapshotter {name:?} doesn't support idmap mounts on this host, configure `slow_chown` to allow a slower \
         and expensive fallback"
    ))
}

/// What upstream hashes for the name of a copy; everybody finds it by that.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key<'a> {
    parent: &'a str,
    #[serde(rename = "IDMap")]
    maps: IdMaps,
}

impl Key<'_> {
    fn name(&self) -> Result<String> {
        let json =
            serde_json::to_vec(self).map_err(|e| Error::internal(format!("encode id mappings: {e}")))?;
        Ok(Digest::of(&json).to_string())
    }
}

/// The copy of `parent` whose files belong to whom they belong outside; made if it is not there. If that fails, nothing
/// of it is left.
pub async fn copy(snapshots: &dyn Snapshotter, parent: &str, mut maps: IdMaps) -> Result<String> {
    maps.uids.sort_by_key(|map| map.container);
    maps.gids.sort_by_key(|map| map.container);
    let key = Key { parent, maps };
    let name = key.name()?;
    match snapshots.stat(&name).await {
        Ok(_) => return Ok(name),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let active = unique(&name);
    let mounts = snapshots.prepare(&active, parent, Labels::new()).await?;
    let done = match give_away(mounts, key.maps).await {
        Ok(()) => snapshots.commit(&name, &active, None, Labels::new()).await,
        failed => failed,
    };
    let Err(error) = done else { return Ok(name) };
    let removed = snapshots.remove(&active).await;
    // Somebody else was faster.
    if error.is_already_exists() {
        return removed.map(|()| name);
    }
    Err(error.context(format!("give the files of {parent} to users of a user namespace")))
}

/// Several may make the same copy at a time; what one that was killed has left is in nobody's way.
fn unique(name: &str) -> String {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let count = COPIES.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{name}-remap-{}-{now}-{count}", std::process::id())
}

async fn give_away(mounts: Vec<Mount>, maps: IdMaps) -> Result<()> {
    blocking(move || {
        let mounted = TempMount::new(&mounts)?;
        let given = give_all_away(mounted.path(), &maps);
        mounted.close().and(given)
    })
    .await
}

/// Gives everything from `root` on to its owners outside. Links are not followed.
fn give_all_away(root: &Path, maps: &IdMaps) -> Result<()> {
    let mut directories = vec![root.to_path_buf()];
    give_one_away(root, maps)?;
    while let Some(directory) = directories.pop() {
        let what = || format!("read directory {directory:?}");
        for entry in std::fs::read_dir(&directory).context(what)? {
            let path = entry.context(what)?.path();
            if give_one_away(&path, maps)?.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(())
}

fn give_one_away(path: &Path, maps: &IdMaps) -> Result<Metadata> {
    let what = || format!("change the owner of {path:?}");
    let metadata = std::fs::symlink_metadata(path).context(what)?;
    let uid = Uid::from_raw(to_host(&maps.uids, metadata.uid()).map_err(|e| e.context(what()))?);
    let gid = Gid::from_raw(to_host(&maps.gids, metadata.gid()).map_err(|e| e.context(what()))?);
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(std::io::Error::from)
        .context(what)?;
    // The kernel drops these when the owner changes.
    if !metadata.is_symlink() && metadata.mode() & 0o7000 != 0 {
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).map_err(std::io::Error::from).context(what)?;
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::native::Native;

    fn map(host: u32, size: u32) -> Vec<IdMapping> {
        vec![IdMapping { container: 0, host, size }]
    }

    #[test]
    fn ids_outside_of_the_ranges_have_no_owner() {
        assert_eq!(to_host(&map(1000, 10), 3).unwrap(), 1003);
        assert!(to_host(&map(1000, 10), 10).is_err());
    }

    #[test]
    fn labels_say_maps_and_back() {
        let maps = IdMaps { uids: map(1000, 10), gids: [map(7, 1), map(8, 2)].concat() };
        assert_eq!(IdMaps::of(&maps.labels()).unwrap().unwrap(), maps);
        assert_eq!(maps.root().unwrap(), (1000, 7));
        assert_eq!(IdMaps::of(&Labels::new()).unwrap(), None);
        for wrong in ["0:1", "0:1:2:3", "0:-1:2", "a:b:c", "0:1:4294967296"] {
            let labels = Labels::from([(UID_MAPPING.to_owned(), wrong.to_owned())]);
            assert!(IdMaps::of(&labels).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_of_a_copy_is_the_one_upstream_computes() {
        let maps = IdMaps { uids: map(1000, 10), gids: map(1000, 10) };
        let key = Key { parent: "sha256:a", maps };
        let wanted = r#"{"Parent":"sha256:a","IDMap":{"UidMap":[{"containerID":0,"hostID":1000,"size":10}],"GidMap":[{"containerID":0,"hostID":1000,"size":10}]}}"#;
        assert_eq!(serde_json::to_string(&key).unwrap(), wanted);
    }

    #[test]
    fn capabilities_say_how_files_get_their_owners() {
        assert_eq!(Owners::of(&["rebase", REMAP_IDS, ONLY_REMAP_IDS]), Owners::Shifted);
        assert_eq!([Owners::of(&[REMAP_IDS]), Owners::of(&["rebase"])], [Owners::Shifted, Owners::Copied]);
        assert_eq!(Owners::of(&[ONLY_REMAP_IDS]), Owners::Refused);
    }

    /// A snapshot whose files belong to ids 0 and 5, on a snapshotter that cannot shift them.
    async fn base(dir: &Path) -> std::sync::Arc<Native> {
        let native = Native::open(dir.join("native")).unwrap();
        let mounts = native.prepare("active", "", Labels::new()).await.unwrap();
        let files = Path::new(&mounts[0].source);
        std::fs::create_dir(files.join("dir")).unwrap();
        std::fs::write(files.join("dir/file"), b"x").unwrap();
        std::os::unix::fs::lchown(files.join("dir/file"), Some(5), Some(6)).unwrap();
        std::fs::set_permissions(files.join("dir/file"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink("/nowhere", files.join("link")).unwrap();
        native.commit("base", "active", None, Labels::new()).await.unwrap();
        native
    }

    async fn names(native: &Native) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |info: types::snapshot::Info| {
            names.push(info.name);
            Ok(())
        };
        native.walk(&types::filters::Filters::default(), &mut add).await.unwrap();
        names
    }

    #[tokio::test]
    async fn a_copy_belongs_to_the_users_of_its_namespace_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let native = base(dir.path()).await;
        let maps = IdMaps { uids: map(100_000, 10), gids: map(200_000, 10) };
        let made = parent(&*native, "native", "base", &maps.labels()).await.unwrap();
        assert_eq!(parent(&*native, "native", "base", &maps.labels()).await.unwrap(), made);
        assert_eq!(names(&native).await.len(), 2);

        let mounts = native.prepare("container", &made, maps.labels()).await.unwrap();
        let of = |name: &str| {
            let found = std::fs::symlink_metadata(Path::new(&mounts[0].source).join(name)).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(of("dir/file"), (100_005, 200_006, 0o4755));
        assert_eq!(of("link"), (100_000, 200_000, 0o777));
        assert_eq!((of("dir").0, of("").0), (100_000, 100_000));
        // Without labels nothing is another's.
        assert_eq!(parent(&*native, "native", "base", &Labels::new()).await.unwrap(), "base");
    }

    #[tokio::test]
    async fn what_cannot_be_given_away_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let native = base(dir.path()).await;
        let few = IdMaps { uids: map(100_000, 2), gids: map(100_000, 10) };
        let error = parent(&*native, "native", "base", &few.labels()).await.unwrap_err();
        assert!(error.to_string().contains("container ID 5 cannot be mapped"), "{error}");
        assert_eq!(names(&native).await, ["base"]);
    }
}
