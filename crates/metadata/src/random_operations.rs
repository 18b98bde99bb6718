//! Random operations on a database and its stores, held against a model that is nothing but maps.
//!
//! After each run: what the namespaces see is what the model says, and the stores hold nothing that nobody refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;
use types::container::Container;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::lease::Resource;
use types::view::{ContainerView, ImageView};
use types::{Class, Digest, Labels, Result, Scope};

use crate::Db;
use crate::fakes::{Bench, SNAPSHOTTER, container, image, ns, put};

const NAMES: [&str; 4] = ["w", "x", "y", "z"];
const NAMESPACES: [&str; 2] = ["a", "b"];
const LEASE: &str = "lease";

#[derive(Clone, Debug)]
enum Do {
    CreateContainer(usize),
    LabelContainer(usize, bool),
    DeleteContainer(usize),
    CreateImage(usize, usize),
    DeleteImage(usize, Option<usize>),
    CreateLease,
    DeleteLease,
    PutBlob(usize, bool),
    AbandonIngest(usize),
    AbortIngest(usize),
    DeleteBlob(usize),
    Prepare(usize, Option<usize>),
    Commit(usize, usize, Option<usize>),
    RemoveSnapshot(usize),
    DeleteNamespace,
    Reopen,
}

fn operation() -> impl Strategy<Value = (usize, Do)> {
    let name = || 0..NAMES.len();
    let maybe = move || proptest::option::of(name());
    let what = prop_oneof![
        1 => name().prop_map(Do::CreateContainer),
        1 => (name(), any::<bool>()).prop_map(|(name, on)| Do::LabelContainer(name, on)),
        1 => name().prop_map(Do::DeleteContainer),
        1 => (name(), name()).prop_map(|(name, target)| Do::CreateImage(name, target)),
        1 => (name(), maybe()).prop_map(|(name, target)| Do::DeleteImage(name, target)),
        1 => Just(Do::CreateLease),
        1 => Just(Do::DeleteLease),
        3 => (name(), any::<bool>()).prop_map(|(blob, leased)| Do::PutBlob(blob, leased)),
        1 => name().prop_map(Do::AbandonIngest),
        1 => name().prop_map(Do::AbortIngest),
        2 => name().prop_map(Do::DeleteBlob),
        3 => (name(), maybe()).prop_map(|(key, parent)| Do::Prepare(key, parent)),
        3 => (name(), name(), maybe()).prop_map(|(name, key, parent)| Do::Commit(name, key, parent)),
        2 => name().prop_map(Do::RemoveSnapshot),
        1 => Just(Do::DeleteNamespace),
        1 => Just(Do::Reopen),
    ];
    (0..NAMESPACES.len(), what)
}

#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    parent: Option<&'static str>,
    committed: bool,
}

/// An ingest may have begun with data of its own and share a blob that came later.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ingest {
    own: bool,
    shares: bool,
}

/// One namespace of the model.
#[derive(Clone, Debug, Default, PartialEq)]
struct Space {
    exists: bool,
    containers: BTreeMap<&'static str, bool>,
    images: BTreeMap<&'static str, usize>,
    lease: Option<BTreeSet<Resource>>,
    blobs: BTreeSet<usize>,
    ingests: BTreeMap<&'static str, Ingest>,
    snapshots: BTreeMap<&'static str, Snapshot>,
}

type Expected = Result<(), Class>;

fn blob(number: usize) -> Vec<u8> {
    vec![b'0' + u8::try_from(number).unwrap(); 100 + number]
}

fn digest(number: usize) -> Digest {
    Digest::of(&blob(number))
}

fn content(number: usize) -> Resource {
    Resource { kind: "content".to_owned(), id: digest(number).to_string() }
}

impl Space {
    /// What the model does and expects. `known` says which blobs a namespace has.
    fn apply(&mut self, what: &Do, known: impl Fn(usize) -> bool) -> Expected {
        let result = self.apply_records(what).unwrap_or_else(|| self.apply_stores(what, known));
        if result.is_ok() {
            self.exists = !matches!(what, Do::DeleteNamespace | Do::Reopen)
                || (self.exists && matches!(what, Do::Reopen));
        }
        result
    }

    fn apply_records(&mut self, what: &Do) -> Option<Expected> {
        Some(match *what {
            Do::CreateContainer(name) => match self.containers.insert(NAMES[name], false) {
                None => Ok(()),
                Some(labelled) => {
                    self.containers.insert(NAMES[name], labelled);
                    Err(Class::AlreadyExists)
                }
            },
            Do::LabelContainer(name, on) => match self.containers.get_mut(NAMES[name]) {
                Some(labelled) => {
                    *labelled = on;
                    Ok(())
                }
                None => Err(Class::NotFound),
            },
            Do::DeleteContainer(name) => self.containers.remove(NAMES[name]).map(drop).ok_or(Class::NotFound),
            Do::CreateImage(name, target) => match self.images.entry(NAMES[name]) {
                std::collections::btree_map::Entry::Occupied(_) => Err(Class::AlreadyExists),
                entry => {
                    entry.or_insert(target);
                    Ok(())
                }
            },
            Do::DeleteImage(name, target) => match self.images.get(NAMES[name]) {
                Some(found) if target.is_none_or(|target| target == *found) => {
                    self.images.remove(NAMES[name]);
                    Ok(())
                }
                _ => Err(Class::NotFound),
            },
            Do::CreateLease if self.lease.is_some() => Err(Class::AlreadyExists),
            Do::CreateLease => {
                self.lease = Some(BTreeSet::new());
                Ok(())
            }
            Do::DeleteLease => self.lease.take().map(drop).ok_or(Class::NotFound),
            _ => return None,
        })
    }

    fn apply_stores(&mut self, what: &Do, known: impl Fn(usize) -> bool) -> Expected {
        match *what {
            Do::PutBlob(_, true) if self.lease.is_none() => Err(Class::NotFound),
            Do::PutBlob(number, leased) => {
                if let Some(lease) = self.lease.as_mut().filter(|_| leased) {
                    lease.insert(content(number));
                }
                self.blobs.insert(number).then_some(()).ok_or(Class::AlreadyExists)
            }
            Do::AbandonIngest(number) if self.blobs.contains(&number) => Err(Class::AlreadyExists),
            Do::AbandonIngest(number) => {
                let ingest = self.ingests.entry(NAMES[number]).or_default();
                // A file that no namespace knows any more is not shared with one who does not say its size.
                match known(number) {
                    true => ingest.shares = true,
                    false => ingest.own = true,
                }
                Ok(())
            }
            Do::AbortIngest(number) => self.ingests.remove(NAMES[number]).map(drop).ok_or(Class::NotFound),
            Do::DeleteBlob(number) => self.blobs.remove(&number).then_some(()).ok_or(Class::NotFound),
            Do::Prepare(key, _) if self.snapshots.contains_key(NAMES[key]) => Err(Class::AlreadyExists),
            Do::Prepare(key, parent) => match parent.map(|parent| self.snapshots.get(NAMES[parent])) {
                Some(None) => Err(Class::NotFound),
                Some(Some(parent)) if !parent.committed => Err(Class::InvalidArgument),
                _ => {
                    let parent = parent.map(|parent| NAMES[parent]);
                    self.snapshots.insert(NAMES[key], Snapshot { parent, committed: false });
                    Ok(())
                }
            },
            Do::Commit(name, key, parent) => self.commit(NAMES[name], NAMES[key], parent.map(|p| NAMES[p])),
            Do::RemoveSnapshot(key) if self.snapshots.values().any(|s| s.parent == Some(NAMES[key])) => {
                Err(Class::FailedPrecondition)
            }
            Do::RemoveSnapshot(key) => self.snapshots.remove(NAMES[key]).map(drop).ok_or(Class::NotFound),
            Do::DeleteNamespace if !self.exists => Err(Class::NotFound),
            Do::DeleteNamespace => {
                let empty = self.containers.is_empty() && self.images.is_empty() && self.blobs.is_empty();
                if !empty || !self.snapshots.is_empty() {
                    return Err(Class::FailedPrecondition);
                }
                *self = Self::default();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, name: &'static str, key: &'static str, parent: Option<&'static str>) -> Expected {
        if self.snapshots.contains_key(name) {
            return Err(Class::AlreadyExists);
        }
        let found = self.snapshots.get(key).ok_or(Class::NotFound)?.clone();
        let parent = match found.parent {
            None => parent,
            own => own,
        };
        if parent.is_some_and(|parent| !self.snapshots.contains_key(parent)) {
            return Err(Class::NotFound);
        }
        if found.parent.is_none() && parent == Some(key) {
            return Err(Class::InvalidArgument);
        }
        if found.committed {
            return Err(Class::FailedPrecondition);
        }
        if parent.is_some_and(|parent| !self.snapshots[parent].committed) {
            return Err(Class::InvalidArgument);
        }
        self.snapshots.remove(key);
        self.snapshots.insert(name, Snapshot { parent, committed: true });
        Ok(())
    }
}

/// The same, for real.
async fn perform(db: &Db, namespace: &str, what: &Do) -> Result<()> {
    let namespace = ns(namespace);
    let scope = Scope::new(namespace.clone());
    let snapshots = db.snapshotter(scope.clone(), SNAPSHOTTER)?;
    match *what {
        Do::CreateContainer(name) => db.containers(&namespace).create(container(NAMES[name])).await.map(drop),
        Do::LabelContainer(name, on) => {
            let value = if on { "on" } else { "" };
            let labels = Labels::from([("l".to_owned(), value.to_owned())]);
            let changed = Container { labels, ..container(NAMES[name]) };
            let mask = FieldPaths(vec!["labels.l".to_owned()]);
            db.containers(&namespace).update(changed, &mask).await.map(drop)
        }
        Do::DeleteContainer(name) => db.containers(&namespace).delete(NAMES[name]).await,
        Do::CreateImage(name, target) => {
            db.images(&scope).create(image(NAMES[name], &digest(target))).await.map(drop)
        }
        Do::DeleteImage(name, target) => {
            db.images(&scope).delete(NAMES[name], target.map(digest).as_ref()).await
        }
        Do::CreateLease => {
            db.leases(&namespace).create(Some(LEASE.to_owned()), Labels::new()).await.map(drop)
        }
        Do::DeleteLease => db.leases(&namespace).delete(LEASE).await,
        Do::PutBlob(number, leased) => {
            let scope = if leased { scope.with_lease(LEASE) } else { scope };
            put(&*db.content(scope), &format!("put-{number}"), &blob(number)).await.map(drop)
        }
        Do::AbandonIngest(number) => {
            let options = ::content::WriterOptions {
                reference: NAMES[number].to_owned(),
                total: 0,
                expected: Some(digest(number)),
            };
            db.content(scope).writer(options).await.map(drop)
        }
        Do::AbortIngest(number) => db.content(scope).abort(NAMES[number]).await,
        Do::DeleteBlob(number) => db.content(scope).delete(&digest(number)).await,
        Do::Prepare(key, parent) => {
            let parent = parent.map_or("", |parent| NAMES[parent]);
            snapshots.prepare(NAMES[key], parent, Labels::new()).await.map(drop)
        }
        Do::Commit(name, key, parent) => {
            snapshots.commit(NAMES[name], NAMES[key], parent.map(|p| NAMES[p]), Labels::new()).await
        }
        Do::RemoveSnapshot(key) => snapshots.remove(NAMES[key]).await,
        Do::DeleteNamespace => db.namespaces().delete(&namespace).await,
        Do::Reopen => Ok(()),
    }
}

/// What a namespace looks like from outside, in the model's terms. Ingests are compared by number only.
async fn look(db: &Db, namespace: &str) -> Space {
    let (name, scope, all) = (ns(namespace), Scope::new(ns(namespace)), Filters::default());
    let known = |text: &str| *NAMES.iter().find(|name| **name == text).unwrap();
    let exists = db.namespaces().list().unwrap().iter().any(|(found, _)| *found == name);
    let mut space = Space { exists, ..Space::default() };
    let mut containers = |container: &ContainerView<'_>| {
        space.containers.insert(known(container.id), !container.labels.is_empty());
        Ok(ControlFlow::Continue(()))
    };
    db.containers(&name).list(&all, "", &mut containers).unwrap();
    let number = |found: &Digest| (0..NAMES.len()).find(|n| digest(*n) == *found).unwrap();
    let mut images = |image: &ImageView<'_>| {
        space.images.insert(known(image.name), number(&image.digest.parse().unwrap()));
        Ok(())
    };
    db.images(&scope).list(&all, &mut images).unwrap();
    space.lease = db.leases(&name).list_resources(LEASE).ok().map(|held| held.into_iter().collect());
    let mut blobs = |info: types::content::Info| {
        space.blobs.insert(number(&info.digest));
        Ok(())
    };
    db.content(scope.clone()).walk(&all, &mut blobs).await.unwrap();
    let mut snapshots = |info: types::snapshot::Info| {
        let parent = (!info.parent.is_empty()).then(|| known(&info.parent));
        let committed = info.kind == types::snapshot::Kind::Committed;
        space.snapshots.insert(known(&info.name), Snapshot { parent, committed });
        Ok(())
    };
    db.snapshotter(scope, SNAPSHOTTER).unwrap().walk(&all, &mut snapshots).await.unwrap();
    space
}

/// The blobs that somebody has or shares.
fn needed(model: &[Space]) -> BTreeSet<usize> {
    let needs = |space: &Space, number: &usize| {
        space.blobs.contains(number) || space.ingests.get(NAMES[*number]).is_some_and(|ingest| ingest.shares)
    };
    (0..NAMES.len()).filter(|number| model.iter().any(|space| needs(space, number))).collect()
}

async fn run(operations: Vec<(usize, Do)>) {
    let bench = Bench::new();
    let mut db = Some(bench.recover().await);
    let mut model = [Space::default(), Space::default()];
    for (step, (space, what)) in operations.iter().enumerate() {
        if matches!(what, Do::Reopen) {
            db = None;
            db.replace(bench.recover().await);
            // Recovery drops the rows of ingests that have no data of their own.
            model.iter_mut().for_each(|space| space.ingests.retain(|_, ingest| ingest.own));
        }
        let db = db.as_ref().unwrap();
        let known: BTreeSet<usize> = model.iter().flat_map(|space| space.blobs.iter().copied()).collect();
        let expected = model[*space].apply(what, |number| known.contains(&number));
        let done = perform(db, NAMESPACES[*space], what).await.map_err(|error| error.class());
        assert_eq!(done, expected, "step {step}: {what:?} in {}", NAMESPACES[*space]);
    }
    let db = db.unwrap();
    for (space, name) in model.iter().zip(NAMESPACES) {
        let seen = look(&db, name).await;
        assert_eq!(seen, Space { ingests: BTreeMap::new(), ..space.clone() });
    }
    let own = model.iter().flat_map(|space| space.ingests.values()).filter(|ingest| ingest.own).count();
    assert_eq!(
        bench.files().await,
        (needed(&model).len(), own),
        "the store holds what somebody needs, and nothing else"
    );
    let snapshots: usize = model.iter().map(|space| space.snapshots.len()).sum();
    assert_eq!(bench.snapshotter.keys().len(), snapshots);
}

/// Only an ingest shares the blob any more when its writer comes again.
#[tokio::test]
async fn an_ingest_outlives_the_last_namespace_that_knew_the_blob_which_it_shares() {
    run(vec![
        (0, Do::PutBlob(0, false)),
        (1, Do::AbandonIngest(0)),
        (0, Do::DeleteBlob(0)),
        (1, Do::AbandonIngest(0)),
        (0, Do::Reopen),
    ])
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_the_model_says_and_leave_no_rubbish(
        operations in proptest::collection::vec(operation(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}
