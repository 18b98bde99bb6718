//! Committing a snapshot: the only step that changes a name in the backend and in the database, so the only one that
//! says beforehand what it is about to do.

use std::time::SystemTime;

use ::snapshots::Snapshotter;
use types::{Error, Labels, Namespace, Result, Scope, crash};

use crate::db::Db;
use crate::leases;
use crate::record::stored;
use crate::schema::{CHILDREN, SNAPSHOTS};
use crate::tx::{Source, Tx};

use super::{
    CommitIntent, SnapshotRecord, Snapshots, inherited, not_found, parent_not_found, resource_kind,
    snapshot_lock, validate,
};

/// What the backend is to be told.
struct Intended {
    key: String,
    parent: Option<String>,
}

pub(super) async fn commit(
    view: &Snapshots,
    name: &str,
    key: &str,
    parent: Option<&str>,
    labels: Labels,
) -> Result<()> {
    validate(&labels)?;
    let namespace = &view.scope.namespace;
    let locked = |key: &str| snapshot_lock(namespace, &view.name, key);
    let _held = view.db.inner.locks.hold_both(&locked(name), &locked(key)).await;
    resolve(&view.db, namespace, &view.name, key).await?;
    // What stands on a snapshot that lost its files knows it by its name in the backend: that stays.
    let replaced = if view.is_lost(name).await? { Some(view.row(name)?.backend_key) } else { None };
    let intent = CommitIntent {
        name: name.to_owned(),
        backend_key: replaced.clone().unwrap_or_else(|| view.db.backend_key(namespace, name)),
        rebased: false,
        lease: view.scope.lease.clone().unwrap_or_default(),
        labels: stored(labels.clone()),
    };
    let intended = intend(view, key, parent.unwrap_or_default(), intent.clone(), replaced).await?;
    let Some(intended) = intended else {
        return Err(Error::already_exists(format!("snapshot {name:?}: already exists")));
    };
    crash::point("snapshot-commit-noted");
    let committed = view
        .backend
        .commit(&intent.backend_key, &intended.key, intended.parent.as_deref(), inherited(&labels))
        .await;
    let at = At::new(namespace, &view.name, key);
    match committed {
        Ok(()) => {
            crash::point("snapshot-committed");
            view.db.mutate(move |tx| finish(tx, &at)).await
        }
        Err(error) => {
            view.db.mutate(move |tx| take_back(tx, &at)).await?;
            Err(error)
        }
    }
}

/// Writes down what is about to happen. `None` if the name is taken, by a snapshot that then is added to the lease.
/// `replaced` is the backend's name of one that lost its files.
async fn intend(
    view: &Snapshots,
    key: &str,
    parent: &str,
    mut intent: CommitIntent,
    replaced: Option<String>,
) -> Result<Option<Intended>> {
    let (scope, snapshotter) = (view.scope.clone(), view.name.clone());
    let (key, parent) = (key.to_owned(), parent.to_owned());
    view.db
        .mutate(move |tx| {
            let at = At::new(&scope.namespace, &snapshotter, &key);
            leases::check_scope(tx, &scope)?;
            let taken = tx.get(SNAPSHOTS, at.of(&intent.name))?;
            if taken.is_some_and(|taken| Some(&taken.backend_key) != replaced.as_ref()) {
                leases::add_resource(tx, &scope, &resource_kind(&snapshotter), &intent.name)?;
                return Ok(None);
            }
            let mut row = tx.get(SNAPSHOTS, at.of(&key))?.ok_or_else(|| not_found(&key))?;
            let mut backend_parent = None;
            if !row.parent.is_empty() && !parent.is_empty() && row.parent != parent {
                return Err(Error::invalid(format!(
                    "snapshot {key} has the parent {:?}, which commit cannot change to {parent:?}: invalid argument",
                    row.parent
                )));
            }
            intent.rebased = row.parent.is_empty() && !parent.is_empty();
            if intent.rebased && parent == key {
                return Err(Error::invalid(format!(
                    "snapshot {key} cannot be its own parent: invalid argument"
                )));
            }
            if intent.rebased {
                let found = tx.get(SNAPSHOTS, at.of(&parent))?.ok_or_else(|| parent_not_found(&parent))?;
                row.parent.clone_from(&parent);
                backend_parent = Some(found.backend_key);
                // From here on the parent cannot be removed.
                tx.mark(CHILDREN, at.child(&parent, &key))?;
            }
            let backend_key = row.backend_key.clone();
            row.intent = Some(intent.clone());
            tx.put(SNAPSHOTS, at.of(&key), row)?;
            Ok(Some(Intended { key: backend_key, parent: backend_parent }))
        })
        .await
}

/// Where a snapshot's row stands.
#[derive(Clone)]
struct At {
    namespace: Namespace,
    snapshotter: String,
    key: String,
}

impl At {
    fn new(namespace: &Namespace, snapshotter: &str, key: &str) -> Self {
        Self { namespace: namespace.clone(), snapshotter: snapshotter.to_owned(), key: key.to_owned() }
    }

    fn of<'a>(&'a self, key: &'a str) -> (&'a str, &'a str, &'a str) {
        (self.namespace.as_str(), &self.snapshotter, key)
    }

    fn child<'a>(&'a self, parent: &'a str, key: &'a str) -> (&'a str, &'a str, &'a str, &'a str) {
        (self.namespace.as_str(), &self.snapshotter, parent, key)
    }
}

/// The backend has committed it: the new row instead of the old.
fn finish(tx: &Tx<'_>, at: &At) -> Result<()> {
    let Some((row, intent)) = intended(tx, at)? else { return Ok(()) };
    tx.remove(SNAPSHOTS.table, at.of(&at.key))?;
    if !row.parent.is_empty() {
        tx.remove(CHILDREN, at.child(&row.parent, &at.key))?;
        tx.mark(CHILDREN, at.child(&row.parent, &intent.name))?;
    }
    let now = Some(SystemTime::now().into());
    let committed = SnapshotRecord {
        backend_key: intent.backend_key,
        labels: intent.labels,
        created: now,
        updated: now,
        intent: None,
        ..row
    };
    tx.put(SNAPSHOTS, at.of(&intent.name), committed)?;
    let lease = (!intent.lease.is_empty()).then_some(intent.lease);
    let scope = Scope { namespace: at.namespace.clone(), lease };
    let kind = resource_kind(&at.snapshotter);
    leases::drop_resource(tx, &scope, &kind, &at.key)?;
    // A lease that was deleted meanwhile holds nothing; the snapshot is there all the same.
    match leases::check_scope(tx, &scope) {
        Err(error) if error.is_not_found() => Ok(()),
        _ => leases::add_resource(tx, &scope, &kind, &intent.name),
    }
}

/// The backend has not: the row as it was.
fn take_back(tx: &Tx<'_>, at: &At) -> Result<()> {
    let Some((mut row, intent)) = intended(tx, at)? else { return Ok(()) };
    if intent.rebased {
        tx.remove(CHILDREN, at.child(&row.parent, &at.key))?;
        row.parent.clear();
    }
    row.intent = None;
    tx.put(SNAPSHOTS, at.of(&at.key), row)
}

fn intended(tx: &impl Source, at: &At) -> Result<Option<(SnapshotRecord, CommitIntent)>> {
    let row = tx.get(SNAPSHOTS, at.of(&at.key))?;
    Ok(row.and_then(|row| row.intent.clone().map(|intent| (row, intent))))
}

/// Completes or takes back a commit whose caller went away, or whose daemon did. The caller holds the key.
pub(crate) async fn resolve(db: &Db, namespace: &Namespace, snapshotter: &str, key: &str) -> Result<()> {
    let at = At::new(namespace, snapshotter, key);
    let Some((row, intent)) = db.read(|txn| intended(txn, &at))? else { return Ok(()) };
    let Some(backend) = db.inner.snapshotters.get(snapshotter) else { return Ok(()) };
    // Asked in this order, as a name whose files are gone may be there before, too.
    let committed = !has(&**backend, &row.backend_key).await? && has(&**backend, &intent.backend_key).await?;
    db.mutate(move |tx| if committed { finish(tx, &at) } else { take_back(tx, &at) }).await
}

async fn has(backend: &dyn Snapshotter, key: &str) -> Result<bool> {
    match backend.stat(key).await {
        Err(error) if error.is_not_found() => Ok(false),
        found => found.map(|_| true),
    }
}
