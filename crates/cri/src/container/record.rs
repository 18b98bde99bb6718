//! A container as its record keeps it: the extension that upstream writes, so that either daemon reads the other's.

use api::cri::ContainerConfig;
use serde::{Deserialize, Serialize};
use types::{Any, Result};

use crate::record;

/// The extension's key.
pub const EXTENSION: &str = "io.cri-containerd.container.metadata";
/// The extension's type.
const TYPE: &str = "github.com/containerd/cri/pkg/store/container/Metadata";

/// What does not change about a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Container, pod, namespace, uid and attempt, joined.
    pub name: String,
    /// The pod.
    #[serde(rename = "SandboxID")]
    pub pod: String,
    /// What the kubelet has asked for. Limits may have changed since.
    pub config: ContainerConfig,
    /// The image's id: the digest of its configuration.
    pub image_ref: String,
    /// The log, or empty.
    pub log_path: String,
    /// By name.
    pub stop_signal: String,
    /// The SELinux label of its processes.
    pub process_label: String,
}

impl Record {
    /// As an extension.
    pub fn to_any(&self) -> Result<Any> {
        record::pack(self, TYPE, || format!("container {}", self.id))
    }

    /// From an extension.
    pub fn from_any(any: &Any) -> Result<Self> {
        record::unpack(any, "a container")
    }
}
