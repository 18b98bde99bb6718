//! What the tests stand on: a root of their own, the real local content store, a snapshotter in memory; both can be
//! stopped for ever at a chosen step, which is what a crash looks like to the next life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ::content::local::LocalStore;
use ::content::{Reader, Store, Writer, WriterOptions};
use ::snapshots::Snapshotter;
use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Notify;
use types::container::{Container, RuntimeInfo};
use types::content::{Info as Blob, Status};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::image::Image;
use types::mount::Mount;
use types::oci::Descriptor;
use types::snapshot::{Info, Kind, Usage};
use types::{Any, Digest, Error, Labels, Namespace, Result, Scope};

use crate::{Db, Options};

/// The snapshotter's name.
pub(crate) const SNAPSHOTTER: &str = "memory";

/// A root, and stores that survive the database.
pub(crate) struct Bench {
    pub(crate) root: TempDir,
    pub(crate) stop: Arc<Stop>,
    pub(crate) content: Arc<StoppableStore>,
    pub(crate) snapshotter: Arc<MemorySnapshotter>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let stop = Arc::new(Stop::default());
        let local = LocalStore::open(root.path().join("io.containerd.content.v1.content")).unwrap();
        let content = Arc::new(StoppableStore { inner: local, stop: Arc::clone(&stop) });
        let snapshotter = Arc::new(MemorySnapshotter {
            all: Mutex::default(),
            lost: Mutex::default(),
            stop: Arc::clone(&stop),
        });
        Self { root, stop, content, snapshotter }
    }

    pub(crate) fn options(&self) -> Options {
        let snapshotter: Arc<dyn Snapshotter> = self.snapshotter.clone();
        Options {
            dir: self.root.path().join("io.containerd.metadata.v1.redb"),
            content: self.content.clone(),
            snapshotters: [(SNAPSHOTTER.to_owned(), snapshotter)].into(),
        }
    }

    /// Opens the database, without recovery in the background.
    pub(crate) fn open(&self) -> Db {
        Db::open_only(self.options()).unwrap()
    }

    /// Opens the database as after a crash, and waits for the recovery.
    pub(crate) async fn recover(&self) -> Db {
        let db = self.open();
        db.recover().await.unwrap();
        db
    }

    /// Runs `work` until it stops at the chosen step.
    pub(crate) async fn crash<T>(&self, at: &'static str, work: impl Future<Output = T>) {
        self.stop.at(Some(at));
        tokio::select! {
            _ = work => panic!("it did not come to {at}"),
            () = self.stop.reached.notified() => {}
        }
        self.stop.at(None);
    }

    /// How many blobs and ingests the local store has.
    pub(crate) async fn files(&self) -> (usize, usize) {
        let mut blobs = 0;
        let mut count = |_| {
            blobs += 1;
            Ok(())
        };
        self.content.inner.walk(&Filters::default(), &mut count).await.unwrap();
        (blobs, self.content.inner.list_statuses(&[]).await.unwrap().len())
    }
}

/// Where to stop: `before <step>` or `after <step>`.
#[derive(Default)]
pub(crate) struct Stop {
    at: Mutex<Option<&'static str>>,
    reached: Notify,
}

impl Stop {
    fn at(&self, at: Option<&'static str>) {
        *self.at.lock().unwrap() = at;
    }

    async fn here(&self, place: &str) {
        if *self.at.lock().unwrap() == Some(place) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) fn scope(namespace: &str) -> Scope {
    Scope::new(ns(namespace))
}

pub(crate) fn ns(namespace: &str) -> Namespace {
    namespace.parse().unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn paths(paths: &[&str]) -> FieldPaths {
    FieldPaths(paths.iter().map(|path| (*path).to_owned()).collect())
}

/// A container without anything.
pub(crate) fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: String::new(),
        runtime: RuntimeInfo { name: "r".to_owned(), options: None },
        spec: Some(Any::default()),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        created_at: SystemTime::now(),
        updated_at: SystemTime::now(),
        extensions: BTreeMap::new(),
        sandbox: String::new(),
    }
}

/// An image of a digest.
pub(crate) fn image(name: &str, target: &Digest) -> Image {
    Image {
        name: name.to_owned(),
        labels: Labels::new(),
        target: Descriptor::new("t", target.clone(), 1),
        created_at: SystemTime::now(),
        updated_at: SystemTime::now(),
    }
}

/// Writes and commits `bytes` as `reference`.
pub(crate) async fn put(store: &dyn Store, reference: &str, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    let options = WriterOptions {
        reference: reference.to_owned(),
        total: bytes.len() as u64,
        expected: Some(digest.clone()),
    };
    let mut writer = store.writer(options).await?;
    if writer.status().await?.offset == 0 {
        writer.write(Bytes::copy_from_slice(bytes)).await?;
    }
    writer.commit(bytes.len() as u64, Some(digest.clone()), Labels::new()).await?;
    Ok(digest)
}

/// The local store, which can be stopped.
pub(crate) struct StoppableStore {
    pub(crate) inner: Arc<LocalStore>,
    stop: Arc<Stop>,
}

#[async_trait]
impl Store for StoppableStore {
    async fn info(&self, digest: &Digest) -> Result<Blob> {
        self.inner.info(digest).await
    }

    async fn update(&self, info: Blob, fields: &FieldPaths) -> Result<Blob> {
        self.inner.update(info, fields).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Blob) -> Result<()> + Send)) -> Result<()> {
        self.inner.walk(filters, each).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.stop.here("before delete").await;
        self.inner.delete(digest).await?;
        self.stop.here("after delete").await;
        Ok(())
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        self.inner.reader(digest).await
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        self.inner.status(reference).await
    }

    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        self.inner.list_statuses(filters).await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.stop.here("before abort").await;
        self.inner.abort(reference).await?;
        self.stop.here("after abort").await;
        Ok(())
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        self.stop.here("before writer").await;
        let inner = self.inner.writer(options).await?;
        self.stop.here("after writer").await;
        Ok(Box::new(StoppableWriter { inner, stop: Arc::clone(&self.stop) }))
    }
}

struct StoppableWriter {
    inner: Box<dyn Writer>,
    stop: Arc<Stop>,
}

#[async_trait]
impl Writer for StoppableWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.inner.write(data).await
    }

    async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.inner.digest().await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.inner.truncate(size).await
    }

    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        self.stop.here("before commit").await;
        self.inner.commit(size, expected, labels).await?;
        self.stop.here("after commit").await;
        Ok(())
    }
}

/// Snapshots without files.
pub(crate) struct MemorySnapshotter {
    pub(crate) all: Mutex<BTreeMap<String, Info>>,
    /// Those of which the files are gone.
    pub(crate) lost: Mutex<BTreeSet<String>>,
    stop: Arc<Stop>,
}

impl MemorySnapshotter {
    pub(crate) fn keys(&self) -> Vec<String> {
        self.all.lock().unwrap().keys().cloned().collect()
    }

    fn make(&self, kind: Kind, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let mut all = self.all.lock().unwrap();
        if all.contains_key(key) {
            return Err(Error::already_exists(format!("snapshot {key}: already exists")));
        }
        // A snapshotter that makes its layers elsewhere has this one.
        if labels.get(types::labels::SNAPSHOT_REF).is_some_and(|target| target == "remote") {
            let now = SystemTime::now();
            let info = info(Kind::Committed, "elsewhere", parent, labels, now);
            all.insert("elsewhere".to_owned(), info);
            return Err(Error::already_exists("target snapshot \"remote\": already exists"));
        }
        if !parent.is_empty() {
            let found =
                all.get(parent).ok_or_else(|| Error::not_found(format!("parent {parent}: not found")))?;
            if found.kind != Kind::Committed {
                return Err(Error::invalid("parent is not committed: invalid argument"));
            }
        }
        all.insert(key.to_owned(), info(kind, key, parent, labels, SystemTime::now()));
        Ok(vec![Mount { source: key.to_owned(), ..Mount::default() }])
    }
}

fn info(kind: Kind, name: &str, parent: &str, labels: Labels, now: SystemTime) -> Info {
    Info { kind, name: name.to_owned(), parent: parent.to_owned(), labels, created_at: now, updated_at: now }
}

fn absent(key: &str) -> Error {
    Error::not_found(format!("snapshot {key} does not exist: not found"))
}

#[async_trait]
impl Snapshotter for MemorySnapshotter {
    async fn stat(&self, key: &str) -> Result<Info> {
        self.all.lock().unwrap().get(key).cloned().ok_or_else(|| absent(key))
    }

    async fn update(&self, info: Info, _: &FieldPaths) -> Result<Info> {
        let mut all = self.all.lock().unwrap();
        let found = all.get_mut(&info.name).ok_or_else(|| absent(&info.name))?;
        found.labels = info.labels;
        Ok(found.clone())
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        self.stat(key).await?;
        Ok(Usage { inodes: 1, size: 2 })
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.stat(key).await?;
        Ok(vec![Mount { source: key.to_owned(), ..Mount::default() }])
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.stop.here("before prepare").await;
        let mounts = self.make(Kind::Active, key, parent, labels)?;
        self.stop.here("after prepare").await;
        Ok(mounts)
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.make(Kind::View, key, parent, labels)
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        self.stop.here("before commit").await;
        {
            let mut all = self.all.lock().unwrap();
            let found = all.get(key).cloned().ok_or_else(|| absent(key))?;
            if found.kind != Kind::Active {
                return Err(Error::precondition(format!(
                    "snapshot {key} is not active: failed precondition"
                )));
            }
            let parent = parent.unwrap_or(&found.parent).to_owned();
            if !parent.is_empty() && all.get(&parent).is_none_or(|parent| parent.kind != Kind::Committed) {
                return Err(Error::invalid("parent is not committed: invalid argument"));
            }
            if all.contains_key(name) && !self.lost.lock().unwrap().remove(name) {
                return Err(Error::already_exists(format!("{name}: already exists")));
            }
            all.remove(key);
            all.insert(name.to_owned(), info(Kind::Committed, name, &parent, labels, SystemTime::now()));
        }
        self.stop.here("after commit").await;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.stop.here("before remove").await;
        {
            let mut all = self.all.lock().unwrap();
            if all.values().any(|info| info.parent == key) {
                return Err(Error::precondition("cannot remove snapshot with child: failed precondition"));
            }
            all.remove(key).ok_or_else(|| absent(key))?;
        }
        self.stop.here("after remove").await;
        Ok(())
    }

    async fn walk(&self, _: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let all: Vec<Info> = self.all.lock().unwrap().values().cloned().collect();
        all.into_iter().try_for_each(each)
    }

    async fn cleanup(&self) -> Result<()> {
        Ok(())
    }

    async fn is_whole(&self, key: &str) -> Result<bool> {
        self.stat(key).await?;
        Ok(!self.lost.lock().unwrap().contains(key))
    }
}
