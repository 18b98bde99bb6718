//! What a snapshotter says about its snapshots.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::filters::{self, Fields};
use crate::labels::Labels;

/// The three kinds of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Read-only use of a committed snapshot.
    View,
    /// Writable; becomes committed, or is removed.
    Active,
    /// Immutable; may have children.
    Committed,
}

impl Kind {
    /// The word filters and listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// See [`Kind`].
    pub kind: Kind,
    /// Its key (active, view) or name (committed).
    pub name: String,
    /// The committed snapshot below, or empty.
    pub parent: String,
    /// Labels.
    pub labels: Labels,
    /// When it was made.
    pub created_at: SystemTime,
    /// When its labels last changed, or it was committed.
    pub updated_at: SystemTime,
}

/// What a snapshot itself occupies, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Inodes.
    pub inodes: u64,
    /// Bytes on disk.
    pub size: u64,
}

impl Fields for Info {
    /// `kind` (a word), `name`, `parent`, `labels.<key>`.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "kind" => Some(self.kind.name().into()),
            "name" => Some(self.name.as_str().into()),
            "parent" => Some(self.parent.as_str().into()),
            "labels" => filters::label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}
