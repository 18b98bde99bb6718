//! Containers: records of everything about a container that is not a process.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::SystemTime;

use prost::Message;
use types::container::{Container, RuntimeInfo};
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::namespace::validate_identifier;
use types::view::ContainerView;
use types::{Error, Namespace, Result, crash, labels};

use crate::db::Db;
use crate::extensions::Own;
use crate::record::{Opaque, Time, look, record, stored, time};
use crate::schema::CONTAINERS;
use crate::tx::{Counts, NEXT, Source};

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

    /// Calls `each` for every container behind the id `after` that a filter matches (`id`, `image`, `runtime.name`,
    /// `labels.<key>`), ordered by id, until it breaks off. All are of one version of the database, which is kept until
    /// `each` has seen the last.
    pub fn list(
        &self,
        filters: &Filters,
        after: &str,
        each: &mut dyn FnMut(&ContainerView<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let ns = self.namespace.as_str();
        self.db.read(|txn| {
            txn.scan_bytes(
                CONTAINERS,
                (ns, after),
                |key| key.0 == ns,
                |key, bytes| {
                    // No id is empty.
                    if key.1 == after {
                        return NEXT;
                    }
                    let container = view(key.1, bytes)?;
                    if filters.matches(&container) { each(&container) } else { NEXT }
                },
            )
        })
    }

    /// Adds a container and answers with its times.
    pub async fn create(&self, container: Container) -> Result<Container> {
        let mut container = Container { labels: stored(container.labels), ..container };
        validate(&container).map_err(|e| e.context("create container failed validation"))?;
        writable(&container)?;
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
            .inspect(|_| crash::point("container-row"))
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
                writable(&updated)?;
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
            .mutate(move |tx| {
                tx.count_as(Counts::Deletion);
                match tx.remove(CONTAINERS.table, (namespace.as_str(), &id))? {
                    true => Ok(()),
                    false => Err(Error::not_found(format!("container {id:?}: not found"))),
                }
            })
            .await
            .inspect(|()| crash::point("container-row-deleted"))
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
    let own = Own {
        labels: (&mut updated.labels, &from.labels),
        extensions: (&mut updated.extensions, &from.extensions),
    };
    if own.apply(path) {
        return Ok(());
    }
    match path {
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

fn writable(container: &Container) -> Result<()> {
    labels::writable(&container.labels)
        .map_err(|e| e.context(format!("failed to write container {:?}", container.id)))
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
    // Upstream means to insist on a spec, but accepts containers without one, and clients create them.
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid(
            "container.Snapshotter must be set if container.SnapshotKey is set: invalid argument",
        ));
    }
    Ok(())
}

impl ContainerRecord {
    /// A container on this snapshot.
    #[cfg(test)]
    pub(crate) fn of_snapshot(snapshotter: &str, key: &str, labels: BTreeMap<String, String>) -> Self {
        Self { snapshotter: snapshotter.to_owned(), snapshot_key: key.to_owned(), labels, ..Self::default() }
    }

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

/// The container `id` in the bytes of its record.
fn view<'a>(id: &'a str, bytes: &'a [u8]) -> Result<ContainerView<'a>> {
    let mut container = ContainerView { id, ..ContainerView::default() };
    look::<ContainerRecord>(id, bytes, |number, part| {
        match number {
            2 => container.labels.push(part.pair()?),
            3 => container.image = part.text()?,
            4 => container.runtime = part.text()?,
            5 => container.runtime_options = Some(part.opaque()?),
            6 => container.spec = Some(part.opaque()?),
            7 => container.snapshotter = part.text()?,
            8 => container.snapshot_key = part.text()?,
            9 => container.created_at = part.time()?,
            10 => container.updated_at = part.time()?,
            11 => container.extensions.push(part.opaque_pair()?),
            12 => container.sandbox = part.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(container)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use types::view::AnyView;
    use types::{Any, Class};

    use super::*;
    use crate::fakes::{Bench, labels, ns, paths};

    /// Words of the error, and what it takes to get it.
    type Case = (&'static str, fn(&mut Container));

    fn container(id: &str) -> Container {
        Container {
            id: id.to_owned(),
            labels: labels(&[("k", "v"), ("empty", "")]),
            image: "docker.io/library/alpine:3".to_owned(),
            runtime: RuntimeInfo {
                name: "io.containerd.runc.v2".to_owned(),
                options: Some(Any::new("containerd.runc.v1.Options", [0xff, 0, 1])),
            },
            spec: Some(Any::new(types::any::RUNTIME_SPEC, *b"{ \"b\": 1, \"a\": 2 }")),
            snapshotter: "overlayfs".to_owned(),
            snapshot_key: id.to_owned(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: [("x".to_owned(), Any::new("some.Type", [1, 2])), ("y".to_owned(), Any::default())]
                .into(),
            sandbox: "pod".to_owned(),
        }
    }

    #[tokio::test]
    async fn every_field_comes_back_and_opaque_values_byte_for_byte() {
        let bench = Bench::new();
        let containers = bench.open().containers(&ns("a"));
        let before = SystemTime::now();
        let created = containers.create(container("c1")).await.unwrap();
        assert!(created.created_at >= before && created.created_at == created.updated_at);
        assert_eq!(created.labels, labels(&[("k", "v")]), "an empty value is no label");
        assert_eq!(containers.get("c1").unwrap(), created);
        let Container { created_at, updated_at, .. } = created.clone();
        let given = Container { created_at, updated_at, labels: labels(&[("k", "v")]), ..container("c1") };
        assert_eq!(created, given);
    }

    #[tokio::test]
    async fn names_are_taken_and_missing_in_upstreams_words() {
        let bench = Bench::new();
        let db = bench.open();
        let containers = db.containers(&ns("a"));
        containers.create(container("c1")).await.unwrap();
        let error = containers.create(container("c1")).await.unwrap_err();
        assert_eq!(error.to_string(), r#"container "c1": already exists"#);
        let error = containers.get("c2").unwrap_err();
        assert_eq!(error.to_string(), r#"container "c2" in namespace "a": not found"#);
        let error = containers.delete("c2").await.unwrap_err();
        assert_eq!(error.to_string(), r#"container "c2": not found"#);
        assert!(
            db.containers(&ns("b")).get("c1").unwrap_err().is_not_found(),
            "another namespace has another"
        );
        assert_eq!(db.namespaces().list().unwrap().len(), 1, "the first record makes the namespace");
        containers.delete("c1").await.unwrap();
        assert!(containers.get("c1").is_err());
    }

    #[tokio::test]
    async fn what_is_missing_or_malformed_is_refused() {
        let bench = Bench::new();
        let containers = bench.open().containers(&ns("a"));
        let cases: [Case; 6] = [
            ("container.ID: identifier", |c| c.id = "../x".to_owned()),
            ("container.Runtime.Name must be set", |c| c.runtime.name.clear()),
            ("container.Snapshotter must be set if", |c| c.snapshotter.clear()),
            ("container.Extension keys must not be zero-length", |c| {
                c.extensions.insert(String::new(), Any::default());
            }),
            ("containers.Labels: label key and value length (4097 bytes)", |c| {
                c.labels.insert("k".to_owned(), "v".repeat(4096));
            }),
            ("identifier must not be empty", |c| c.id.clear()),
        ];
        for (words, spoil) in cases {
            let mut spoilt = container("c1");
            spoil(&mut spoilt);
            let error = containers.create(spoilt).await.unwrap_err();
            assert_eq!(error.class(), Class::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn a_mask_changes_what_it_names_and_nothing_else() {
        let bench = Bench::new();
        let containers = bench.open().containers(&ns("a"));
        let created = containers.create(container("c1")).await.unwrap();
        let change = Container {
            labels: labels(&[("k", ""), ("a.b", "c")]),
            image: "other".to_owned(),
            extensions: [("x".to_owned(), Any::new("z", *b"z"))].into(),
            ..container("c1")
        };
        let mask = paths(&["labels.a.b", "labels.k", "extensions.x", "extensions.y"]);
        let updated = containers.update(change, &mask).await.unwrap();
        assert_eq!(updated.labels, labels(&[("a.b", "c")]));
        assert_eq!(updated.extensions, [("x".to_owned(), Any::new("z", *b"z"))].into());
        assert_eq!((&updated.image, updated.created_at), (&created.image, created.created_at));
        assert!(updated.updated_at > created.updated_at);
        assert_eq!(containers.get("c1").unwrap(), updated);
        for path in ["runtime", "snapshotter", "id", "snapshot_key", "image.x"] {
            let error = containers.update(container("c1"), &paths(&["image", path])).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("cannot update {path:?} field on \"c1\": invalid argument")
            );
        }
        assert_eq!(containers.get("c1").unwrap(), updated, "a refused mask changes nothing");
    }

    #[tokio::test]
    async fn without_a_mask_every_mutable_field_is_replaced_and_no_other_may_differ() {
        let bench = Bench::new();
        let containers = bench.open().containers(&ns("a"));
        containers.create(container("c1")).await.unwrap();
        let all = FieldPaths::default();
        let other = Container { image: "other".to_owned(), snapshot_key: "k2".to_owned(), ..container("c1") };
        let updated = containers.update(other.clone(), &all).await.unwrap();
        assert_eq!((updated.image.as_str(), updated.snapshot_key.as_str()), ("other", "k2"));
        let mut runtime = other.clone();
        runtime.runtime.name = "runsc".to_owned();
        let error = containers.update(runtime, &all).await.unwrap_err();
        assert_eq!(error.to_string(), "container.Runtime.Name field is immutable: invalid argument");
        let snapshotter = Container { snapshotter: "native".to_owned(), ..other };
        let error = containers.update(snapshotter, &all).await.unwrap_err();
        assert_eq!(error.to_string(), "container.Snapshotter field is immutable: invalid argument");
        assert!(containers.update(container("c2"), &all).await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn lists_are_ordered_filtered_and_of_one_namespace() {
        let bench = Bench::new();
        let db = bench.open();
        for (namespace, id) in [("a", "c2"), ("a", "c1"), ("ab", "c3"), ("A", "c4")] {
            db.containers(&ns(namespace)).create(container(id)).await.unwrap();
        }
        let ids = |filters: &[&str]| {
            let mut ids = Vec::new();
            let filters = Filters::parse(filters).unwrap();
            let mut each = |container: &ContainerView<'_>| {
                ids.push(container.id.to_owned());
                NEXT
            };
            db.containers(&ns("a")).list(&filters, "", &mut each).unwrap();
            ids
        };
        assert_eq!(ids(&[]), ["c1", "c2"]);
        assert_eq!(ids(&["id==c2"]), ["c2"]);
        assert_eq!(ids(&["labels.k==v,runtime.name~=runc,image"]), ["c1", "c2"]);
        assert_eq!(ids(&["labels.k==x", "runtime.other", "sandbox"]), [""; 0]);
        let mut seen = 0;
        let stopped = db.containers(&ns("a")).list(&Filters::default(), "", &mut |_| {
            seen += 1;
            Err(Error::unavailable("enough"))
        });
        assert_eq!((stopped.unwrap_err().to_string().as_str(), seen), ("enough", 1));
    }

    #[tokio::test]
    async fn a_list_goes_on_behind_an_id_and_stops_where_it_is_told_to() {
        let bench = Bench::new();
        let db = bench.open();
        for id in ["c1", "c2", "c3", "c4"] {
            db.containers(&ns("a")).create(container(id)).await.unwrap();
        }
        let two_behind = |after: &str| {
            let mut ids = Vec::new();
            let mut each = |container: &ContainerView<'_>| {
                ids.push(container.id.to_owned());
                Ok(if ids.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            };
            db.containers(&ns("a")).list(&Filters::default(), after, &mut each).unwrap();
            ids
        };
        assert_eq!(two_behind(""), ["c1", "c2"]);
        assert_eq!(two_behind("c2"), ["c3", "c4"]);
        assert_eq!(two_behind("c35"), ["c4"]);
        assert_eq!(two_behind("c4"), [""; 0]);
    }

    #[tokio::test]
    async fn what_a_list_shows_is_what_was_stored() {
        let bench = Bench::new();
        let containers = bench.open().containers(&ns("a"));
        let stored = containers.create(container("c1")).await.unwrap();
        let mut each = |seen: &ContainerView<'_>| {
            let owned =
                |any: AnyView<'_>| Any { type_url: any.type_url.to_owned(), value: any.value.to_vec() };
            let listed = Container {
                id: seen.id.to_owned(),
                labels: labels(&seen.labels),
                image: seen.image.to_owned(),
                runtime: RuntimeInfo {
                    name: seen.runtime.to_owned(),
                    options: seen.runtime_options.map(owned),
                },
                spec: seen.spec.map(owned),
                snapshotter: seen.snapshotter.to_owned(),
                snapshot_key: seen.snapshot_key.to_owned(),
                created_at: seen.created_at,
                updated_at: seen.updated_at,
                extensions: seen
                    .extensions
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), owned(*value)))
                    .collect(),
                sandbox: seen.sandbox.to_owned(),
            };
            assert_eq!(listed, stored);
            NEXT
        };
        containers.list(&Filters::default(), "", &mut each).unwrap();
    }
}
