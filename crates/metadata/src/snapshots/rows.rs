//! The rows of snapshots, and the index of who stands on whom.

use std::ops::ControlFlow;

use types::{Error, Result};

use crate::leases;
use crate::schema::{CHILDREN, SNAPSHOTS};
use crate::tx::{Counts, NEXT, Source, Tx};

use super::{BATCH, SnapshotRecord, Snapshots, not_found, parent_not_found, resource_kind};

impl Snapshots {
    /// Adds a row, if its key is free and its parent is still the one that the backend used.
    pub(super) async fn insert(&self, key: &str, row: SnapshotRecord, backend_parent: &str) -> Result<()> {
        let (scope, name, key) = (self.scope.clone(), self.name.clone(), key.to_owned());
        let backend_parent = backend_parent.to_owned();
        self.db
            .mutate(move |tx| {
                let ns = scope.namespace.as_str();
                if tx.has(SNAPSHOTS.table, (ns, &name, &key))? {
                    return Err(Error::already_exists(format!("snapshot {key:?}: already exists")));
                }
                if !row.parent.is_empty() {
                    let parent = tx.get(SNAPSHOTS, (ns, &name, &row.parent))?;
                    let parent = parent.ok_or_else(|| parent_not_found(&row.parent))?;
                    if parent.backend_key != backend_parent {
                        return Err(Error::invalid(format!(
                            "mismatched parent {} of {key}: invalid argument",
                            row.parent
                        )));
                    }
                }
                leases::check_scope(tx, &scope)?;
                tx.ensure_namespace(&scope.namespace)?;
                if !row.parent.is_empty() {
                    tx.mark(CHILDREN, (ns, &name, &row.parent, &key))?;
                }
                tx.put(SNAPSHOTS, (ns, &name, &key), row.clone())?;
                leases::add_resource(tx, &scope, &resource_kind(&name), &key)
            })
            .await
    }

    /// Removes a row on which nothing stands; answers with its name in the backend.
    pub(super) async fn delete(&self, key: &str) -> Result<String> {
        let (scope, name, key) = (self.scope.clone(), self.name.clone(), key.to_owned());
        self.db
            .mutate(move |tx| {
                let ns = scope.namespace.as_str();
                let row = tx.get(SNAPSHOTS, (ns, &name, &key))?.ok_or_else(|| not_found(&key))?;
                if has_children(tx, ns, &name, &key)? {
                    return Err(Error::precondition(
                        "cannot remove snapshot with child: failed precondition",
                    ));
                }
                tx.count_as(Counts::Deletion);
                tx.remove(CHILDREN, (ns, &name, &row.parent, &key))?;
                tx.remove(SNAPSHOTS.table, (ns, &name, &key))?;
                leases::drop_resource(tx, &scope, &resource_kind(&name), &key)?;
                Ok(row.backend_key)
            })
            .await
    }

    /// Writes the labels and the time of `row`, whose key the caller holds.
    pub(super) async fn replace_labels(&self, key: &str, row: &SnapshotRecord) -> Result<()> {
        let (scope, name, key, row) = (self.scope.clone(), self.name.clone(), key.to_owned(), row.clone());
        self.db
            .mutate(move |tx| {
                let at = (scope.namespace.as_str(), name.as_str(), key.as_str());
                let mut now = tx.get(SNAPSHOTS, at)?.ok_or_else(|| not_found(&key))?;
                now.labels.clone_from(&row.labels);
                now.updated = row.updated;
                tx.put(SNAPSHOTS, at, now)
            })
            .await
    }

    /// The next rows behind `after`, ordered by key.
    pub(super) fn batch(&self, after: Option<&str>) -> Result<Vec<(String, SnapshotRecord)>> {
        let (ns, name) = (self.scope.namespace.as_str(), self.name.as_str());
        let mut rows = Vec::new();
        self.db.read(|txn| {
            let from = (ns, name, after.unwrap_or_default());
            txn.scan(
                SNAPSHOTS,
                from,
                |key| (key.0, key.1) == (ns, name),
                |key, row| {
                    if after == Some(key.2) {
                        return NEXT;
                    }
                    rows.push((key.2.to_owned(), row));
                    Ok(if rows.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
                },
            )
        })?;
        Ok(rows)
    }
}

/// Whether another snapshot stands on this one.
pub(crate) fn has_children(tx: &Tx<'_>, ns: &str, snapshotter: &str, key: &str) -> Result<bool> {
    let mut found = false;
    tx.scan_raw(CHILDREN, (ns, snapshotter, key, ""), |child, ()| {
        found = (child.0, child.1, child.2) == (ns, snapshotter, key);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
