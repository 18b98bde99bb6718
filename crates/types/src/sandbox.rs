//! A sandbox record: what is known of a group of containers that share an environment (in Kubernetes: a pod), besides its processes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::any::Any;
use crate::container::RuntimeInfo;
use crate::filters::{self, Fields};
use crate::labels::Labels;

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
