//! Random databases, collected while the world stands still, held against a model: sets of names, and a loop until nothing
//! is added any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use types::{Digest, Labels};

use super::{NS, ago, hence};
use crate::Db;
use crate::content::{BlobRecord, IngestRecord};
use crate::fakes::{Bench, SNAPSHOTTER, container, image};
use crate::leases::LeaseRecord;
use crate::schema::{
    BLOB_HOLDERS, BLOBS, CHILDREN, CONTAINERS, IMAGES, INGESTS, LEASE_RESOURCES, LEASES, SNAPSHOTS,
};
use crate::snapshots::SnapshotRecord;
use crate::tx::{Source, Tx};

/// How many of each kind there may be.
const MANY: usize = 5;

/// A thing by kind and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Image(usize),
    Blob(usize),
    Snapshot(usize),
    Container(usize),
    Ingest(usize),
    Lease(usize),
}

use Thing::{Blob, Container, Image, Ingest, Lease, Snapshot};

/// What a label says.
#[derive(Clone, Debug)]
enum Label {
    Root,
    To(Thing),
    From(Thing),
    If(usize),
    UsedRecently,
    UsedLongAgo,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expiry {
    Never,
    Over,
    Later,
}

#[derive(Clone, Debug)]
struct World {
    images: BTreeMap<usize, (usize, Expiry, Vec<Label>)>,
    blobs: BTreeMap<usize, Vec<Label>>,
    /// Parents are smaller numbers.
    snapshots: BTreeMap<usize, (Option<usize>, Vec<Label>)>,
    containers: BTreeMap<usize, (Option<usize>, Vec<Label>)>,
    ingests: BTreeMap<usize, (Option<usize>, Expiry)>,
    leases: BTreeMap<usize, (Expiry, bool, Vec<Thing>)>,
}

fn number() -> impl Strategy<Value = usize> {
    0..MANY
}

fn target() -> impl Strategy<Value = Thing> {
    prop_oneof![number().prop_map(Image), number().prop_map(Blob), number().prop_map(Snapshot)]
}

fn keeper() -> impl Strategy<Value = Thing> {
    prop_oneof![target(), number().prop_map(Container)]
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![
        1 => Just(Label::Root),
        4 => target().prop_map(Label::To),
        3 => keeper().prop_map(Label::From),
        2 => number().prop_map(Label::If),
        2 => Just(Label::UsedRecently),
        1 => Just(Label::UsedLongAgo),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::Never), Just(Expiry::Over), Just(Expiry::Later)]
}

fn few<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = BTreeMap<usize, T>> {
    proptest::collection::btree_map(number(), what, 0..MANY)
}

fn world() -> impl Strategy<Value = World> {
    let labels = || proptest::collection::vec(label(), 0..3);
    let maybe = || proptest::option::of(number());
    let held = prop_oneof![3 => target(), 1 => number().prop_map(Ingest)];
    let held = proptest::collection::vec(held, 0..3);
    (
        few((number(), expiry(), labels())),
        few(labels()),
        few((maybe(), labels())),
        proptest::collection::btree_map(number(), (maybe(), labels()), 0..2),
        few((maybe(), expiry())),
        proptest::collection::btree_map(number(), (expiry(), any::<bool>(), held), 0..3),
    )
        .prop_map(|(images, blobs, snapshots, containers, ingests, leases)| World {
            images,
            blobs,
            snapshots,
            containers,
            ingests,
            leases,
        })
}

impl World {
    fn parent(&self, key: usize) -> Option<usize> {
        self.snapshots[&key].0.filter(|parent| *parent < key && self.snapshots.contains_key(parent))
    }

    fn labels(&self, thing: Thing) -> &[Label] {
        match thing {
            Image(n) => self.images.get(&n).map(|(_, _, labels)| labels.as_slice()),
            Blob(n) => self.blobs.get(&n).map(Vec::as_slice),
            Snapshot(n) => self.snapshots.get(&n).map(|(_, labels)| labels.as_slice()),
            Container(n) => self.containers.get(&n).map(|(_, labels)| labels.as_slice()),
            Ingest(_) | Lease(_) => None,
        }
        .unwrap_or_default()
    }

    fn all(&self) -> BTreeSet<Thing> {
        let images = self.images.keys().map(|n| Image(*n));
        let blobs = self.blobs.keys().map(|n| Blob(*n));
        let snapshots = self.snapshots.keys().map(|n| Snapshot(*n));
        let ingests = self.ingests.keys().map(|n| Ingest(*n));
        let leases = self.leases.keys().map(|n| Lease(*n));
        images.chain(blobs).chain(snapshots).chain(ingests).chain(leases).collect()
    }

    /// What stays by itself; and what stays without what it refers to.
    fn roots(&self) -> (BTreeSet<Thing>, BTreeSet<Thing>) {
        let (mut roots, mut flat) = (BTreeSet::new(), BTreeSet::new());
        let live = |expiry: &Expiry| *expiry != Expiry::Over;
        roots.extend(self.images.iter().filter(|(_, image)| live(&image.1)).map(|(n, _)| Image(*n)));
        roots.extend(self.containers.keys().map(|n| Container(*n)));
        roots.extend(
            self.ingests.iter().filter(|(_, ingest)| ingest.1 == Expiry::Later).map(|(n, _)| Ingest(*n)),
        );
        for (n, (_, is_flat, held)) in self.leases.iter().filter(|(_, lease)| live(&lease.0)) {
            roots.insert(Lease(*n));
            if *is_flat { flat.extend(held) } else { roots.extend(held) }
        }
        for thing in self.all() {
            let root = self.labels(thing).iter().any(|label| matches!(label, Label::Root));
            if root && matches!(thing, Blob(_) | Snapshot(_)) {
                roots.insert(thing);
            }
        }
        (roots, flat)
    }

    /// What `thing` keeps, if it is kept itself.
    fn keeps(&self, thing: Thing) -> Vec<Thing> {
        let mut keeps = Vec::new();
        match thing {
            Image(n) => keeps.extend(self.images.get(&n).map(|image| Blob(image.0))),
            Snapshot(n) if self.snapshots.contains_key(&n) => keeps.extend(self.parent(n).map(Snapshot)),
            Container(n) => keeps.extend(self.containers.get(&n).and_then(|c| c.0).map(Snapshot)),
            Ingest(n) => keeps.extend(self.ingests.get(&n).and_then(|i| i.0).map(Blob)),
            Blob(_) | Snapshot(_) | Lease(_) => {}
        }
        for label in self.labels(thing) {
            match label {
                Label::To(to) => keeps.push(*to),
                Label::If(n) if matches!(thing, Image(_) | Blob(_)) => {
                    let used = self.labels(Snapshot(*n)).iter().any(|l| matches!(l, Label::UsedRecently));
                    keeps.extend(used.then_some(Snapshot(*n)));
                }
                _ => {}
            }
        }
        for other in self.all() {
            let from = |label: &Label| matches!(label, Label::From(from) if *from == thing);
            if self.labels(other).iter().any(from) {
                keeps.push(other);
            }
        }
        keeps
    }

    /// What is left when all that nothing keeps is gone.
    fn expected(&self) -> BTreeSet<Thing> {
        let (mut kept, flat) = self.roots();
        loop {
            let more: BTreeSet<Thing> = kept.iter().flat_map(|thing| self.keeps(*thing)).collect();
            if more.is_subset(&kept) {
                break;
            }
            kept.extend(more);
        }
        for thing in flat {
            kept.insert(thing);
            match thing {
                Image(n) => kept.extend(self.images.get(&n).map(|image| Blob(image.0))),
                Snapshot(mut n) => {
                    while self.snapshots.contains_key(&n) {
                        kept.insert(Snapshot(n));
                        match self.parent(n) {
                            Some(parent) => n = parent,
                            None => break,
                        }
                    }
                }
                _ => {}
            }
        }
        kept.intersection(&self.all()).copied().collect()
    }
}

fn digest(n: usize) -> Digest {
    Digest::of(n.to_string().as_bytes())
}

fn text(kind: &str, n: usize) -> String {
    format!("{kind}{n}")
}

/// The label and value of what a label says; `place` keeps two of a kind apart.
fn written(label: &Label, place: usize) -> (String, String) {
    let (prefix, thing) = match label {
        Label::Root => return ("containerd.io/gc.root".to_owned(), "x".to_owned()),
        Label::If(n) => {
            let label = format!("containerd.io/gc.cond.snapshot.{SNAPSHOTTER}/{place}");
            return (label, format!("usedat<1h|{}", text("s", *n)));
        }
        Label::UsedRecently => return (format!("containerd.io/gc.cond.value-usedat.{place}"), ago(60)),
        Label::UsedLongAgo => return (format!("containerd.io/gc.cond.value-usedat.{place}"), ago(7200)),
        Label::To(thing) => ("ref", thing),
        Label::From(thing) => ("bref", thing),
    };
    let (kind, value) = match thing {
        Image(n) => (format!("image.{place}"), text("i", *n)),
        Blob(n) => (format!("content.{place}"), digest(*n).to_string()),
        Snapshot(n) => (format!("snapshot.{SNAPSHOTTER}/{place}"), text("s", *n)),
        Container(n) => (format!("container/{place}"), text("c", *n)),
        Ingest(_) | Lease(_) => unreachable!(),
    };
    (format!("containerd.io/gc.{prefix}.{kind}"), value)
}

fn labels(all: &[Label], expiry: Expiry) -> Labels {
    let mut labels: Labels = all.iter().enumerate().map(|(place, label)| written(label, place)).collect();
    match expiry {
        Expiry::Never => None,
        Expiry::Over => labels.insert("containerd.io/gc.expire".to_owned(), ago(1)),
        Expiry::Later => labels.insert("containerd.io/gc.expire".to_owned(), hence(600)),
    };
    labels
}

/// Writes the whole world in one transaction.
fn write(tx: &Tx<'_>, world: &World) -> types::Result<()> {
    tx.ensure_namespace(&NS.parse()?)?;
    for (n, (target, expiry, all)) in &world.images {
        let image = image(&text("i", *n), &digest(*target));
        let image = types::image::Image { labels: labels(all, *expiry), ..image };
        tx.put(IMAGES, (NS, &text("i", *n)), image.into())?;
    }
    for (n, all) in &world.blobs {
        tx.put(BLOBS, (NS, digest(*n).as_str()), BlobRecord::new(1, labels(all, Expiry::Never)))?;
        tx.mark(BLOB_HOLDERS, (digest(*n).as_str(), NS))?;
    }
    for (n, (_, all)) in &world.snapshots {
        let (key, parent) =
            (text("s", *n), world.parent(*n).map(|parent| text("s", parent)).unwrap_or_default());
        if !parent.is_empty() {
            tx.mark(CHILDREN, (NS, SNAPSHOTTER, &parent, &key))?;
        }
        let row = SnapshotRecord {
            backend_key: format!("{NS}/{n}/{key}"),
            parent,
            labels: labels(all, Expiry::Never),
            ..SnapshotRecord::default()
        };
        tx.put(SNAPSHOTS, (NS, SNAPSHOTTER, &key), row)?;
    }
    for (n, (snapshot, all)) in &world.containers {
        let mut row =
            types::container::Container { labels: labels(all, Expiry::Never), ..container(&text("c", *n)) };
        if let Some(snapshot) = snapshot {
            (row.snapshotter, row.snapshot_key) = (SNAPSHOTTER.to_owned(), text("s", *snapshot));
        }
        tx.put(CONTAINERS, (NS, &text("c", *n)), row.into())?;
    }
    write_leases(tx, world)
}

fn write_leases(tx: &Tx<'_>, world: &World) -> types::Result<()> {
    let minute = Duration::from_secs(60);
    for (n, (shares, expiry)) in &world.ingests {
        let expires = match expiry {
            Expiry::Never => None,
            Expiry::Over => Some((SystemTime::now() - minute).into()),
            Expiry::Later => Some((SystemTime::now() + minute).into()),
        };
        let shares = shares.map(|n| digest(n).to_string()).unwrap_or_default();
        let row = IngestRecord { backend_ref: text("r", *n), shares, expires, ..IngestRecord::default() };
        tx.put(INGESTS, (NS, &text("r", *n)), row)?;
    }
    for (n, (expiry, flat, held)) in &world.leases {
        let mut labels = labels(&[], *expiry);
        if *flat {
            labels.insert("containerd.io/gc.flat".to_owned(), "x".to_owned());
        }
        tx.put(LEASES, (NS, &text("l", *n)), LeaseRecord::with_labels(labels))?;
        for thing in held {
            let snapshots = format!("snapshots/{SNAPSHOTTER}");
            let (kind, id) = match thing {
                Image(n) => ("images", text("i", *n)),
                Blob(n) => ("content", digest(*n).to_string()),
                Snapshot(n) => (snapshots.as_str(), text("s", *n)),
                Ingest(n) => ("ingests", text("r", *n)),
                Container(_) | Lease(_) => unreachable!(),
            };
            tx.mark(LEASE_RESOURCES, (NS, &text("l", *n), kind, &id))?;
        }
    }
    Ok(())
}

/// What there is.
fn left(db: &Db, world: &World) -> BTreeSet<Thing> {
    let there = |txn: &redb::ReadTransaction, thing: Thing| match thing {
        Image(n) => txn.has(IMAGES.table, (NS, &text("i", n))),
        Blob(n) => txn.has(BLOBS.table, (NS, digest(n).as_str())),
        Snapshot(n) => txn.has(SNAPSHOTS.table, (NS, SNAPSHOTTER, &text("s", n))),
        Ingest(n) => txn.has(INGESTS.table, (NS, &text("r", n))),
        Lease(n) => txn.has(LEASES.table, (NS, &text("l", n))),
        Container(n) => txn.has(CONTAINERS.table, (NS, &text("c", n))),
    };
    db.read(|txn| Ok(world.all().into_iter().filter(|thing| there(txn, *thing).unwrap()).collect())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_collection_leaves_what_the_model_says(worlds in proptest::collection::vec(world(), 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let db = bench.open();
            for world in worlds {
                let written = world.clone();
                db.mutate(move |tx| {
                    super::clear(tx)?;
                    write(tx, &written)
                }).await.unwrap();
                db.collect(&|_, _| ()).await.unwrap();
                assert_eq!(left(&db, &world), world.expected(), "{world:#?}");
            }
        });
    }
}
