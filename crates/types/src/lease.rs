//! Leases: what holds resources that nothing else refers to yet.

use std::time::SystemTime;

use crate::labels::Labels;

/// A lease record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Unique within the namespace.
    pub id: String,
    /// User labels; `containerd.io/gc.expire` ends the lease.
    pub labels: Labels,
    /// Set by the database.
    pub created_at: SystemTime,
}

/// Something a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// The digest, ingest reference, snapshot key or image name.
    pub id: String,
    /// `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
    pub kind: String,
}
