//! Sandboxes: records of what groups of containers share. In Kubernetes there is one for each pod.

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;
use types::container::RuntimeInfo;
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::namespace::validate_identifier;
use types::sandbox::Sandbox;
use types::{Error, Namespace, Result, crash, labels};

use crate::db::Db;
use crate::extensions::Own;
use crate::record::{Opaque, Time, record, stored, time};
use crate::schema::SANDBOXES;
use crate::tx::{Counts, NEXT, Source};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    runtime: String,
    #[prost(message, optional, tag = "4")]
    runtime_options: Option<Opaque>,
    #[prost(message, optional, tag = "5")]
    spec: Option<Opaque>,
    #[prost(string, tag = "6")]
    sandboxer: String,
    #[prost(btree_map = "string, message", tag = "7")]
    extensions: BTreeMap<String, Opaque>,
    #[prost(message, optional, tag = "8")]
    created: Option<Time>,
    #[prost(message, optional, tag = "9")]
    updated: Option<Time>,
}
record!(SandboxRecord, "sandbox", 1);

/// The sandboxes of a namespace.
pub struct Sandboxes {
    db: Db,
    namespace: Namespace,
}

impl Sandboxes {
    pub(crate) fn new(db: Db, namespace: Namespace) -> Self {
        Self { db, namespace }
    }

    /// The sandbox `id`.
    pub fn get(&self, id: &str) -> Result<Sandbox> {
        let row = self.db.read(|txn| txn.get(SANDBOXES, (self.namespace.as_str(), id)))?;
        row.map(|row| row.into_sandbox(id)).ok_or_else(|| missing(id))
    }

    /// The sandboxes that a filter matches (`id`, `labels.<key>`), ordered by id.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Sandbox>> {
        let ns = self.namespace.as_str();
        let mut found = Vec::new();
        self.db.read(|txn| {
            txn.scan(
                SANDBOXES,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    let sandbox = row.into_sandbox(key.1);
                    if filters.matches(&sandbox) {
                        found.push(sandbox);
                    }
                    NEXT
                },
            )
        })?;
        Ok(found)
    }

    /// Adds a sandbox and answers with its times.
    pub async fn create(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let mut sandbox = Sandbox { labels: stored(sandbox.labels), ..sandbox };
        validate(&sandbox).map_err(|e| e.context("failed to validate sandbox"))?;
        let namespace = self.namespace.clone();
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), sandbox.id.as_str());
                if tx.has(SANDBOXES.table, key)? {
                    return Err(Error::already_exists(format!(
                        "write error: sandbox bucket {:?} already exists: already exists",
                        sandbox.id
                    )));
                }
                sandbox.created_at = SystemTime::now();
                sandbox.updated_at = sandbox.created_at;
                tx.ensure_namespace(&namespace)?;
                tx.put(SANDBOXES, key, sandbox.clone().into())?;
                Ok(sandbox.clone())
            })
            .await
            .inspect(|_| crash::point("sandbox-row"))
    }

    /// Changes the fields of a mask (`labels`, `extensions`, `spec`, `runtime`; `labels.<key>`, `extensions.<key>`), or all of
    /// these, and answers with the result.
    pub async fn update(&self, sandbox: Sandbox, fields: &FieldPaths) -> Result<Sandbox> {
        let (namespace, fields) = (self.namespace.clone(), fields.clone());
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), sandbox.id.as_str());
                let row = tx.get(SANDBOXES, key)?.ok_or_else(|| missing(&sandbox.id))?;
                let mut updated = row.into_sandbox(&sandbox.id);
                if fields.all() {
                    replace(&mut updated, &sandbox)?;
                }
                for (path, text) in fields.iter().zip(&fields.0) {
                    set(&mut updated, &sandbox, path, text)?;
                }
                updated.labels = stored(updated.labels);
                validate(&updated)?;
                updated.updated_at = SystemTime::now();
                tx.put(SANDBOXES, key, updated.clone().into())?;
                Ok(updated)
            })
            .await
    }

    /// Removes a sandbox. What runs in it is the client's to end.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (namespace, id) = (self.namespace.clone(), id.to_owned());
        self.db
            .mutate(move |tx| {
                tx.count_as(Counts::Deletion);
                match tx.remove(SANDBOXES.table, (namespace.as_str(), &id))? {
                    true => Ok(()),
                    false => Err(Error::not_found(format!("failed to delete sandbox {id:?}: not found"))),
                }
            })
            .await
            .inspect(|()| crash::point("sandbox-row-deleted"))
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("bucket {id:?} not found: not found"))
}

/// An update without a mask: every mutable field, and no other may differ.
fn replace(updated: &mut Sandbox, from: &Sandbox) -> Result<()> {
    if updated.runtime.name != from.runtime.name {
        return Err(Error::invalid("sandbox.Runtime.Name field is immutable: invalid argument"));
    }
    for field in ["labels", "extensions", "spec", "runtime"] {
        set(updated, from, Path::Field(field), field)?;
    }
    Ok(())
}

fn set(updated: &mut Sandbox, from: &Sandbox, path: Path<'_>, text: &str) -> Result<()> {
    let own = Own {
        labels: (&mut updated.labels, &from.labels),
        extensions: (&mut updated.extensions, &from.extensions),
    };
    if own.apply(path) {
        return Ok(());
    }
    match path {
        Path::Field("spec") => updated.spec.clone_from(&from.spec),
        Path::Field("runtime") => updated.runtime.clone_from(&from.runtime),
        Path::Field(_) | Path::Key(..) => {
            return Err(Error::invalid(format!(
                "cannot update {text:?} field on sandbox {:?}: invalid argument",
                updated.id
            )));
        }
    }
    Ok(())
}

fn validate(sandbox: &Sandbox) -> Result<()> {
    validate_identifier(&sandbox.id).map_err(|e| e.context("invalid sandbox ID"))?;
    if sandbox.extensions.contains_key("") {
        return Err(Error::invalid("sandbox.Extension keys must not be zero-length: invalid argument"));
    }
    labels::validate_all(&sandbox.labels).map_err(|e| e.context("sandbox.Labels"))?;
    labels::writable(&sandbox.labels)
        .map_err(|e| e.context(format!("failed to write sandbox {:?}", sandbox.id)))
}

impl SandboxRecord {
    fn into_sandbox(self, id: &str) -> Sandbox {
        Sandbox {
            id: id.to_owned(),
            labels: self.labels,
            runtime: RuntimeInfo { name: self.runtime, options: self.runtime_options.map(Into::into) },
            spec: self.spec.map(Into::into),
            sandboxer: self.sandboxer,
            extensions: self.extensions.into_iter().map(|(key, value)| (key, value.into())).collect(),
            created_at: time(self.created),
            updated_at: time(self.updated),
        }
    }
}

impl From<Sandbox> for SandboxRecord {
    fn from(sandbox: Sandbox) -> Self {
        Self {
            version: 0,
            labels: sandbox.labels,
            runtime: sandbox.runtime.name,
            runtime_options: sandbox.runtime.options.map(Into::into),
            spec: sandbox.spec.map(Into::into),
            sandboxer: sandbox.sandboxer,
            extensions: sandbox.extensions.into_iter().map(|(key, value)| (key, value.into())).collect(),
            created: Some(sandbox.created_at.into()),
            updated: Some(sandbox.updated_at.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{Any, Class};

    use super::*;
    use crate::fakes::{Bench, labels, ns, paths};

    fn sandbox(id: &str) -> Sandbox {
        Sandbox {
            id: id.to_owned(),
            labels: labels(&[("name", "p_ns_uid_0"), ("empty", "")]),
            runtime: RuntimeInfo {
                name: "io.containerd.runc.v2".to_owned(),
                options: Some(Any::new("containerd.runc.v1.Options", [0xff, 0, 1])),
            },
            spec: Some(Any::new("spec", *b"{ }")),
            sandboxer: "podsandbox".to_owned(),
            extensions: [("metadata".to_owned(), Any::new("some.Type", [1, 2]))].into(),
            ..Sandbox::default()
        }
    }

    #[tokio::test]
    async fn every_field_comes_back_and_opaque_values_byte_for_byte() {
        let bench = Bench::new();
        let sandboxes = bench.open().sandboxes(&ns("a"));
        let before = SystemTime::now();
        let created = sandboxes.create(sandbox("s1")).await.unwrap();
        assert!(created.created_at >= before && created.created_at == created.updated_at);
        assert_eq!(sandboxes.get("s1").unwrap(), created);
        let Sandbox { created_at, updated_at, .. } = created.clone();
        let labels = labels(&[("name", "p_ns_uid_0")]);
        assert_eq!(created, Sandbox { created_at, updated_at, labels, ..sandbox("s1") });
    }

    #[tokio::test]
    async fn names_are_taken_and_missing() {
        let bench = Bench::new();
        let db = bench.open();
        let sandboxes = db.sandboxes(&ns("a"));
        sandboxes.create(sandbox("s1")).await.unwrap();
        assert!(sandboxes.create(sandbox("s1")).await.unwrap_err().is_already_exists());
        assert!(sandboxes.get("s2").unwrap_err().is_not_found());
        assert!(db.sandboxes(&ns("b")).get("s1").unwrap_err().is_not_found());
        let error = sandboxes.delete("s2").await.unwrap_err();
        assert_eq!(error.to_string(), r#"failed to delete sandbox "s2": not found"#);
        let error = db.namespaces().delete(&ns("a")).await.unwrap_err();
        assert!(error.to_string().contains("sandboxes"), "{error}");
        sandboxes.delete("s1").await.unwrap();
        assert!(sandboxes.get("s1").is_err());
        db.namespaces().delete(&ns("a")).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_malformed_is_refused() {
        let bench = Bench::new();
        let sandboxes = bench.open().sandboxes(&ns("a"));
        let mut extension = sandbox("s1");
        extension.extensions.insert(String::new(), Any::default());
        for bad in [sandbox("../x"), sandbox(""), extension] {
            assert_eq!(sandboxes.create(bad).await.unwrap_err().class(), Class::InvalidArgument);
        }
        assert_eq!(sandboxes.list(&Filters::default()).unwrap(), []);
    }

    #[tokio::test]
    async fn a_mask_changes_what_it_names_and_without_one_all_that_may_change() {
        let bench = Bench::new();
        let sandboxes = bench.open().sandboxes(&ns("a"));
        let created = sandboxes.create(sandbox("s1")).await.unwrap();
        let change = Sandbox {
            labels: labels(&[("a.b", "c")]),
            extensions: [("metadata".to_owned(), Any::new("z", *b"z"))].into(),
            spec: None,
            ..sandbox("s1")
        };
        let mask = paths(&["labels.a.b", "extensions.metadata", "extensions.other"]);
        let updated = sandboxes.update(change.clone(), &mask).await.unwrap();
        assert_eq!(updated.labels, labels(&[("a.b", "c"), ("name", "p_ns_uid_0")]));
        assert_eq!((&updated.extensions, &updated.spec), (&change.extensions, &created.spec));
        assert_eq!(sandboxes.get("s1").unwrap(), updated);
        for path in ["sandboxer", "id", "runtime.name"] {
            let error = sandboxes.update(sandbox("s1"), &paths(&[path])).await.unwrap_err();
            let words = format!("cannot update {path:?} field on sandbox \"s1\": invalid argument");
            assert_eq!(error.to_string(), words);
        }
        let all = sandboxes.update(change.clone(), &FieldPaths::default()).await.unwrap();
        assert_eq!((all.labels, all.spec), (change.labels.clone(), None));
        let mut other = change;
        other.runtime.name = "runsc".to_owned();
        assert!(sandboxes.update(other, &FieldPaths::default()).await.is_err());
    }

    #[tokio::test]
    async fn lists_are_ordered_filtered_and_of_one_namespace() {
        let bench = Bench::new();
        let db = bench.open();
        for (namespace, id) in [("a", "s2"), ("a", "s1"), ("ab", "s3"), ("A", "s4")] {
            db.sandboxes(&ns(namespace)).create(sandbox(id)).await.unwrap();
        }
        let ids = |filters: &[&str]| -> Vec<String> {
            let filters = Filters::parse(filters).unwrap();
            let found = db.sandboxes(&ns("a")).list(&filters).unwrap();
            found.into_iter().map(|sandbox| sandbox.id).collect()
        };
        assert_eq!(ids(&[]), ["s1", "s2"]);
        assert_eq!(ids(&["id==s2"]), ["s2"]);
        assert_eq!(ids(&["labels.name==p_ns_uid_0"]), ["s1", "s2"]);
        assert_eq!(ids(&["labels.name==x", "runtime.name"]), [""; 0]);
    }
}
