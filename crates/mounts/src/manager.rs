//! Activations by name: made, found, taken back, and found again after a restart.
//!
//! ```text
//!  record written --> mounts performed --> record written as complete          deactivate: record gone --> mounts gone
//!        |  (the daemon ends)  |                                                                |
//!        +------- start: what is not complete, and mount points without a record, are taken back
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};
use types::fields::FieldPaths;
use types::mount::Mount;
use types::{Class, Error, Labels, Namespace, Result, ResultExt, Scope};

use crate::keys::{Key, Keys};
use crate::plan::{self, Plan};
use crate::record::{Activation, Record};
use crate::roots::Roots;
use crate::targets;

/// All activations. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Manager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    records: PathBuf,
    targets: PathBuf,
    roots: Roots,
    keys: Keys,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    held: BTreeMap<Key, Record>,
}

/// A list of mounts to be activated.
#[derive(Clone, Debug, Default)]
pub struct Activate {
    /// A name that is free in the namespace.
    pub name: String,
    /// The mounts, in order.
    pub mounts: Vec<Mount>,
    /// Labels of the activation.
    pub labels: Labels,
    /// Everything is to be mounted here, for a moment's use; what is left is one bind mount.
    pub temporary: bool,
    /// Types that whoever gets the rest does itself: `loop`, `format/*`.
    pub allowed: Vec<String>,
}

/// What the garbage collector needs to know of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Never used twice, unlike the name.
    pub id: u64,
    /// Whose it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels, among them back references (`containerd.io/gc.bref.*`).
    pub labels: Labels,
    /// The lease that holds it.
    pub lease: Option<String>,
}

impl Manager {
    /// Finds what the last daemon kept in `dir` and takes back what it left half-done. Files and directories are only made in
    /// `roots` and in mounts of our own.
    pub async fn open(dir: PathBuf, mut roots: Vec<PathBuf>) -> Result<Self> {
        let targets = dir.join("t");
        roots.push(targets.clone());
        let (keys, table) = (Keys::default(), Mutex::default());
        let inner = Inner { records: dir.join("records"), targets, roots: Roots(roots), keys, table };
        blocking(move || {
            for dir in [&inner.records, &inner.targets] {
                std::fs::create_dir_all(dir).context(|| format!("make directory {dir:?}"))?;
            }
            inner.recover()?;
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// Performs what is ours of a list of mounts and returns what is left. Unimplemented if nothing is ours. Not cancel safe.
    pub async fn activate(&self, scope: &Scope, request: Activate) -> Result<Activation> {
        let plan = plan::plan(&request.mounts, request.temporary, &request.allowed)
            .ok_or_else(|| Error::unimplemented(crate::NOTHING_TO_DO))?;
        if request.name.is_empty() {
            return Err(Error::invalid("mount name is required: invalid argument"));
        }
        let key = key(&scope.namespace, &request.name);
        let _guard = self.0.keys.lock(key.clone()).await;
        let activation =
            Activation { name: request.name, active: Vec::new(), system: Vec::new(), labels: request.labels };
        let record = self.0.begin(key.clone(), scope.lease.clone(), activation)?;
        let inner = Arc::clone(&self.0);
        let (mounts, temporary) = (request.mounts, request.temporary);
        let performed = blocking(move || inner.perform(record, &plan, &mounts, temporary)).await;
        let mut table = self.0.table();
        match performed {
            Ok(record) => {
                let activation = record.activation.clone();
                table.held.insert(key, record);
                Ok(activation)
            }
            Err(error) => {
                table.held.remove(&key);
                Err(error)
            }
        }
    }

    /// Takes an activation back. If something of it is busy the error says so, and [`Self::collect`] tries again. Not cancel
    /// safe.
    pub async fn deactivate(&self, namespace: &Namespace, name: &str) -> Result<()> {
        let key = key(namespace, name);
        let _guard = self.0.keys.lock(key.clone()).await;
        let record = self.0.table().held.remove(&key).ok_or_else(|| missing(name))?;
        self.0.take_back(record.id).await.context(|| format!("deactivate mount {name:?}"))
    }

    /// An activation.
    pub fn info(&self, namespace: &Namespace, name: &str) -> Result<Activation> {
        let table = self.0.table();
        let record = table.held.get(&key(namespace, name)).filter(|record| record.complete);
        record.map(|record| record.activation.clone()).ok_or_else(|| missing(name))
    }

    /// The activations of a namespace by name.
    pub fn list(&self, namespace: &Namespace) -> Vec<Activation> {
        let table = self.0.table();
        let ours =
            table.held.values().filter(|record| record.complete && record.namespace == namespace.as_str());
        ours.map(|record| record.activation.clone()).collect()
    }

    /// Changes the labels of an activation, all or those that `fields` names. Not cancel safe.
    pub async fn update(
        &self,
        namespace: &Namespace,
        name: &str,
        labels: Labels,
        fields: &FieldPaths,
    ) -> Result<Activation> {
        let key = key(namespace, name);
        let _guard = self.0.keys.lock(key.clone()).await;
        let found = self.0.table().held.get(&key).filter(|record| record.complete).cloned();
        let mut record = found.ok_or_else(|| missing(name))?;
        relabel(&mut record.activation, labels, fields)?;
        let path = self.0.record_path(record.id);
        let written = blocking(move || record.write(&path).map(|()| record)).await?;
        let activation = written.activation.clone();
        self.0.table().held.insert(key, written);
        Ok(activation)
    }

    /// All activations, for the garbage collector: one is alive as long as its lease is, or what a back reference names.
    pub fn held(&self) -> Vec<Held> {
        let table = self.0.table();
        let complete = table.held.values().filter(|record| record.complete);
        complete
            .map(|record| Held {
                id: record.id,
                namespace: record.namespace.clone(),
                name: record.activation.name.clone(),
                labels: record.activation.labels.clone(),
                lease: record.lease.clone(),
            })
            .collect()
    }

    /// Takes back the activations with these ids, and what was left by earlier tries. It goes on after an error and returns
    /// the first. Not cancel safe.
    pub async fn collect(&self, ids: &[u64]) -> Result<()> {
        let keys: Vec<(u64, Key)> = {
            let table = self.0.table();
            let doomed = table.held.iter().filter(|(_, record)| record.complete && ids.contains(&record.id));
            doomed.map(|(key, record)| (record.id, key.clone())).collect()
        };
        let mut result = Ok(());
        for (id, key) in keys {
            let _guard = self.0.keys.lock(key.clone()).await;
            // Meanwhile the name may have been given back and taken again.
            let same = self.0.table().held.get(&key).is_some_and(|record| record.id == id);
            if same {
                self.0.table().held.remove(&key);
                result = result.and(self.0.take_back(id).await);
            }
        }
        let inner = Arc::clone(&self.0);
        result.and(blocking(move || inner.sweep()).await)
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_path(&self, id: u64) -> PathBuf {
        self.records.join(format!("{id}.json"))
    }

    fn target(&self, id: u64) -> PathBuf {
        self.targets.join(id.to_string())
    }

    /// Takes the name, with an id of its own.
    fn begin(&self, key: Key, lease: Option<String>, activation: Activation) -> Result<Record> {
        let mut table = self.table();
        if table.held.contains_key(&key) {
            return Err(Error::already_exists(format!("mount {:?}: already exists", activation.name)));
        }
        table.last += 1;
        let record = Record { id: table.last, namespace: key.0.clone(), lease, complete: false, activation };
        table.held.insert(key, record.clone());
        Ok(record)
    }

    /// Mounts, between two versions of the record. If it fails nothing is left.
    fn perform(&self, mut record: Record, plan: &Plan, mounts: &[Mount], temporary: bool) -> Result<Record> {
        let (path, target) = (self.record_path(record.id), self.target(record.id));
        record.write(&path)?;
        types::crash::point("mounts-recorded");
        let done = targets::perform(plan, mounts, &target, &self.roots).and_then(|(active, mut system)| {
            types::crash::point("mounts-performed");
            if let Some(last) = active.last().filter(|_| temporary) {
                system.push(bind(&last.mount_point));
            }
            record.complete = true;
            record.activation.active = active;
            record.activation.system = system;
            record.write(&path).map_err(|error| match targets::clear(&target) {
                Ok(()) => error,
                Err(left) => error.context(format!("left mounted below {target:?} ({left})")),
            })
        });
        match done {
            Ok(()) => Ok(record),
            Err(error) => Err(match forget(&path) {
                Ok(()) => error,
                Err(left) => error.context(left.to_string()),
            }),
        }
    }

    async fn take_back(self: &Arc<Self>, id: u64) -> Result<()> {
        let inner = Arc::clone(self);
        blocking(move || {
            forget(&inner.record_path(id))?;
            types::crash::point("mounts-forgotten");
            targets::clear(&inner.target(id))
        })
        .await
    }

    /// Reads the records, takes back what is not complete or not there any more, and mount points without a record.
    fn recover(&self) -> Result<()> {
        let mut last = 0;
        for (id, path) in targets::entries(&self.records)? {
            last = last.max(id);
            let alive = match Record::read(&path) {
                Ok(record) if record.complete => {
                    targets::intact(&record.activation.active)?.then_some(record)
                }
                Ok(_) => None,
                Err(error) if error.class() == Class::FailedPrecondition => return Err(error),
                Err(error) => {
                    warn!(%error, "a record of mounts cannot be read: they are taken back");
                    None
                }
            };
            match alive {
                Some(record) => {
                    let key = (record.namespace.clone(), record.activation.name.clone());
                    self.table().held.insert(key, record);
                }
                None => {
                    info!(id, "mounts that are not complete are taken back");
                    forget(&path)?;
                }
            }
        }
        last = targets::entries(&self.targets)?.into_iter().fold(last, |last, (id, _)| last.max(id));
        self.table().last = last;
        // What is busy now is tried again by the next collection.
        if let Err(error) = self.sweep() {
            warn!(%error, "mounts without a record stay");
        }
        Ok(())
    }

    /// Takes back mount points that belong to no activation.
    fn sweep(&self) -> Result<()> {
        let mut result = Ok(());
        for (id, target) in targets::entries(&self.targets)? {
            let wanted = self.table().held.values().any(|record| record.id == id);
            if !wanted {
                result = result.and(targets::clear(&target));
            }
        }
        result
    }
}

fn key(namespace: &Namespace, name: &str) -> Key {
    (namespace.to_string(), name.to_owned())
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("mount {name:?} not found"))
}

fn bind(source: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: source.to_owned(),
        options: vec!["rbind".to_owned()],
        ..Mount::default()
    }
}

fn relabel(activation: &mut Activation, labels: Labels, fields: &FieldPaths) -> Result<()> {
    if fields.all() {
        activation.labels = labels;
        return Ok(());
    }
    for path in &fields.0 {
        match path.strip_prefix("labels.") {
            _ if path == "labels" => activation.labels.clone_from(&labels),
            Some(label) => match labels.get(label) {
                Some(value) => drop(activation.labels.insert(label.to_owned(), value.clone())),
                None => drop(activation.labels.remove(label)),
            },
            None => {
                return Err(Error::invalid(format!(
                    "cannot update {path:?} field on mount {:?}: invalid argument",
                    activation.name
                )));
            }
        }
    }
    Ok(())
}

/// Removes a record so that it does not come back; one that is not there is fine.
fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sys::fs::sync_dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(|| format!("remove {path:?}")),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal(format!("mounts: {error}"))),
    }
}
