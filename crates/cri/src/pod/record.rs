//! A pod as its sandbox record keeps it: the extension that upstream writes, so that either daemon reads the other's.

use api::cri::PodSandboxConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::{Any, Result};

use crate::record;

/// The extension's key.
pub const EXTENSION: &str = "metadata";
/// The label of a sandbox record whose pod is not whole yet.
pub const CREATING: (&str, &str) = ("containerd-rs/creating", "true");
/// The extension's type.
const TYPE: &str = "github.com/containerd/cri/pkg/store/sandbox/Metadata";

/// What does not change about a pod once it is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, namespace, uid and attempt, joined.
    pub name: String,
    /// What the kubelet has asked for.
    pub config: PodSandboxConfig,
    /// Where the network namespace is mounted; empty on the host's network.
    #[serde(rename = "NetNSPath")]
    pub netns: String,
    /// The first address.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The other ones.
    #[serde(rename = "AdditionalIPs", deserialize_with = "api::json::null_is_default")]
    pub additional_ips: Vec<String>,
    /// The runtime handler that was asked for.
    pub runtime_handler: String,
    /// What the network plugins answered.
    #[serde(rename = "CNIResult")]
    pub cni_result: Value,
    /// The SELinux label of its processes.
    pub process_label: String,
}

impl Record {
    /// As an extension.
    pub fn to_any(&self) -> Result<Any> {
        record::pack(self, TYPE, || format!("sandbox {}", self.id))
    }

    /// From an extension.
    pub fn from_any(any: &Any) -> Result<Self> {
        record::unpack(any, "a sandbox")
    }
}
