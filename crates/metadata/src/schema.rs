//! What stands where in the database.
//!
//! The nesting is upstream's (`core/metadata/buckets.go`): namespace / kind / id. A nested bucket there is a tuple of
//! strings here, in the same order, so that a namespace, a snapshotter, a lease are contiguous ranges of a table.
//!
//! ```text
//!  table            key                                   value (field 1 of each record: its version)
//!  format           "format"                              product, format version, server uuid, generation
//!  namespaces       namespace                             labels
//!  containers       namespace, id                         labels, image, runtime{name, options}, spec, snapshotter,
//!                                                         snapshot key, sandbox, extensions, created, updated
//!  sandboxes        namespace, id                         labels, runtime{name, options}, spec, sandboxer, extensions,
//!                                                         created, updated
//!  images           namespace, name                       labels, target{media type, digest, size, annotations},
//!                                                         created, updated
//!  leases           namespace, id                         labels, created
//!  lease_resources  namespace, lease, kind, id            -        kind: content | images | ingests | snapshots/<sn>
//!  blobs            namespace, digest                     size, labels, created, updated
//!  ingests          namespace, reference                  backend reference, shares, becomes, expires
//!  snapshots        namespace, snapshotter, key           backend key, parent, labels, created, updated, commit intent
//!
//!  indexes (rebuilt from the rows above if ever in doubt)
//!  blob_holders     digest, namespace                     -        which namespaces have a blob
//!  children         namespace, snapshotter, parent, key   -        which snapshots stand on one
//!
//!  intents
//!  dead             "blob" | "ingest", digest or          -        the row is gone, the file may still be there
//!                   backend reference
//! ```
//!
//! Upstream's table for mounts is `mounts`' own; a table that an older program does not know is left alone by it. Changing the shape of a key, or the meaning of a table, raises [`FORMAT`].
//!
//! What belongs to a namespace is named in the backends `<namespace>/<n>/<key>`, as upstream does. `n` is
//! `generation << 40 | counter`; the generation is raised, durably, each time the database is opened. So a name is
//! never used twice, and what an earlier life of the daemon left behind can be told from what is being made now.

use std::marker::PhantomData;

use prost::Message;
use redb::TableDefinition;

use crate::containers::ContainerRecord;
use crate::content::{BlobRecord, IngestRecord};
use crate::images::ImageRecord;
use crate::leases::LeaseRecord;
use crate::namespaces::NamespaceRecord;
use crate::record::record;
use crate::sandboxes::SandboxRecord;
use crate::snapshots::SnapshotRecord;

/// The version of the layout drawn above.
pub(crate) const FORMAT: u32 = 1;
/// Whose database it is.
pub(crate) const PRODUCT: &str = "containerd-rs";

/// Key of two strings.
pub(crate) type Pair = (&'static str, &'static str);
/// Key of three strings.
pub(crate) type Triple = (&'static str, &'static str, &'static str);
/// Key of four strings.
pub(crate) type Quad = (&'static str, &'static str, &'static str, &'static str);

/// A table of records of type `R`.
pub(crate) struct Rows<K: redb::Key + 'static, R> {
    pub(crate) table: TableDefinition<'static, K, &'static [u8]>,
    record: PhantomData<fn() -> R>,
}

impl<K: redb::Key + 'static, R> Clone for Rows<K, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: redb::Key + 'static, R> Copy for Rows<K, R> {}

const fn rows<K: redb::Key + 'static, R>(name: &'static str) -> Rows<K, R> {
    Rows { table: TableDefinition::new(name), record: PhantomData }
}

/// A table of keys.
pub(crate) type Index<K> = TableDefinition<'static, K, ()>;

pub(crate) const FORMATS: Rows<&'static str, FormatRecord> = rows("format");
pub(crate) const NAMESPACES: Rows<&'static str, NamespaceRecord> = rows("namespaces");
pub(crate) const CONTAINERS: Rows<Pair, ContainerRecord> = rows("containers");
pub(crate) const SANDBOXES: Rows<Pair, SandboxRecord> = rows("sandboxes");
pub(crate) const IMAGES: Rows<Pair, ImageRecord> = rows("images");
pub(crate) const LEASES: Rows<Pair, LeaseRecord> = rows("leases");
pub(crate) const LEASE_RESOURCES: Index<Quad> = Index::new("lease_resources");
pub(crate) const BLOBS: Rows<Pair, BlobRecord> = rows("blobs");
pub(crate) const BLOB_HOLDERS: Index<Pair> = Index::new("blob_holders");
pub(crate) const INGESTS: Rows<Pair, IngestRecord> = rows("ingests");
pub(crate) const SNAPSHOTS: Rows<Triple, SnapshotRecord> = rows("snapshots");
pub(crate) const CHILDREN: Index<Quad> = Index::new("children");
pub(crate) const DEAD: Index<Pair> = Index::new("dead");

/// The tables whose rows refer to others or can be collected: those that a collection knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Leases,
    LeaseResources,
    Images,
    Containers,
    Sandboxes,
    Ingests,
    Blobs,
    Snapshots,
}

impl Table {
    /// The table called `name`, if a collection knows it.
    pub(crate) fn called(name: &str) -> Option<Self> {
        Some(match name {
            "leases" => Self::Leases,
            "lease_resources" => Self::LeaseResources,
            "images" => Self::Images,
            "containers" => Self::Containers,
            "sandboxes" => Self::Sandboxes,
            "ingests" => Self::Ingests,
            "blobs" => Self::Blobs,
            "snapshots" => Self::Snapshots,
            _ => return None,
        })
    }
}

/// The only record of `format`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FormatRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(string, tag = "2")]
    pub(crate) product: String,
    #[prost(uint32, tag = "3")]
    pub(crate) format: u32,
    #[prost(string, tag = "4")]
    pub(crate) uuid: String,
    #[prost(uint64, tag = "5")]
    pub(crate) generation: u64,
}
record!(FormatRecord, "format", 1);

/// Makes every table, so that readers find each of them.
pub(crate) fn create_tables(txn: &redb::WriteTransaction) -> Result<(), redb::TableError> {
    txn.open_table(FORMATS.table)?;
    txn.open_table(NAMESPACES.table)?;
    txn.open_table(CONTAINERS.table)?;
    txn.open_table(SANDBOXES.table)?;
    txn.open_table(IMAGES.table)?;
    txn.open_table(LEASES.table)?;
    txn.open_table(LEASE_RESOURCES)?;
    txn.open_table(BLOBS.table)?;
    txn.open_table(BLOB_HOLDERS)?;
    txn.open_table(INGESTS.table)?;
    txn.open_table(SNAPSHOTS.table)?;
    txn.open_table(CHILDREN)?;
    txn.open_table(DEAD)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableHandle};

    use super::*;

    /// A new table fails here, until somebody has thought about what a collection must know of it.
    #[test]
    fn every_table_is_known_to_the_collection_or_knowingly_not() {
        let unknown = ["format", "namespaces", "blob_holders", "children", "dead"];
        let database =
            redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        create_tables(&txn).unwrap();
        txn.commit().unwrap();
        let mut known = 0;
        for table in database.begin_read().unwrap().list_tables().unwrap() {
            match Table::called(table.name()) {
                Some(_) => known += 1,
                None => assert!(unknown.contains(&table.name()), "{}", table.name()),
            }
        }
        assert_eq!(known, 8);
    }
}
