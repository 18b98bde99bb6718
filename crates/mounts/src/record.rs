//! What is known of an activation, and its file.
//!
//! The file is JSON with a version. A newer version than ours is refused: its mounts could not be taken back by rules that
//! we do not know.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use types::mount::Mount;
use types::{Error, Labels, Result, ResultExt};

/// The version that is written.
const VERSION: u32 = 1;

/// A mount that the daemon keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// What was mounted, its templates filled in.
    pub mount: Mount,
    /// When.
    pub mounted_at: SystemTime,
    /// Where; for a device a link to it.
    pub mount_point: String,
}

/// A list of mounts that was activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Unique in its namespace.
    pub name: String,
    /// What the daemon mounted.
    pub active: Vec<Active>,
    /// What is left to do for whoever uses the filesystem.
    pub system: Vec<Mount>,
    /// Labels, such as back references of the garbage collector.
    pub labels: Labels,
}

/// An activation with what only we need to know.
#[derive(Clone, Debug)]
pub struct Record {
    /// Never used twice: names the directory of the mount points.
    pub id: u64,
    /// Whose it is.
    pub namespace: String,
    /// The lease that holds it.
    pub lease: Option<String>,
    /// Everything is mounted. If not, the daemon ended on the way.
    pub complete: bool,
    /// What others see.
    pub activation: Activation,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    id: u64,
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    complete: bool,
    #[serde(default)]
    active: Vec<ActiveEntry>,
    #[serde(default)]
    system: Vec<MountEntry>,
}

#[derive(Serialize, Deserialize)]
struct ActiveEntry {
    mount: MountEntry,
    mounted_at: (i64, u32),
    mount_point: String,
}

#[derive(Serialize, Deserialize)]
struct MountEntry {
    #[serde(rename = "type")]
    kind: String,
    source: String,
    target: String,
    options: Vec<String>,
}

impl From<Mount> for MountEntry {
    fn from(mount: Mount) -> Self {
        Self { kind: mount.kind, source: mount.source, target: mount.target, options: mount.options }
    }
}

impl From<MountEntry> for Mount {
    fn from(entry: MountEntry) -> Self {
        Self { kind: entry.kind, source: entry.source, target: entry.target, options: entry.options }
    }
}

impl Record {
    /// Writes the record so that it outlives the daemon.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Activation { name, active, system, labels } = self.activation.clone();
        let active = active.into_iter().map(|active| ActiveEntry {
            mount: active.mount.into(),
            mounted_at: types::time::unix(active.mounted_at),
            mount_point: active.mount_point,
        });
        let file = File {
            version: VERSION,
            id: self.id,
            namespace: self.namespace.clone(),
            name,
            lease: self.lease.clone(),
            labels,
            complete: self.complete,
            active: active.collect(),
            system: system.into_iter().map(MountEntry::from).collect(),
        };
        let bytes = serde_json::to_vec(&file).map_err(|e| Error::internal(format!("write {path:?}: {e}")))?;
        sys::fs::atomic_write(path, &bytes, 0o600)
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context(|| format!("read {path:?}"))?;
        let file: File =
            serde_json::from_slice(&bytes).map_err(|e| Error::data_loss(format!("read {path:?}: {e}")))?;
        if file.version > VERSION {
            return Err(Error::precondition(format!(
                "read {path:?}: version {} is newer than ours ({VERSION})",
                file.version
            )));
        }
        let active = file.active.into_iter().map(|entry| Active {
            mount: entry.mount.into(),
            mounted_at: types::time::from_unix(entry.mounted_at.0, entry.mounted_at.1),
            mount_point: entry.mount_point,
        });
        let activation = Activation {
            name: file.name,
            active: active.collect(),
            system: file.system.into_iter().map(Mount::from).collect(),
            labels: file.labels,
        };
        let (id, namespace, lease, complete) = (file.id, file.namespace, file.lease, file.complete);
        Ok(Self { id, namespace, lease, complete, activation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_newer_one_refused() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("7.json");
        let mount = Mount {
            kind: "ext4".to_owned(),
            source: "/dev/loop0".to_owned(),
            target: "sub".to_owned(),
            options: vec!["ro".to_owned()],
        };
        let mounted_at = types::time::from_unix(1_700_000_000, 5);
        let active = vec![Active { mount: mount.clone(), mounted_at, mount_point: "/t/7/0".to_owned() }];
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let activation = Activation { name: "n".to_owned(), active, system: vec![mount], labels };
        let lease = Some("l".to_owned());
        let record = Record { id: 7, namespace: "ns".to_owned(), lease, complete: true, activation };
        record.write(&path).unwrap();
        let read = Record::read(&path).unwrap();
        assert_eq!(read.activation, record.activation);
        assert_eq!(
            (read.id, read.namespace, read.lease, read.complete),
            (7, "ns".into(), record.lease, true)
        );
        let newer = std::fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":2");
        std::fs::write(&path, newer).unwrap();
        assert_eq!(Record::read(&path).unwrap_err().class(), types::Class::FailedPrecondition);
    }
}
