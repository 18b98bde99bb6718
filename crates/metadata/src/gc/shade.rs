//! Keeping, inside a write transaction, what was touched since the mark: with all that it refers to now.

use redb::Value;
use types::Result;

use crate::barrier::Touched;
use crate::schema::{LEASE_RESOURCES, Pair, Quad, Table, Triple};
use crate::tx::{NEXT, Source, Tx};

use super::facts::{Fact, Reading};
use super::graph::Marked;
use super::node::{Id, Ids, Kind, Node, Owned};
use super::scan::{resource, with_row};

/// What is kept, and what it takes to keep more.
pub(super) struct Keep {
    pub(super) ids: Ids,
    pub(super) marked: Marked,
    /// What is kept by something that does not name it; sorted.
    pub(super) back: Vec<(Id, Owned)>,
}

impl Keep {
    /// Keeps each row that was touched, and whatever it refers to in the state that `tx` sees.
    pub(super) fn shade(&mut self, tx: &Tx<'_>, reading: &Reading<'_>, touched: &[Touched]) -> Result<()> {
        let mut next = Vec::new();
        for (table, key) in touched {
            let Some(node) = decode(*table, key) else { continue };
            if with_row(tx, node.node(), |_| Ok(()))?.is_none() {
                continue;
            }
            if node.kind == Kind::Lease {
                held(tx, node.node(), &mut next)?;
            }
            self.marked.add(self.ids.of(node.node()));
            // It may refer to something else than before, whether or not it was kept already.
            self.references(tx, reading, &node, &mut next)?;
        }
        while let Some(node) = next.pop() {
            if self.marked.add(self.ids.of(node.node())) {
                self.references(tx, reading, &node, &mut next)?;
            }
        }
        Ok(())
    }

    fn references(
        &self,
        tx: &Tx<'_>,
        reading: &Reading<'_>,
        of: &Owned,
        next: &mut Vec<Owned>,
    ) -> Result<()> {
        let id = self.ids.of(of.node());
        let from = self.back.partition_point(|(from, _)| *from < id);
        next.extend(self.back[from..].iter().take_while(|(from, _)| *from == id).map(|(_, to)| to.clone()));
        let mut conditions = Vec::new();
        with_row(tx, of.node(), |bytes| {
            reading.facts(of.node(), bytes, &mut |fact| match fact {
                Fact::To(to) => next.push(to.to_owned()),
                Fact::If(condition, to) => conditions.push((condition, to.to_owned())),
                Fact::Root | Fact::Until(_) | Fact::From(_) | Fact::UsedAt(_) => {}
            })
        })?;
        for (condition, to) in conditions {
            let mut holds = false;
            with_row(tx, to.node(), |bytes| {
                reading.facts(to.node(), bytes, &mut |fact| {
                    if let Fact::UsedAt(used) = fact {
                        holds |= condition.holds(used, reading.now);
                    }
                })
            })?;
            if holds {
                next.push(to);
            }
        }
        Ok(())
    }
}

/// What a lease holds.
fn held(tx: &Tx<'_>, lease: Node<'_>, next: &mut Vec<Owned>) -> Result<()> {
    tx.scan_raw(LEASE_RESOURCES, (lease.namespace, lease.key, "", ""), |key, ()| {
        if (key.0, key.1) != (lease.namespace, lease.key) {
            return Ok(std::ops::ControlFlow::Break(()));
        }
        next.extend(resource(key.0, key.2, key.3).map(Node::to_owned));
        NEXT
    })
}

/// The thing that a touched row is, or that it names.
fn decode(table: Table, key: &[u8]) -> Option<Owned> {
    let pair = |kind| {
        let (namespace, key) = <Pair as Value>::from_bytes(key);
        Some(Node::new(kind, namespace, key).to_owned())
    };
    match table {
        Table::Leases => pair(Kind::Lease),
        Table::Images => pair(Kind::Image),
        Table::Containers => pair(Kind::Container),
        Table::Sandboxes => pair(Kind::Sandbox),
        Table::Ingests => pair(Kind::Ingest),
        Table::Blobs => pair(Kind::Content),
        Table::Snapshots => {
            let (namespace, snapshotter, key) = <Triple as Value>::from_bytes(key);
            Some(Node::snapshot(namespace, snapshotter, key).to_owned())
        }
        Table::LeaseResources => {
            let (namespace, _, kind, id) = <Quad as Value>::from_bytes(key);
            resource(namespace, kind, id).map(Node::to_owned)
        }
    }
}
