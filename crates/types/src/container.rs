//! A container record: everything about a container that is not a process.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::any::Any;
use crate::labels::Labels;

/// Which shim runs a container, and with what options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// A runtime name such as `io.containerd.runc.v2`, or an absolute path of a shim.
    pub name: String,
    /// Passed to the shim untouched.
    pub options: Option<Any>,
}

/// A container record; the task service adds the processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Unique within the namespace.
    pub id: String,
    /// User labels.
    pub labels: Labels,
    /// The image it was made from, for people; nothing depends on it.
    pub image: String,
    /// Which shim, with what options.
    pub runtime: RuntimeInfo,
    /// The OCI runtime spec.
    pub spec: Option<Any>,
    /// Whose snapshot the root filesystem is.
    pub snapshotter: String,
    /// The snapshot's key.
    pub snapshot_key: String,
    /// Set by the database.
    pub created_at: SystemTime,
    /// Set by the database.
    pub updated_at: SystemTime,
    /// Clients' own values.
    pub extensions: BTreeMap<String, Any>,
    /// The sandbox it belongs to, or empty.
    pub sandbox: String,
}
