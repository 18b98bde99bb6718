//! What a row says: what it refers to, what keeps it, and until when it stays.

use std::time::SystemTime;

use types::Result;
use types::labels::GC_EXPIRE;

use crate::containers::ContainerRecord;
use crate::content::{BlobRecord, IngestRecord};
use crate::images::ImageRecord;
use crate::leases::LeaseRecord;
use crate::sandboxes::SandboxRecord;
use crate::snapshots::SnapshotRecord;

use super::node::{Kind, Node};
use super::reference::{self, Condition, FLAT, Reference, Target};
use super::row::Row;

/// Something that a row says.
pub(super) enum Fact<'a> {
    /// It stays.
    Root,
    /// It stays until then.
    Until(SystemTime),
    /// It keeps this.
    To(Node<'a>),
    /// This keeps it.
    From(Node<'a>),
    /// It keeps this snapshot, under a condition.
    If(Condition, Node<'a>),
    /// It was used then.
    UsedAt(SystemTime),
}

/// Reads rows at a moment.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// What is over by then has expired.
    pub(super) now: SystemTime,
    /// The kinds of collectibles.
    pub(super) others: &'a [&'a str],
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lease {
    /// It has not expired.
    pub(super) live: bool,
    /// When it will.
    pub(super) until: Option<SystemTime>,
    /// It keeps only what it names.
    pub(super) flat: bool,
}

impl<'o> Reading<'o> {
    /// Calls `each` for what the row of `node` says.
    pub(super) fn facts<'a>(
        &self,
        node: Node<'a>,
        bytes: &'a [u8],
        each: &mut dyn FnMut(Fact<'a>),
    ) -> Result<()>
    where
        'o: 'a,
    {
        match node.kind {
            Kind::Image => self.image(node, bytes, each),
            Kind::Container => self.container(node, bytes, each),
            Kind::Sandbox => {
                let row = Row::of::<SandboxRecord>(node.key, bytes)?;
                each(Fact::Root);
                self.labels(node, row, 2, each)
            }
            Kind::Ingest => self.ingest(node, bytes, each),
            Kind::Content => self.labels(node, Row::of::<BlobRecord>(node.key, bytes)?, 3, each),
            Kind::Snapshot => self.snapshot(node, bytes, each),
            // A lease's references stand in a table of their own, others have no rows.
            Kind::Lease | Kind::Other => Ok(()),
        }
    }

    /// What the row of a lease says.
    pub(super) fn lease(&self, id: &str, bytes: &[u8]) -> Result<Lease> {
        let row = Row::of::<LeaseRecord>(id, bytes)?;
        let mut lease = Lease { live: true, until: None, flat: false };
        row.labels(2, |key, value| {
            lease.flat |= key == FLAT;
            if key == GC_EXPIRE {
                lease.until = expiry("lease", id, value);
            }
        })?;
        lease.live = lease.until.is_none_or(|until| until >= self.now);
        Ok(lease)
    }

    fn image<'a>(&self, node: Node<'a>, bytes: &'a [u8], each: &mut dyn FnMut(Fact<'a>)) -> Result<()>
    where
        'o: 'a,
    {
        let row = Row::of::<ImageRecord>(node.key, bytes)?;
        let mut until = None;
        row.labels(2, |key, value| {
            if key == GC_EXPIRE {
                until = expiry("image", node.key, value);
            }
        })?;
        match until {
            Some(until) if until >= self.now => each(Fact::Until(until)),
            Some(_) => {}
            None => each(Fact::Root),
        }
        inherent(node, row)?.into_iter().for_each(|target| each(Fact::To(target)));
        self.labels(node, row, 2, each)
    }

    fn container<'a>(&self, node: Node<'a>, bytes: &'a [u8], each: &mut dyn FnMut(Fact<'a>)) -> Result<()>
    where
        'o: 'a,
    {
        let row = Row::of::<ContainerRecord>(node.key, bytes)?;
        each(Fact::Root);
        let snapshotter = row.text(7)?;
        if !snapshotter.is_empty() {
            each(Fact::To(Node::snapshot(node.namespace, snapshotter, row.text(8)?)));
        }
        self.labels(node, row, 2, each)
    }

    fn ingest<'a>(&self, node: Node<'a>, bytes: &'a [u8], each: &mut dyn FnMut(Fact<'a>)) -> Result<()> {
        let row = Row::of::<IngestRecord>(node.key, bytes)?;
        if let Some(time) = row.message(5)? {
            let seconds = time.number(1)?.cast_signed();
            let nanos = u32::try_from(time.number(2)?).unwrap_or_default();
            let until = types::time::from_unix(seconds, nanos);
            if until >= self.now {
                each(Fact::Until(until));
            }
        }
        let shares = row.text(3)?;
        if !shares.is_empty() {
            each(Fact::To(Node::new(Kind::Content, node.namespace, shares)));
        }
        Ok(())
    }

    fn snapshot<'a>(&self, node: Node<'a>, bytes: &'a [u8], each: &mut dyn FnMut(Fact<'a>)) -> Result<()>
    where
        'o: 'a,
    {
        let row = Row::of::<SnapshotRecord>(node.key, bytes)?;
        if row.message(7)?.is_some() {
            // Somebody is committing it at this moment.
            each(Fact::Root);
        }
        inherent(node, row)?.into_iter().for_each(|parent| each(Fact::To(parent)));
        self.labels(node, row, 4, each)
    }

    fn labels<'a>(&self, node: Node<'a>, row: Row<'a>, tag: u32, each: &mut dyn FnMut(Fact<'a>)) -> Result<()>
    where
        'o: 'a,
    {
        let at = |target: Target<'a>| Node {
            kind: target.kind,
            namespace: node.namespace,
            group: target.group,
            key: target.key,
        };
        row.labels(tag, |key, value| {
            reference::read(key, value, self.others, &mut |reference| match reference {
                // Only content and snapshots can be roots by a label.
                Reference::Root if matches!(node.kind, Kind::Content | Kind::Snapshot) => each(Fact::Root),
                Reference::Root => {}
                Reference::To(target) => each(Fact::To(at(target))),
                Reference::From(target) => each(Fact::From(at(target))),
                Reference::If(condition, target) if matches!(node.kind, Kind::Content | Kind::Image) => {
                    each(Fact::If(condition, at(target)));
                }
                Reference::If(..) => {}
                Reference::UsedAt(used) => each(Fact::UsedAt(used)),
            });
        })
    }
}

/// What an image or a snapshot cannot be without: its target, its parent.
pub(super) fn needs<'a>(node: Node<'a>, bytes: &'a [u8]) -> Result<Option<Node<'a>>> {
    match node.kind {
        Kind::Image => inherent(node, Row::of::<ImageRecord>(node.key, bytes)?),
        Kind::Snapshot => inherent(node, Row::of::<SnapshotRecord>(node.key, bytes)?),
        Kind::Lease | Kind::Container | Kind::Sandbox | Kind::Ingest | Kind::Content | Kind::Other => {
            Ok(None)
        }
    }
}

fn inherent<'a>(node: Node<'a>, row: Row<'a>) -> Result<Option<Node<'a>>> {
    if node.kind == Kind::Image {
        return Ok(Some(Node::new(Kind::Content, node.namespace, row.text(4)?)));
    }
    let parent = row.text(3)?;
    Ok((!parent.is_empty()).then(|| Node::snapshot(node.namespace, node.group, parent)))
}

fn expiry(what: &str, id: &str, value: &str) -> Option<SystemTime> {
    let until = reference::expiry(value);
    if until.is_none() {
        tracing::info!(id, value, "{what}: ignoring invalid expiration value");
    }
    until
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::encode;

    /// The tags above are those of the records.
    #[test]
    fn fields_are_read_where_the_records_have_them() {
        let labels = crate::fakes::labels(&[("containerd.io/gc.ref.content.x", "label")]);
        let intent = Some(crate::snapshots::CommitIntent::default());
        let rows = [
            (Kind::Image, encode(ImageRecord::of_target("target", labels.clone())), "target label"),
            (
                Kind::Container,
                encode(ContainerRecord::of_snapshot("sn", "key", labels.clone())),
                "root sn/key label",
            ),
            (Kind::Content, encode(BlobRecord::new(1, labels.clone())), "label"),
            (
                Kind::Ingest,
                encode(IngestRecord {
                    shares: "shared".to_owned(),
                    becomes: "other".to_owned(),
                    expires: Some((SystemTime::now() + std::time::Duration::from_secs(9)).into()),
                    ..IngestRecord::default()
                }),
                "until shared",
            ),
            (
                Kind::Snapshot,
                encode(SnapshotRecord {
                    parent: "p".to_owned(),
                    labels,
                    intent,
                    ..SnapshotRecord::default()
                }),
                "root g/p label",
            ),
        ];
        let reading = Reading { now: SystemTime::now(), others: &[] };
        for (kind, bytes, expected) in rows {
            let node = Node { kind, namespace: "ns", group: "g", key: "k" };
            let mut found = Vec::new();
            reading
                .facts(node, &bytes, &mut |fact| {
                    found.push(match fact {
                        Fact::Root => "root".to_owned(),
                        Fact::Until(_) => "until".to_owned(),
                        Fact::To(Node { group: "", key, .. }) => key.to_owned(),
                        Fact::To(Node { group, key, .. }) => format!("{group}/{key}"),
                        Fact::From(_) | Fact::If(..) | Fact::UsedAt(_) => "?".to_owned(),
                    });
                })
                .unwrap();
            let found = found.join(" ").replace("root target", "target");
            assert_eq!(found, expected, "{kind:?}");
        }
    }
}
