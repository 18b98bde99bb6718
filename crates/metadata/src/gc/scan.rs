//! The pass over a version of the database that fills the graph, and the one that finds the keys of what is dead.

use std::collections::HashMap;
use std::time::SystemTime;

use redb::{ReadTransaction, ReadableTable, TableDefinition};
use types::Result;

use crate::schema::{
    BLOBS, CONTAINERS, IMAGES, INGESTS, LEASE_RESOURCES, LEASES, Pair, SANDBOXES, SNAPSHOTS,
};
use crate::tx::{NEXT, Source};

use super::collectible::Known;
use super::facts::{Fact, Lease, Reading, needs};
use super::graph::{Graph, Marked};
use super::node::{Id, Ids, Kind, Node, Owned};
use super::reference::Condition;

/// What the first pass gathers.
pub(super) struct Scan<'a> {
    ids: &'a Ids,
    reading: Reading<'a>,
    graph: Graph,
    /// References that stand at the row that they lead to: from, and the row. Few, so with their names.
    back: Vec<(Id, Owned)>,
    conditions: Vec<(Id, Condition, Owned)>,
    used: HashMap<Id, Vec<SystemTime>>,
    flat: Vec<Owned>,
    soonest: Option<SystemTime>,
}

/// What a mark has found in one version of the database.
pub(super) struct Found {
    pub(super) marked: Marked,
    /// What is kept by something that does not name it: by whom, and what.
    pub(super) back: Vec<(Id, Owned)>,
    /// When the next thing expires.
    pub(super) soonest: Option<SystemTime>,
}

/// Marks what is in use in the version of `txn`, and by what `known` says.
pub(super) fn mark(txn: &ReadTransaction, ids: &Ids, reading: Reading<'_>, known: &[Known]) -> Result<Found> {
    let mut scan = Scan {
        ids,
        reading,
        graph: Graph::default(),
        back: Vec::new(),
        conditions: Vec::new(),
        used: HashMap::new(),
        flat: Vec::new(),
        soonest: None,
    };
    let leases = scan.leases(txn)?;
    scan.resources(txn, &leases)?;
    for known in known {
        scan.collectible(known, &leases);
    }
    scan.pairs(txn, IMAGES.table, Kind::Image)?;
    scan.pairs(txn, INGESTS.table, Kind::Ingest)?;
    scan.pairs(txn, BLOBS.table, Kind::Content)?;
    scan.pairs(txn, CONTAINERS.table, Kind::Container)?;
    scan.pairs(txn, SANDBOXES.table, Kind::Sandbox)?;
    scan.snapshots(txn)?;
    scan.finish(txn)
}

impl Scan<'_> {
    /// The live leases by namespace and id.
    fn leases(&mut self, txn: &ReadTransaction) -> Result<HashMap<(String, String), Lease>> {
        let mut live = HashMap::new();
        txn.scan_raw(LEASES.table, ("", ""), |key, bytes| {
            let id = self.ids.of(Node::new(Kind::Lease, key.0, key.1));
            self.graph.row(id);
            let lease = self.reading.lease(key.1, bytes)?;
            if lease.live {
                self.graph.root(id);
                self.expires(lease.until);
                live.insert((key.0.to_owned(), key.1.to_owned()), lease);
            }
            NEXT
        })?;
        Ok(live)
    }

    fn resources(&mut self, txn: &ReadTransaction, leases: &HashMap<(String, String), Lease>) -> Result<()> {
        let mut current: Option<(String, String, Option<Lease>)> = None;
        txn.scan_raw(LEASE_RESOURCES, ("", "", "", ""), |key, ()| {
            if current.as_ref().is_none_or(|(ns, id, _)| (ns.as_str(), id.as_str()) != (key.0, key.1)) {
                let at = (key.0.to_owned(), key.1.to_owned());
                let lease = leases.get(&at).copied();
                current = Some((at.0, at.1, lease));
            }
            let lease = current.as_ref().and_then(|(_, _, lease)| *lease);
            if let (Some(lease), Some(node)) = (lease, resource(key.0, key.2, key.3)) {
                match lease.flat {
                    true => self.flat.push(node.to_owned()),
                    false => self.graph.root(self.ids.of(node)),
                }
            }
            NEXT
        })
    }

    fn pairs(
        &mut self,
        txn: &ReadTransaction,
        table: TableDefinition<'static, Pair, &'static [u8]>,
        kind: Kind,
    ) -> Result<()> {
        txn.scan_raw(table, ("", ""), |key, bytes| {
            self.row(Node::new(kind, key.0, key.1), bytes)?;
            NEXT
        })
    }

    fn snapshots(&mut self, txn: &ReadTransaction) -> Result<()> {
        txn.scan_raw(SNAPSHOTS.table, ("", "", ""), |key, bytes| {
            self.row(Node::snapshot(key.0, key.1, key.2), bytes)?;
            NEXT
        })
    }

    fn row(&mut self, node: Node<'_>, bytes: &[u8]) -> Result<()> {
        let id = self.ids.of(node);
        self.graph.row(id);
        // A copy, as `self` is changed meanwhile.
        let reading = self.reading;
        reading.facts(node, bytes, &mut |fact| match fact {
            Fact::Root => self.graph.root(id),
            Fact::Until(until) => {
                self.graph.root(id);
                self.expires(Some(until));
            }
            Fact::To(to) => self.graph.refer(self.ids.of(to)),
            Fact::From(from) => self.back.push((self.ids.of(from), node.to_owned())),
            Fact::If(condition, to) => self.conditions.push((id, condition, to.to_owned())),
            Fact::UsedAt(used) => self.used.entry(id).or_default().push(used),
        })
    }

    fn collectible(&mut self, known: &Known, leases: &HashMap<(String, String), Lease>) {
        for item in &known.items {
            let namespace = item.namespace.as_str();
            let node = Node { kind: Kind::Other, namespace, group: known.kind, key: &item.id };
            let id = self.ids.of(node);
            self.graph.row(id);
            let leased = item.lease.as_ref().map(|lease| (namespace.to_owned(), lease.clone()));
            if item.active || leased.is_some_and(|at| leases.contains_key(&at)) {
                self.graph.root(id);
            }
            for from in item.kept_by() {
                self.back.push((self.ids.of(from), node.to_owned()));
            }
        }
    }

    fn expires(&mut self, until: Option<SystemTime>) {
        if let Some(until) = until {
            self.soonest = Some(self.soonest.map_or(until, |soonest| soonest.min(until)));
        }
    }

    fn finish(mut self, txn: &ReadTransaction) -> Result<Found> {
        for (from, condition, to) in std::mem::take(&mut self.conditions) {
            let used = self.used.get(&self.ids.of(to.node()));
            if used.is_some_and(|times| times.iter().any(|used| condition.holds(*used, self.reading.now))) {
                self.back.push((from, to));
            }
        }
        self.back.sort_unstable();
        for (from, to) in &self.back {
            self.graph.link(*from, self.ids.of(to.node()));
        }
        let mut flat = Vec::new();
        for owned in &self.flat {
            keep_flat(txn, self.ids, owned, &mut flat)?;
        }
        let Self { graph, back, soonest, .. } = self;
        Ok(Found { marked: graph.mark(&flat), back, soonest })
    }
}

/// What a lease names.
pub(super) fn resource<'a>(namespace: &'a str, kind: &'a str, id: &'a str) -> Option<Node<'a>> {
    Some(match kind.split_once('/') {
        None if kind == "content" => Node::new(Kind::Content, namespace, id),
        None if kind == "images" => Node::new(Kind::Image, namespace, id),
        None if kind == "ingests" => Node::new(Kind::Ingest, namespace, id),
        Some(("snapshots", snapshotter)) => Node::snapshot(namespace, snapshotter, id),
        _ => return None,
    })
}

/// A thing without what it refers to by labels: an image with its target, a snapshot with those below it.
fn keep_flat(txn: &ReadTransaction, ids: &Ids, start: &Owned, flat: &mut Vec<Id>) -> Result<()> {
    let mut next = Some(start.clone());
    while let Some(owned) = next {
        flat.push(ids.of(owned.node()));
        let needs = with_row(txn, owned.node(), |bytes| Ok(needs(owned.node(), bytes)?.map(Node::to_owned)))?;
        next = needs.flatten();
    }
    Ok(())
}

/// Calls `look` with the row of a thing, if it has one.
pub(super) fn with_row<T>(
    source: &impl Source,
    node: Node<'_>,
    look: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<Option<T>> {
    let pair = (node.namespace, node.key);
    let table = match node.kind {
        Kind::Lease => LEASES.table,
        Kind::Image => IMAGES.table,
        Kind::Container => CONTAINERS.table,
        Kind::Sandbox => SANDBOXES.table,
        Kind::Ingest => INGESTS.table,
        Kind::Content => BLOBS.table,
        Kind::Snapshot => {
            let table = source.open(SNAPSHOTS.table)?;
            let found = table.get((node.namespace, node.group, node.key)).map_err(|e| source.failed(e))?;
            return found.map(|bytes| look(bytes.value())).transpose();
        }
        Kind::Other => return Ok(None),
    };
    let table = source.open(table)?;
    let found = table.get(pair).map_err(|e| source.failed(e))?;
    found.map(|bytes| look(bytes.value())).transpose()
}

/// The dead things with their names, in the order in which they can be removed.
pub(super) fn dead(txn: &ReadTransaction, ids: &Ids, marked: &Marked) -> Result<Vec<Owned>> {
    let places: HashMap<Id, usize> = marked.dead.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut found: Vec<(usize, Owned)> = Vec::with_capacity(places.len());
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let mut look = |node: Node<'_>| {
        if let Some(place) = places.get(&ids.of(node)) {
            found.push((*place, node.to_owned()));
        }
        NEXT
    };
    for (table, kind) in [
        (LEASES.table, Kind::Lease),
        (IMAGES.table, Kind::Image),
        (INGESTS.table, Kind::Ingest),
        (BLOBS.table, Kind::Content),
    ] {
        txn.scan_raw(table, ("", ""), |key, _| look(Node::new(kind, key.0, key.1)))?;
    }
    txn.scan_raw(SNAPSHOTS.table, ("", "", ""), |key, _| look(Node::snapshot(key.0, key.1, key.2)))?;
    found.sort_unstable_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, owned)| owned).collect())
}
