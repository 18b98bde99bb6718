//! A namespace's view of a snapshotter.
//!
//! ```text
//!  prepare, view   the backend's snapshot, then the row
//!  commit          the row says what is meant, then the backend's commit, then the new row instead of the old; a name
//!                  whose files are gone is committed again, under the name that the backend has for it
//!  remove          the row, then the backend's snapshot
//! ```
//!
//! So after a crash at any point a snapshot of the backend that no row names is rubbish of a known generation, and a row
//! that says that it was being committed is completed or taken back (see `recover`). Keys are locked while steps span
//! the backend and the database.
//!
//! Labels stay here; only those that are meant for snapshotters go through.

mod commit;
mod graves;
mod rows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use ::snapshots::Snapshotter;
use ::snapshots::shift::Owners;
use async_trait::async_trait;
use prost::Message;
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Namespace, Result, Scope, crash, labels};

use crate::db::Db;
use crate::leases;
use crate::record::{Time, record, stored, time};
use crate::schema::SNAPSHOTS;
use crate::tx::Source;
use ::content::locks::Held;

pub(crate) use commit::resolve;
pub(crate) use graves::Graves;
pub(crate) use rows::has_children;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Its name in the backend.
    #[prost(string, tag = "2")]
    pub(crate) backend_key: String,
    #[prost(string, tag = "3")]
    pub(crate) parent: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub(crate) created: Option<Time>,
    #[prost(message, optional, tag = "6")]
    pub(crate) updated: Option<Time>,
    /// Present while it is being committed.
    #[prost(message, optional, tag = "7")]
    pub(crate) intent: Option<CommitIntent>,
}
record!(SnapshotRecord, "snapshot", 1);

/// What a snapshot is being committed as.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommitIntent {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    pub(crate) backend_key: String,
    /// It had no parent before.
    #[prost(bool, tag = "3")]
    rebased: bool,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
    /// Which lease holds it.
    #[prost(string, tag = "5")]
    lease: String,
}

/// How many rows a walk reads at a time; between them it asks the backend about each.
const BATCH: usize = 100;

/// A namespace's view.
pub(crate) struct Snapshots {
    db: Db,
    scope: Scope,
    name: String,
    backend: Arc<dyn Snapshotter>,
}

/// The two ways to make a snapshot.
#[derive(Clone, Copy)]
enum Making {
    Active,
    View,
}

impl Snapshots {
    pub(crate) fn new(db: Db, scope: Scope, name: String, backend: Arc<dyn Snapshotter>) -> Self {
        Self { db, scope, name, backend }
    }

    fn key<'a>(&'a self, key: &'a str) -> (&'a str, &'a str, &'a str) {
        (self.scope.namespace.as_str(), &self.name, key)
    }

    fn row(&self, key: &str) -> Result<SnapshotRecord> {
        self.db.read(|txn| txn.get(SNAPSHOTS, self.key(key)))?.ok_or_else(|| not_found(key))
    }

    async fn hold(&self, key: &str) -> Held {
        self.db.inner.locks.hold(&snapshot_lock(&self.scope.namespace, &self.name, key)).await
    }

    async fn create(&self, making: Making, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        validate(&labels)?;
        labels::writable(&labels)?;
        let _held = self.hold(key).await;
        let target = labels.get(labels::SNAPSHOT_REF).cloned().unwrap_or_default();
        self.refuse_existing(key, &target).await?;
        let backend_parent = match parent {
            "" => String::new(),
            parent => match self.row(parent) {
                Err(error) if error.is_not_found() => return Err(parent_not_found(parent)),
                row => row?.backend_key,
            },
        };
        let backend_key = self.db.backend_key(&self.scope.namespace, key);
        let inherited = inherited(&labels);
        let made = match making {
            Making::Active => self.backend.prepare(&backend_key, &backend_parent, inherited).await,
            Making::View => self.backend.view(&backend_key, &backend_parent, inherited).await,
        };
        let mounts = match made {
            Ok(mounts) => mounts,
            Err(error) if error.is_already_exists() && !target.is_empty() => {
                return self.adopt(&target, parent, &backend_parent, labels).await;
            }
            // The key is new, so a caller who knows what "exists" means would be misled.
            Err(error) if error.is_already_exists() => {
                return Err(Error::unknown(format!("unexpected error from snapshotter: {error}: unknown")));
            }
            Err(error) => return Err(error),
        };
        crash::point("snapshot-made");
        let now = Some(SystemTime::now().into());
        let row = SnapshotRecord {
            version: 0,
            backend_key: backend_key.clone(),
            parent: parent.to_owned(),
            labels: stored(labels),
            created: now,
            updated: now,
            intent: None,
        };
        if let Err(error) = self.insert(key, row, &backend_parent).await {
            // Nobody will ever know of it.
            self.db.remove_snapshot(&self.name, &backend_key).await;
            return Err(error);
        }
        crash::point("snapshot-row");
        Ok(mounts)
    }

    /// `AlreadyExists` if the key is taken, or the target is there; either is added to the lease.
    async fn refuse_existing(&self, key: &str, target: &str) -> Result<()> {
        // A target without its files is as good as none: who unpacks it again may.
        let target = if self.is_lost(target).await? { "" } else { target };
        let (scope, name) = (self.scope.clone(), self.name.clone());
        let (key, target) = (key.to_owned(), target.to_owned());
        if self.db.read(|txn| existing(txn, &scope, &name, [&target, &key]))?.is_none() {
            return Ok(());
        }
        // Looked at again on the writer thread: a collection that is under way then knows that somebody relies on it.
        let found = self.db.mutate(move |tx| {
            let found = existing(tx, &scope, &name, [&target, &key])?;
            if let Some((found, _)) = &found {
                leases::add_resource(tx, &scope, &resource_kind(&name), found)?;
            }
            Ok(found)
        });
        match found.await? {
            Some((_, message)) => Err(Error::already_exists(message)),
            None => Ok(()),
        }
    }

    /// Whether there is a row of `key`, and neither the files of the snapshot nor a hope for them.
    async fn is_lost(&self, key: &str) -> Result<bool> {
        if key.is_empty() || !self.db.read(|txn| txn.has(SNAPSHOTS.table, self.key(key)))? {
            return Ok(false);
        }
        match self.backend.is_whole(&self.row(key)?.backend_key).await {
            Err(error) if error.is_not_found() => Ok(true),
            whole => Ok(!whole?),
        }
    }

    /// Takes over a committed snapshot that the backend has under the target's reference: that of a snapshotter which
    /// makes its layers elsewhere. It answers `AlreadyExists`, which tells the client that the layer is ready.
    async fn adopt(
        &self,
        target: &str,
        parent: &str,
        backend_parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        let mut found: Option<Info> = None;
        self.backend
            .walk(&Filters::default(), &mut |info| {
                let matches = info.kind == Kind::Committed
                    && info.parent == backend_parent
                    && info.labels.get(labels::SNAPSHOT_REF).is_some_and(|reference| reference == target);
                if matches && found.is_none() {
                    found = Some(info);
                }
                Ok(())
            })
            .await?;
        let info = found
            .ok_or_else(|| Error::not_found(format!("target snapshot {target:?} in backend: not found")))?;
        let mut all = info.labels;
        all.extend(labels);
        let row = SnapshotRecord {
            version: 0,
            backend_key: info.name,
            parent: parent.to_owned(),
            labels: stored(all),
            created: Some(info.created_at.into()),
            updated: Some(info.updated_at.into()),
            intent: None,
        };
        self.insert(target, row, backend_parent).await?;
        Err(Error::already_exists(format!("target snapshot {target:?} from snapshotter: already exists")))
    }

    /// What the backend says, with the namespace's names, times and labels.
    async fn stat_row(&self, key: &str, row: SnapshotRecord) -> Result<Info> {
        let info = self.backend.stat(&row.backend_key).await?;
        Ok(overlay(info, key, row))
    }
}

/// What there is already of a target and a key, with what is said of it.
fn existing(
    txn: &impl Source,
    scope: &Scope,
    snapshotter: &str,
    [target, key]: [&str; 2],
) -> Result<Option<(String, String)>> {
    let at = |key| (scope.namespace.as_str(), snapshotter, key);
    if !target.is_empty() && txn.has(SNAPSHOTS.table, at(target))? {
        return Ok(Some((target.to_owned(), format!("target snapshot {target:?}: already exists"))));
    }
    let taken = txn.has(SNAPSHOTS.table, at(key))?;
    Ok(taken.then(|| (key.to_owned(), format!("snapshot {key:?}: already exists"))))
}

fn overlay(info: Info, key: &str, row: SnapshotRecord) -> Info {
    let mut labels = info.labels;
    labels.extend(row.labels);
    Info {
        kind: info.kind,
        name: key.to_owned(),
        parent: row.parent,
        labels,
        created_at: time(row.created),
        updated_at: time(row.updated),
    }
}

/// The name of a snapshot's lock.
pub(crate) fn snapshot_lock(namespace: &Namespace, snapshotter: &str, key: &str) -> String {
    format!("snapshot {namespace}/{snapshotter}/{key}")
}

/// The kind of a lease's resource for snapshots of this snapshotter.
fn resource_kind(snapshotter: &str) -> String {
    format!("snapshots/{snapshotter}")
}

fn not_found(key: &str) -> Error {
    Error::not_found(format!("snapshot {key} does not exist: not found"))
}

fn lost(key: &str) -> Error {
    Error::not_found(format!(
        "the files of snapshot {key}, or of one below it, are gone: unpack its image again: not found"
    ))
}

fn parent_not_found(parent: &str) -> Error {
    Error::not_found(format!("parent snapshot {parent} does not exist: not found"))
}

fn validate(all: &Labels) -> Result<()> {
    labels::validate_all(all).map_err(|e| e.context("info.Labels"))
}

/// The labels that a snapshotter gets to see.
fn inherited(all: &Labels) -> Labels {
    let mut labels = all.clone();
    labels.retain(|key, _| key == labels::SNAPSHOT_REF || key.starts_with(labels::SNAPSHOT_INHERITED));
    labels
}

fn apply(into: &mut Labels, info: &Info, fields: &FieldPaths) -> Result<()> {
    if fields.all() {
        labels::apply(into, &info.labels, None);
    }
    for (path, text) in fields.iter().zip(&fields.0) {
        match path {
            Path::Field("labels") => labels::apply(into, &info.labels, None),
            Path::Key("labels", key) => labels::apply(into, &info.labels, Some(key)),
            Path::Field(_) | Path::Key(..) => {
                return Err(Error::invalid(format!(
                    "cannot update {text:?} field on snapshot {:?}: invalid argument",
                    info.name
                )));
            }
        }
    }
    validate(into)?;
    // Upstream's words, although it writes.
    labels::writable(into).map_err(|e| e.context("failed to read labels"))
}

#[async_trait]
impl Snapshotter for Snapshots {
    async fn stat(&self, key: &str) -> Result<Info> {
        if self.db.must_tell(&self.scope) {
            let (scope, name, key) = (self.scope.clone(), self.name.clone(), key.to_owned());
            self.db
                .mutate(move |tx| tx.has(SNAPSHOTS.table, (scope.namespace.as_str(), &name, &key)).map(drop))
                .await?;
        }
        let row = self.row(key)?;
        let backend_key = row.backend_key.clone();
        let info = self.stat_row(key, row).await?;
        if info.kind == Kind::Committed && !self.backend.is_whole(&backend_key).await? {
            return Err(lost(key));
        }
        Ok(info)
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        if info.name.is_empty() {
            return Err(Error::invalid("snapshot name must not be empty: invalid argument"));
        }
        let _held = self.hold(&info.name).await;
        let mut row = self.row(&info.name)?;
        apply(&mut row.labels, &info, fields)?;
        row.updated = Some(SystemTime::now().into());
        // The backend first: what it refuses is not recorded.
        let inner = Info { name: row.backend_key.clone(), labels: inherited(&row.labels), ..info.clone() };
        let answer = self.backend.update(inner, fields).await?;
        self.replace_labels(&info.name, &row).await?;
        Ok(overlay(answer, &info.name, row))
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        self.backend.usage(&self.row(key)?.backend_key).await
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.backend.mounts(&self.row(key)?.backend_key).await
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Making::Active, key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Making::View, key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        commit::commit(self, name, key, parent, labels).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let _held = self.hold(key).await;
        resolve(&self.db, &self.scope.namespace, &self.name, key).await?;
        let backend_key = self.delete(key).await?;
        crash::point("snapshot-row-deleted");
        self.db.remove_snapshot(&self.name, &backend_key).await;
        Ok(())
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let batch = self.batch(after.as_deref())?;
            let more = batch.len() == BATCH;
            after = batch.last().map(|(key, _)| key.clone());
            for (key, row) in batch {
                match self.stat_row(&key, row).await {
                    Ok(info) if filters.matches(&info) => each(info)?,
                    Ok(_) => {}
                    // It went away since the row was read.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn cleanup(&self) -> Result<()> {
        self.db.bury_snapshots(&self.name).await;
        self.backend.cleanup().await
    }

    fn can_rebase(&self) -> bool {
        self.backend.can_rebase()
    }

    fn owners(&self) -> Owners {
        self.backend.owners()
    }
}
