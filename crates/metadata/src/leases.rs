//! Leases: what holds resources that nothing else refers to yet.
//!
//! A lease only says what it holds. What that means, and when a lease has expired, is the collector's to know (`gc`): it
//! reads `lease_resources` as roots.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::SystemTime;

use prost::Message;
use types::filters::{Fields, Filters, label};
use types::lease::{Lease, Resource};
use types::time::parse_rfc3339;
use types::{Digest, Error, Labels, Namespace, Result, Scope, crash, labels};

use crate::db::Db;
use crate::record::{Time, record, stored, time};
use crate::schema::{Index, LEASE_RESOURCES, LEASES, Quad};
use crate::tx::{Counts, NEXT, Source, Tx};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    created: Option<Time>,
}
record!(LeaseRecord, "lease", 1);

/// The leases of a namespace.
pub struct Leases {
    db: Db,
    namespace: Namespace,
}

impl Leases {
    pub(crate) fn new(db: Db, namespace: Namespace) -> Self {
        Self { db, namespace }
    }

    /// The lease `id`.
    pub fn get(&self, id: &str) -> Result<Lease> {
        let row = self.db.read(|txn| txn.get(LEASES, (self.namespace.as_str(), id)))?;
        row.map(|row| row.into_lease(id)).ok_or_else(|| not_found(id))
    }

    /// Calls `each` for every lease that a filter matches (`id`, `labels.<key>`), ordered by id.
    pub fn list(&self, filters: &Filters, each: &mut dyn FnMut(Lease) -> Result<()>) -> Result<()> {
        let ns = self.namespace.as_str();
        self.db.read(|txn| {
            txn.scan(
                LEASES,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    let lease = row.into_lease(key.1);
                    if filters.matches(&LeaseFields(&lease)) {
                        each(lease)?;
                    }
                    NEXT
                },
            )
        })
    }

    /// An id that no lease has: nanoseconds and four random characters, as upstream's clients are used to see them.
    pub fn random_id() -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (_, nanos) = types::time::unix(SystemTime::now());
        let random: u32 = rand::random();
        let text: String = (0..4).map(|i| char::from(ALPHABET[(random >> (6 * i) & 63) as usize])).collect();
        format!("{nanos}-{text}")
    }

    /// Makes a lease, under a random id if none is given.
    pub async fn create(&self, id: Option<String>, labels: Labels) -> Result<Lease> {
        labels::validate_all(&labels).map_err(|e| e.context("lease.Labels"))?;
        labels::writable(&labels)?;
        let (namespace, labels) = (self.namespace.clone(), stored(labels));
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(Self::random_id);
        self.db
            .mutate(move |tx| {
                let key = (namespace.as_str(), id.as_str());
                if tx.has(LEASES.table, key)? {
                    return Err(Error::already_exists(format!("lease {id:?}: already exists")));
                }
                let created_at = SystemTime::now();
                tx.ensure_namespace(&namespace)?;
                let row =
                    LeaseRecord { version: 0, labels: labels.clone(), created: Some(created_at.into()) };
                tx.put(LEASES, key, row)?;
                Ok(Lease { id: id.clone(), labels: labels.clone(), created_at })
            })
            .await
            .inspect(|lease| {
                crash::point("lease-row");
                let expiry = lease.labels.get(labels::GC_EXPIRE).and_then(|text| parse_rfc3339(text));
                expiry.into_iter().for_each(|expiry| self.db.inner.observed.changes.expires(expiry));
            })
    }

    /// Removes a lease. What nothing else keeps goes with the next collection.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (namespace, id) = (self.namespace.clone(), id.to_owned());
        self.db
            .mutate(move |tx| {
                if !tx.remove(LEASES.table, (namespace.as_str(), &id))? {
                    return Err(not_found(&id));
                }
                tx.count_as(Counts::Deletion);
                remove_resources(tx, LEASE_RESOURCES, namespace.as_str(), &id)
            })
            .await
            .inspect(|()| crash::point("lease-deleted"))
    }

    /// Lets a lease hold a resource, which need not exist yet.
    pub async fn add_resource(&self, id: &str, resource: Resource) -> Result<()> {
        let (namespace, id) = (self.namespace.clone(), id.to_owned());
        self.db
            .mutate(move |tx| {
                require(tx, &namespace, &id)?;
                validate(&resource)?;
                tx.mark(LEASE_RESOURCES, (namespace.as_str(), &id, &resource.kind, &resource.id))
            })
            .await
    }

    /// Lets a lease no longer hold a resource, if it does.
    pub async fn delete_resource(&self, id: &str, resource: &Resource) -> Result<()> {
        let (namespace, id, resource) = (self.namespace.clone(), id.to_owned(), resource.clone());
        self.db
            .mutate(move |tx| {
                require(tx, &namespace, &id)?;
                validate(&resource)?;
                tx.count_as(Counts::Deletion);
                tx.remove(LEASE_RESOURCES, (namespace.as_str(), &id, &resource.kind, &resource.id)).map(drop)
            })
            .await
    }

    /// What a lease holds: content, images, ingests, then snapshots by snapshotter.
    pub fn list_resources(&self, id: &str) -> Result<Vec<Resource>> {
        let ns = self.namespace.as_str();
        self.db.read(|txn| {
            require(txn, &self.namespace, id)?;
            let mut all = Vec::new();
            txn.scan_raw(LEASE_RESOURCES, (ns, id, "", ""), |key, ()| {
                if (key.0, key.1) != (ns, id) {
                    return Ok(ControlFlow::Break(()));
                }
                all.push(Resource { kind: key.2.to_owned(), id: key.3.to_owned() });
                NEXT
            })?;
            Ok(all)
        })
    }
}

/// Adds something that has just been made to the lease of `scope`, if it has one.
pub(crate) fn add_resource(tx: &Tx<'_>, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    check_scope(tx, scope)?;
    match &scope.lease {
        Some(lease) => tx.mark(LEASE_RESOURCES, (scope.namespace.as_str(), lease, kind, id)),
        None => Ok(()),
    }
}

/// Refuses a scope whose lease does not exist.
pub(crate) fn check_scope(txn: &impl Source, scope: &Scope) -> Result<()> {
    match &scope.lease {
        Some(lease) if !txn.has(LEASES.table, (scope.namespace.as_str(), lease))? => {
            Err(Error::not_found("lease does not exist: not found"))
        }
        _ => Ok(()),
    }
}

/// Takes something that is going away from the lease of `scope`, if it has one.
pub(crate) fn drop_resource(tx: &Tx<'_>, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    match &scope.lease {
        Some(lease) => tx.remove(LEASE_RESOURCES, (scope.namespace.as_str(), lease, kind, id)).map(drop),
        None => Ok(()),
    }
}

/// Forgets everything that a lease holds.
pub(crate) fn remove_resources(tx: &Tx<'_>, index: Index<Quad>, ns: &str, lease: &str) -> Result<()> {
    let mut held = Vec::new();
    tx.scan_raw(index, (ns, lease, "", ""), |key, ()| {
        if (key.0, key.1) != (ns, lease) {
            return Ok(ControlFlow::Break(()));
        }
        held.push((key.2.to_owned(), key.3.to_owned()));
        NEXT
    })?;
    for (kind, id) in held {
        tx.remove(index, (ns, lease, &kind, &id))?;
    }
    Ok(())
}

fn require(txn: &impl Source, namespace: &Namespace, id: &str) -> Result<()> {
    match txn.has(LEASES.table, (namespace.as_str(), id))? {
        true => Ok(()),
        false => Err(not_found(id)),
    }
}

fn not_found(id: &str) -> Error {
    Error::not_found(format!("lease {id:?}: not found"))
}

fn validate(resource: &Resource) -> Result<()> {
    let Resource { kind, id } = resource;
    let mut parts = kind.split('/');
    match (parts.next(), parts.count()) {
        (Some("ingests" | "images"), 0) => Ok(()),
        (Some("content"), 0) => match id.parse::<Digest>() {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(Error::invalid(format!("invalid content resource id {id}: {error}: invalid argument")))
            }
        },
        (Some("content" | "ingests" | "images"), _) => {
            Err(Error::invalid(format!("invalid resource type {kind}: invalid argument")))
        }
        (Some("snapshots"), 1) => Ok(()),
        (Some("snapshots"), _) => {
            Err(Error::invalid(format!("invalid snapshot resource type {kind}: invalid argument")))
        }
        _ => Err(Error::unimplemented(format!("resource type {kind} not supported yet: not implemented"))),
    }
}

impl LeaseRecord {
    /// A lease with these labels.
    #[cfg(test)]
    pub(crate) fn with_labels(labels: BTreeMap<String, String>) -> Self {
        Self { labels, ..Self::default() }
    }

    fn into_lease(self, id: &str) -> Lease {
        Lease { id: id.to_owned(), labels: self.labels, created_at: time(self.created) }
    }
}

/// What a filter sees of a lease.
struct LeaseFields<'a>(&'a Lease);

impl Fields for LeaseFields<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "id" => Some(Cow::Borrowed(self.0.id.as_str())),
            "labels" => label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use types::Class;

    use super::*;
    use crate::fakes::{Bench, labels, ns};

    fn resource(kind: &str, id: &str) -> Resource {
        Resource { kind: kind.to_owned(), id: id.to_owned() }
    }

    #[tokio::test]
    async fn a_lease_is_made_listed_and_removed_with_what_it_held() {
        let bench = Bench::new();
        let leases = bench.open().leases(&ns("a"));
        let expiring = labels(&[(labels::GC_EXPIRE, "2026-01-01T00:00:00Z")]);
        let made = leases.create(Some("l1".to_owned()), expiring.clone()).await.unwrap();
        assert_eq!(leases.get("l1").unwrap(), made);
        assert_eq!(made.labels, expiring, "the time of expiry is kept");
        let error = leases.create(Some("l1".to_owned()), labels(&[])).await.unwrap_err();
        assert_eq!(error.to_string(), r#"lease "l1": already exists"#);
        let random = leases.create(None, labels(&[("k", "v")])).await.unwrap();
        let other = leases.create(Some(String::new()), labels(&[])).await.unwrap();
        assert_ne!(random.id, other.id);
        let mut found = Vec::new();
        let filters = Filters::parse(&["labels.k==v", "id==l1"]).unwrap();
        leases
            .list(&filters, &mut |lease| {
                found.push(lease.id);
                Ok(())
            })
            .unwrap();
        found.sort();
        assert_eq!(found, {
            let mut all = vec!["l1".to_owned(), random.id];
            all.sort();
            all
        });

        leases.add_resource("l1", resource("ingests", "x")).await.unwrap();
        leases.delete("l1").await.unwrap();
        assert_eq!(leases.delete("l1").await.unwrap_err().to_string(), r#"lease "l1": not found"#);
        leases.create(Some("l1".to_owned()), labels(&[])).await.unwrap();
        assert!(leases.list_resources("l1").unwrap().is_empty());
    }

    #[tokio::test]
    async fn resources_are_kept_in_order_and_once() {
        let bench = Bench::new();
        let leases = bench.open().leases(&ns("a"));
        leases.create(Some("l".to_owned()), labels(&[])).await.unwrap();
        leases.create(Some("l0".to_owned()), labels(&[])).await.unwrap();
        let digest = Digest::of(b"x").to_string();
        let all = [
            resource("content", &digest),
            resource("images", "a/b:c"),
            resource("ingests", "layer-0"),
            resource("snapshots/overlayfs", "sha256:aa"),
        ];
        for one in all.iter().rev().chain(&all) {
            leases.add_resource("l", one.clone()).await.unwrap();
        }
        assert_eq!(leases.list_resources("l").unwrap(), all);
        assert!(leases.list_resources("l0").unwrap().is_empty());
        leases.delete_resource("l", &all[1]).await.unwrap();
        leases.delete_resource("l", &all[1]).await.unwrap();
        assert_eq!(leases.list_resources("l").unwrap().len(), 3);
        assert!(leases.list_resources("nowhere").unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn kinds_are_checked_in_upstreams_words() {
        let bench = Bench::new();
        let leases = bench.open().leases(&ns("a"));
        leases.create(Some("l".to_owned()), labels(&[])).await.unwrap();
        for (kind, class, words) in [
            ("content", Class::InvalidArgument, "invalid content resource id x"),
            ("content/x", Class::InvalidArgument, "invalid resource type content/x: invalid argument"),
            ("snapshots", Class::InvalidArgument, "invalid snapshot resource type snapshots"),
            ("snapshots/a/b", Class::InvalidArgument, "invalid snapshot resource type"),
            ("mounts", Class::Unimplemented, "resource type mounts not supported yet"),
        ] {
            let error = leases.add_resource("l", resource(kind, "x")).await.unwrap_err();
            assert_eq!(error.class(), class);
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = leases.add_resource("nowhere", resource("images", "x")).await.unwrap_err();
        assert_eq!(error.to_string(), r#"lease "nowhere": not found"#);
    }
}
