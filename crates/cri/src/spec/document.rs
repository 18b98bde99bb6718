//! A runtime spec while it is made: the fields that are changed here by name, all others as they were.
//!
//! What we make begins with upstream's default or with an administrator's file, whose unknown fields are kept. Empty lists and
//! texts are left out, as Go leaves them out.

use std::collections::BTreeMap;

use api::json::{is_default, null_is_default};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields that are not ours.
type Rest = Map<String, Value>;

/// `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    #[serde(rename = "ociVersion")]
    pub(super) version: String,
    pub(super) process: Process,
    pub(super) root: Root,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) hostname: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) hooks: Map<String, Value>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) linux: Linux,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Process {
    #[serde(skip_serializing_if = "is_default")]
    pub(super) terminal: bool,
    pub(super) user: User,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) args: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) rlimits: Vec<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) no_new_privileges: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) apparmor_profile: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oom_score_adj: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) selinux_label: String,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// All groups that it is in.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub additional_gids: Vec<u32>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// Capabilities by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) bounding: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) effective: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) inheritable: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) permitted: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) ambient: Vec<String>,
}

/// The root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Root {
    pub(super) path: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) readonly: bool,
}

/// A mount in the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mount {
    pub(super) destination: String,
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) source: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) options: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) gid_mappings: Vec<IdMapping>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A range of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(super) container: u32,
    #[serde(rename = "hostID")]
    pub(super) host: u32,
    pub(super) size: u32,
}

/// What only Linux has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Linux {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) sysctl: BTreeMap<String, String>,
    pub(super) resources: Resources,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) cgroups_path: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) devices: Vec<Device>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) seccomp: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) rootfs_propagation: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) masked_paths: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) readonly_paths: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) mount_label: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) intel_rdt: Value,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A namespace to make, or to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) path: String,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Device {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: i64,
    pub(super) minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gid: Option<u32>,
}

/// Limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resources {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) devices: Vec<DeviceRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu: Option<Cpu>,
    #[serde(rename = "blockIO", skip_serializing_if = "is_default")]
    pub(super) block_io: Value,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) hugepage_limits: Vec<HugepageLimit>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub(super) unified: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A rule of the device cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DeviceRule {
    pub(super) allow: bool,
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) major: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minor: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) access: String,
}

/// Memory limits in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<i64>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// Processor limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) period: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) cpus: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) mems: String,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A limit of huge pages in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HugepageLimit {
    #[serde(rename = "pageSize")]
    pub(super) page_size: String,
    pub(super) limit: u64,
}

impl Document {
    /// The capabilities, none where nothing is said.
    pub(super) fn capabilities(&mut self) -> &mut Capabilities {
        self.process.capabilities.get_or_insert_default()
    }

    /// Joins or makes a namespace in the place of the one of its kind.
    pub(super) fn namespace(&mut self, kind: &str, path: String) {
        let new = Namespace { kind: kind.to_owned(), path };
        match self.linux.namespaces.iter_mut().find(|namespace| namespace.kind == kind) {
            Some(namespace) => *namespace = new,
            None => self.linux.namespaces.push(new),
        }
    }

    /// Uses the host's namespace of this kind.
    pub(super) fn without_namespace(&mut self, kind: &str) {
        self.linux.namespaces.retain(|namespace| namespace.kind != kind);
    }

    /// Removes what is mounted at `destination`.
    pub(super) fn without_mount(&mut self, destination: &str) {
        self.mounts.retain(|mount| super::path::clean(&mount.destination) != destination);
    }

    /// Sets environment variables.
    pub(super) fn env(&mut self, changes: &[String]) {
        self.process.env = types::oci::spec::merge_env(&self.process.env, changes);
    }

    /// Notes something for the runtime and its hooks.
    pub(super) fn annotate(&mut self, key: &str, value: impl Into<String>) {
        self.annotations.insert(key.to_owned(), value.into());
    }
}
