//! Containers: records of everything about a container that is not a process.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;
use types::container::{Container, RuntimeInfo};
use types::fields::{FieldPaths, Path};
use types::filters::{Fields, Filters, label};
use types::namespace::validate_identifier;
use types::{Error, Namespace, Result, labels};

use crate::db::Db;
use crate::record::{Opaque, Time, record, stored, time};
use crate::schema::CONTAINERS;
use crate::tx::{NEXT, Source};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(string, tag = "4")]
    runtime: String,
    #[prost(message, optional, tag = "5")]
    runtime_options: Option<Opaque>,
    #[prost(message, optional, tag = "6")]
    spec: Option<Opaque>,
    #[prost(string, tag = "7")]
    snapshotter: String,
    #[prost(string, tag = "8")]
    snapshot_key: String,
    #[prost(message, optional, tag = "9")]
    created: Option<Time>,
    #[prost(message, optional, tag = "10")]
    updated: Option<Time>,
    #[prost(btree_map = "string, message", tag = "11")]
    extensions: BTreeMap<String, Opaque>,
    #[prost(string, tag = "12")]
    sandbox: String,
}
record!(ContainerRecord, "container", 1);

/// The containers of a namespace.
pub struct Containers {
    db: Db,
    namespace: Namespace,
}

impl Containers {
    pub(crate) fn new(db: Db, namespace: Namespace) -> Self {
        Self { db, namespace }
    }

    /// The container `id`.
    pub fn get(&self, id: &str) -> Result<Container> {
        let row = self.db.read(|txn| txn.get(CONTAINERS, (self.namespace.as_str(), id)))?;
        row.map(|row| row.into_container(id)).ok_or_else(|| {
            Error::not_found(format!(
                "container {id:?} in namespace {:?}: not found",
                self.namespace.as_str()
            ))
        })
    }

    /// Calls `each` for every container that a filter matches (`id`, `image`, `runtime.name`, `labels.<key>`),
    /// ordered by id. All are of one version of the database, which is kept until `each` has seen the last.
    pub fn list(&self, filters: &Filters, each: &mut dyn FnMut(Container) -> Result<()>) -> Result<()> {
        let ns = self.namespace.as_str();
        self.db.read(|txn| {
            txn.scan(
                CONTAINERS,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    let container = row.into_container(key.1);
                    if filters.matches(&ContainerFields(&container)) {
                        each(container)?;
                    }
                    NEXT
                },
            )
        })
    }

    /// Adds a container and answers with its times.
    pub async fn create(&self, container: Container) -> Result<Container> {
        let mut container = Container { labels: stored(container.labels), ..container };
        validate(&container).map_err(|e| e.context("create container failed validation"))?;
        let namespace = self.namespace.clone();
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), container.id.as_str());
                if tx.has(CONTAINERS.table, key)? {
                    return Err(Error::already_exists(format!(
                        "container {:?}: already exists",
                        container.id
                    )));
                }
                container.created_at = SystemTime::now();
                container.updated_at = container.created_at;
                tx.ensure_namespace(&namespace)?;
                tx.put(CONTAINERS, key, container.clone().into())?;
                Ok(container.clone())
            })
            .await
    }

    /// Changes the fields of a mask (`labels`, `spec`, `extensions`, `image`, `snapshotkey`; `labels.<key>`,
    /// `extensions.<key>`), or all of these, and answers with the result.
    pub async fn update(&self, container: Container, fields: &FieldPaths) -> Result<Container> {
        if container.id.is_empty() {
            return Err(Error::invalid("must specify a container id: invalid argument"));
        }
        let (namespace, fields) = (self.namespace.clone(), fields.clone());
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), container.id.as_str());
                let row = tx
                    .get(CONTAINERS, key)?
                    .ok_or_else(|| Error::not_found(format!("container {:?}: not found", container.id)))?;
                let mut updated = row.into_container(&container.id);
                if fields.all() {
                    replace(&mut updated, &container)?;
                }
                for (path, text) in fields.iter().zip(&fields.0) {
                    set(&mut updated, &container, path, text)?;
                }
                updated.labels = stored(updated.labels);
                validate(&updated).map_err(|e| e.context("update failed validation"))?;
                updated.updated_at = SystemTime::now();
                tx.put(CONTAINERS, key, updated.clone().into())?;
                Ok(updated)
            })
            .await
    }

    /// Removes a container. Its task and its snapshot are the client's to remove.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (namespace, id) = (self.namespace.clone(), id.to_owned());
        self.db
            .mutate(move |tx| match tx.remove(CONTAINERS.table, (namespace.as_str(), &id))? {
                true => Ok(()),
                false => Err(Error::not_found(format!("container {id:?}: not found"))),
            })
            .await
    }
}

/// An update without a mask: every mutable field, and no other may differ.
fn replace(updated: &mut Container, from: &Container) -> Result<()> {
    if updated.snapshotter != from.snapshotter {
        return Err(Error::invalid("container.Snapshotter field is immutable: invalid argument"));
    }
    if updated.runtime.name != from.runtime.name {
        return Err(Error::invalid("container.Runtime.Name field is immutable: invalid argument"));
    }
    for field in ["labels", "spec", "extensions", "image", "snapshotkey"] {
        set(updated, from, Path::Field(field), field)?;
    }
    Ok(())
}

fn set(updated: &mut Container, from: &Container, path: Path<'_>, text: &str) -> Result<()> {
    match path {
        Path::Field("labels") => labels::apply(&mut updated.labels, &from.labels, None),
        Path::Key("labels", key) => labels::apply(&mut updated.labels, &from.labels, Some(key)),
        Path::Field("extensions") => updated.extensions.clone_from(&from.extensions),
        Path::Key("extensions", key) => match from.extensions.get(key) {
            Some(value) => drop(updated.extensions.insert(key.to_owned(), value.clone())),
            None => drop(updated.extensions.remove(key)),
        },
        Path::Field("spec") => updated.spec.clone_from(&from.spec),
        Path::Field("image") => updated.image.clone_from(&from.image),
        Path::Field("snapshotkey") => updated.snapshot_key.clone_from(&from.snapshot_key),
        Path::Field(_) | Path::Key(..) => {
            return Err(Error::invalid(format!(
                "cannot update {text:?} field on {:?}: invalid argument",
                updated.id
            )));
        }
    }
    Ok(())
}

fn validate(container: &Container) -> Result<()> {
    validate_identifier(&container.id).map_err(|e| e.context("container.ID"))?;
    if container.extensions.contains_key("") {
        return Err(Error::invalid("container.Extension keys must not be zero-length: invalid argument"));
    }
    labels::validate_all(&container.labels).map_err(|e| e.context("containers.Labels"))?;
    if container.runtime.name.is_empty() {
        return Err(Error::invalid("container.Runtime.Name must be set: invalid argument"));
    }
    if container.spec.is_none() {
        return Err(Error::invalid("container.Spec must be set: invalid argument"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid(
            "container.Snapshotter must be set if container.SnapshotKey is set: invalid argument",
        ));
    }
    Ok(())
}

impl ContainerRecord {
    fn into_container(self, id: &str) -> Container {
        Container {
            id: id.to_owned(),
            labels: self.labels,
            image: self.image,
            runtime: RuntimeInfo { name: self.runtime, options: self.runtime_options.map(Into::into) },
            spec: self.spec.map(Into::into),
            snapshotter: self.snapshotter,
            snapshot_key: self.snapshot_key,
            created_at: time(self.created),
            updated_at: time(self.updated),
            extensions: self.extensions.into_iter().map(|(key, value)| (key, value.into())).collect(),
            sandbox: self.sandbox,
        }
    }
}

impl From<Container> for ContainerRecord {
    fn from(container: Container) -> Self {
        Self {
            version: 0,
            labels: container.labels,
            image: container.image,
            runtime: container.runtime.name,
            runtime_options: container.runtime.options.map(Into::into),
            spec: container.spec.map(Into::into),
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
            created: Some(container.created_at.into()),
            updated: Some(container.updated_at.into()),
            extensions: container.extensions.into_iter().map(|(key, value)| (key, value.into())).collect(),
            sandbox: container.sandbox,
        }
    }
}

/// What a filter sees of a container.
struct ContainerFields<'a>(&'a Container);

impl Fields for ContainerFields<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let value = match path.first()?.as_str() {
            "id" => &self.0.id,
            "image" => &self.0.image,
            "runtime" if path.get(1)? == "name" => &self.0.runtime.name,
            "labels" => return label(&self.0.labels, &path[1..]),
            _ => return None,
        };
        (!value.is_empty()).then(|| Cow::Borrowed(value.as_str()))
    }
}
