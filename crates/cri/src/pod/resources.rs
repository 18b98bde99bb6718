//! What UpdatePodSandboxResources has set, as the sandbox record keeps it: the extension that upstream writes.

use api::cri::LinuxContainerResources;
use serde::{Deserialize, Serialize};
use types::{Any, Error, Result};

/// The extension's key.
pub const EXTENSION: &str = "updated-resources";
/// The extension's type.
const TYPE: &str = "io.containerd.cri.v1/UpdatedResources";

/// What was set last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Updated {
    /// What the pod itself needs.
    pub overhead: Option<LinuxContainerResources>,
    /// What its containers need together.
    pub resources: Option<LinuxContainerResources>,
}

impl Updated {
    /// As an extension.
    pub fn to_any(&self) -> Result<Any> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::internal(format!("encode the resources of a sandbox: {e}")))?;
        Ok(Any::new(TYPE, json))
    }

    /// From an extension.
    pub fn from_any(any: &Any) -> Result<Self> {
        serde_json::from_slice(&any.value)
            .map_err(|e| Error::invalid(format!("decode the resources of a sandbox: {e}")))
    }
}
