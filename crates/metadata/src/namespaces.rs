//! Namespaces: they come into being with their first record, and carry labels.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use prost::Message;
use redb::{Key, TableDefinition, Value};
use types::fields::{FieldPaths, Path};
use types::{Error, Labels, Namespace, Result, labels};

use crate::db::Db;
use crate::record::{record, stored};
use crate::schema::{
    BLOBS, CONTAINERS, IMAGES, INGESTS, LEASE_RESOURCES, LEASES, NAMESPACES, Pair, SANDBOXES, SNAPSHOTS,
};
use crate::tx::{NEXT, Source, Tx};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamespaceRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
}
record!(NamespaceRecord, "namespace", 1);

/// The namespaces of a database.
pub struct Namespaces {
    db: Db,
}

impl Namespaces {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// All namespaces with their labels, ordered by name.
    pub fn list(&self) -> Result<Vec<(Namespace, Labels)>> {
        let mut all = Vec::new();
        self.db.read(|txn| {
            txn.scan(
                NAMESPACES,
                "",
                |_| true,
                |name, row| {
                    all.push((name.parse()?, row.labels));
                    NEXT
                },
            )
        })?;
        Ok(all)
    }

    /// A namespace's labels. One that does not exist has none, as upstream answers it.
    pub fn get(&self, namespace: &Namespace) -> Result<Labels> {
        let row = self.db.read(|txn| txn.get(NAMESPACES, namespace.as_str()))?;
        Ok(row.unwrap_or_default().labels)
    }

    /// Makes a namespace. `AlreadyExists` if it is there, be it by its first record only.
    pub async fn create(&self, namespace: &Namespace, labels: Labels) -> Result<()> {
        validate(&labels)?;
        if labels.contains_key("") {
            return Err(key_required());
        }
        let (namespace, labels) = (namespace.clone(), stored(labels));
        self.db
            .mutate(move |tx| {
                if tx.has(NAMESPACES.table, namespace.as_str())? {
                    return Err(Error::already_exists(format!(
                        "namespace {:?}: already exists",
                        namespace.as_str()
                    )));
                }
                tx.put(NAMESPACES, namespace.as_str(), NamespaceRecord { labels: labels.clone(), version: 0 })
            })
            .await
    }

    /// Changes labels (`labels`, `labels.<key>`, or all) and answers with the result.
    pub async fn update(&self, namespace: &Namespace, labels: Labels, fields: &FieldPaths) -> Result<Labels> {
        validate(&labels)?;
        labels::writable(&labels).map_err(|_| key_required())?;
        let (namespace, fields) = (namespace.clone(), fields.clone());
        self.db
            .mutate(move |tx| {
                let mut row = tx.get(NAMESPACES, namespace.as_str())?.unwrap_or_default();
                if fields.all() {
                    labels::apply(&mut row.labels, &labels, None);
                }
                for (path, text) in fields.iter().zip(&fields.0) {
                    match path {
                        Path::Field("labels") => labels::apply(&mut row.labels, &labels, None),
                        Path::Key("labels", key) => labels::apply(&mut row.labels, &labels, Some(key)),
                        Path::Field(_) | Path::Key(..) => {
                            return Err(Error::invalid(format!(
                                "cannot update {text:?} field: invalid argument"
                            )));
                        }
                    }
                }
                let result = row.labels.clone();
                tx.put(NAMESPACES, namespace.as_str(), row)?;
                Ok(result)
            })
            .await
    }

    /// Removes an empty namespace with its leases and ingests. `FailedPrecondition` names what else it still has.
    pub async fn delete(&self, namespace: &Namespace) -> Result<()> {
        let name = namespace.clone();
        self.db.mutate(move |tx| delete(tx, name.as_str())).await?;
        self.db.bury().await;
        Ok(())
    }
}

fn validate(all: &Labels) -> Result<()> {
    labels::validate_all(all).map_err(|e| e.context("namespace.Labels"))
}

fn key_required() -> Error {
    Error::invalid("key required")
}

fn delete(tx: &Tx<'_>, ns: &str) -> Result<()> {
    let remaining = remaining(tx, ns)?;
    if !remaining.is_empty() {
        return Err(Error::precondition(format!(
            "namespace {ns:?} must be empty, but it still has {}: failed precondition",
            remaining.join(", ")
        )));
    }
    if !tx.has(NAMESPACES.table, ns)? {
        return Err(Error::not_found(format!("namespace {ns:?}: not found")));
    }
    for reference in ids(tx, INGESTS.table, ns)? {
        crate::gc::remove_ingest(tx, ns, &reference)?;
    }
    for lease in ids(tx, LEASES.table, ns)? {
        crate::leases::remove_resources(tx, LEASE_RESOURCES, ns, &lease)?;
        tx.remove(LEASES.table, (ns, &lease))?;
    }
    tx.remove(NAMESPACES.table, ns)?;
    Ok(())
}

/// What keeps a namespace from being deleted, in upstream's words.
fn remaining(tx: &Tx<'_>, ns: &str) -> Result<Vec<String>> {
    let mut remaining = Vec::new();
    if first(tx, IMAGES.table, ns)?.is_some() {
        remaining.push("images".to_owned());
    }
    if first(tx, BLOBS.table, ns)?.is_some() {
        remaining.push("blobs".to_owned());
    }
    if first(tx, CONTAINERS.table, ns)?.is_some() {
        remaining.push("containers".to_owned());
    }
    if first(tx, SANDBOXES.table, ns)?.is_some() {
        remaining.push("sandboxes".to_owned());
    }
    let mut after = String::new();
    loop {
        let mut next = None;
        tx.scan_raw(SNAPSHOTS.table, (ns, &after, ""), |key, _| {
            if key.0 == ns {
                next = Some(key.1.to_owned());
            }
            Ok(ControlFlow::Break(()))
        })?;
        let Some(snapshotter) = next else { return Ok(remaining) };
        remaining.push(format!("snapshots on {snapshotter:?} snapshotter"));
        // The smallest name behind it.
        after = snapshotter + "\0";
    }
}

/// The first id of a namespace in a table.
fn first<V: Value + 'static>(
    tx: &Tx<'_>,
    table: TableDefinition<'static, Pair, V>,
    ns: &str,
) -> Result<Option<String>> {
    let mut found = None;
    tx.scan_raw(table, (ns, ""), |key, _| {
        found = (key.0 == ns).then(|| key.1.to_owned());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// All ids of a namespace in a table.
fn ids<V: Value + 'static>(
    tx: &Tx<'_>,
    table: TableDefinition<'static, Pair, V>,
    ns: &str,
) -> Result<Vec<String>>
where
    Pair: Key,
{
    let mut all = Vec::new();
    tx.scan_raw(table, (ns, ""), |key, _| {
        if key.0 != ns {
            return Ok(ControlFlow::Break(()));
        }
        all.push(key.1.to_owned());
        NEXT
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use ::content::WriterOptions;
    use types::Class;

    use super::*;
    use crate::fakes::{Bench, SNAPSHOTTER, labels, ns, paths, put, scope};

    #[tokio::test]
    async fn labels_are_set_changed_and_removed() {
        let bench = Bench::new();
        let all = bench.open().namespaces();
        all.create(&ns("a"), labels(&[("k", "v"), ("empty", "")])).await.unwrap();
        assert_eq!(all.get(&ns("a")).unwrap(), labels(&[("k", "v")]));
        let error = all.create(&ns("a"), labels(&[])).await.unwrap_err();
        assert_eq!(error.to_string(), r#"namespace "a": already exists"#);
        let change = labels(&[("l", "m")]);
        let updated = all.update(&ns("a"), change.clone(), &paths(&["labels.l", "labels.k"])).await.unwrap();
        assert_eq!(updated, change);
        let updated = all.update(&ns("a"), labels(&[("x", "y")]), &FieldPaths::default()).await.unwrap();
        assert_eq!(updated, labels(&[("x", "y")]));
        let error = all.update(&ns("a"), change, &paths(&["name"])).await.unwrap_err();
        assert_eq!(
            (error.class(), error.to_string().as_str()),
            (Class::InvalidArgument, r#"cannot update "name" field: invalid argument"#)
        );
        assert_eq!(all.get(&ns("nowhere")).unwrap(), labels(&[]), "upstream answers so, too");
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_empty_is_kept_and_says_why() {
        let bench = Bench::new();
        let db = bench.open();
        let content = db.content(scope("a"));
        let digest = put(&*content, "r", b"blob").await.unwrap();
        let snapshots = db.snapshotter(scope("a"), SNAPSHOTTER).unwrap();
        snapshots.prepare("s", "", labels(&[])).await.unwrap();
        let error = db.namespaces().delete(&ns("a")).await.unwrap_err();
        assert_eq!(error.class(), Class::FailedPrecondition);
        assert_eq!(
            error.to_string(),
            "namespace \"a\" must be empty, but it still has blobs, snapshots on \"memory\" snapshotter: failed precondition"
        );
        snapshots.remove("s").await.unwrap();
        content.delete(&digest).await.unwrap();
        db.namespaces().delete(&ns("a")).await.unwrap();
        let error = db.namespaces().delete(&ns("a")).await.unwrap_err();
        assert_eq!(error.to_string(), r#"namespace "a": not found"#);
    }

    #[tokio::test]
    async fn leases_and_ingests_go_with_their_namespace() {
        let bench = Bench::new();
        let db = bench.open();
        db.leases(&ns("a")).create(Some("l".to_owned()), labels(&[])).await.unwrap();
        let content = db.content(scope("a").with_lease("l"));
        let options = WriterOptions { reference: "r".to_owned(), ..WriterOptions::default() };
        drop(content.writer(options).await.unwrap());
        assert_eq!(bench.files().await, (0, 1));
        db.namespaces().delete(&ns("a")).await.unwrap();
        assert_eq!(bench.files().await, (0, 0), "the ingest's files are gone");
        assert!(db.namespaces().list().unwrap().is_empty());
        assert!(db.leases(&ns("a")).get("l").is_err());
        assert!(content.status("r").await.unwrap_err().is_not_found());
    }
}
