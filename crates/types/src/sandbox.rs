//! A sandbox record: what is known of a group of containers that share an environment (in Kubernetes: a pod), besides its processes.
//! And what is asked of whoever makes sandboxes (a shim, a sandboxer in another process), and answered.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::any::Any;
use crate::container::RuntimeInfo;
use crate::filters::{self, Fields};
use crate::labels::Labels;
use crate::mount::Mount;
use crate::task::Endpoint;

/// A sandbox record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Unique within the namespace.
    pub id: String,
    /// Which shim, with what options.
    pub runtime: RuntimeInfo,
    /// For the sandboxer.
    pub spec: Option<Any>,
    /// User labels.
    pub labels: Labels,
    /// Set by the database.
    pub created_at: SystemTime,
    /// Set by the database.
    pub updated_at: SystemTime,
    /// Clients' own values.
    pub extensions: BTreeMap<String, Any>,
    /// Who makes and ends it: `podsandbox`, `shim`, or a plugin.
    pub sandboxer: String,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            id: String::new(),
            runtime: RuntimeInfo::default(),
            spec: None,
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: BTreeMap::new(),
            sandboxer: String::new(),
        }
    }
}

/// What a sandbox is made with besides its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Making {
    /// Mounts of the root filesystem.
    pub rootfs: Vec<Mount>,
    /// What the front door wants the sandboxer to know, in Kubernetes a PodSandboxConfig.
    pub options: Option<Any>,
    /// The path of the network namespace, or empty.
    pub netns: String,
    /// For the sandboxer, untouched.
    pub annotations: Labels,
}

/// A sandbox that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Of the process that holds its namespaces.
    pub pid: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// What is to be in its record.
    pub labels: Labels,
    /// What its sandboxer says about it.
    pub spec: Option<Any>,
    /// Where tasks in it are made; no address if nobody says so.
    pub endpoint: Endpoint,
}

/// What is said about a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of the process that holds its namespaces.
    pub pid: u32,
    /// In Kubernetes' words: `SANDBOX_READY` or `SANDBOX_NOTREADY`.
    pub state: String,
    /// More, for people.
    pub info: Labels,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it ended.
    pub exited_at: SystemTime,
    /// More, for those who know the type.
    pub extra: Option<Any>,
    /// As of [`Started`].
    pub endpoint: Endpoint,
}

impl Status {
    /// Whether it runs.
    pub fn is_ready(&self) -> bool {
        self.state == "SANDBOX_READY"
    }
}

/// What a sandbox uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// When it was measured.
    pub at: SystemTime,
    /// In the sandboxer's terms.
    pub data: Option<Any>,
}

impl Fields for Sandbox {
    /// `id`, `labels.<key>`.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "id" => Some(self.id.as_str().into()),
            "labels" => filters::label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}
