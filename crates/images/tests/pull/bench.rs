//! A registry, a store and a snapshotter to pull with.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diff::WalkingApplier;
use images::pull::{How, Keep, Limits, Metadata, Pull, Pulled, Shared, Source, UnpackInto};
use images::unpack::{Options, Unpacker};
use images::walk::Wanted;
use images::{Event, Progress, Silent};
use registry::fake::{self, Fake};
use registry::{Anonymous, Registry, Settings};
use snapshots::Snapshotter as _;
use snapshots::overlay::{self, Overlay};
use sys::mount::TempMount;
use types::digest::Digest;
use types::oci::Descriptor;
use types::oci::image::media;
use types::reference::Reference;
use types::snapshot::{Info, Kind};
use types::{Labels, Result};

use crate::archive::{Archive, gzip};
use crate::failing::{Failing, snapshots_of};
use crate::store::Labelled;

pub struct Bench {
    top: tempfile::TempDir,
    pub registry: Fake,
    pub store: Arc<Labelled>,
    pub snapshotter: Arc<Failing>,
    pub shared: Arc<Shared>,
    pub events: Arc<Events>,
}

impl Bench {
    pub fn new() -> Self {
        let top = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Labelled::open(&top.path().join("content"));
        let snapshotter = overlay(top.path().join("overlay"));
        let (shared, events) = (Shared::new(3, 2), Arc::default());
        Self { registry: Fake::start(), top, store, snapshotter, shared, events }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// A pull of `library/x` as the daemon would make it.
    pub fn make(&self) -> Pull {
        make(&self.registry.reference("library/x", "1"), &self.store, &self.snapshotter, &self.shared)
    }

    pub async fn pull(&self, target: &Descriptor) -> Result<Pulled> {
        self.make().pull(target, Arc::clone(&self.events) as _).await
    }

    pub async fn stat(&self, chain: &Digest) -> Info {
        self.snapshotter.stat(chain.as_str()).await.unwrap()
    }

    /// Nothing is half-done, and nothing waits.
    pub async fn nothing_half_done(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut active = snapshots_of(&*self.snapshotter).await;
            active.retain(|(kind, _)| *kind != Kind::Committed);
            if active.is_empty() && self.shared.running().is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{active:?} {:?}", self.shared.running());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All blobs are there and are what they are called.
    pub async fn whole(&self, image: &fake::Image) {
        for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
            let bytes = std::fs::read(self.store.local.path(&blob.digest)).unwrap();
            assert_eq!(Digest::of(&bytes), blob.digest);
        }
    }

    /// The same image by the other way, in a snapshotter of its own.
    pub async fn unpacked_one_by_one(&self, image: &fake::Image) -> BTreeMap<PathBuf, String> {
        let other = overlay(self.path("one-by-one"));
        let unpacker = Unpacker {
            store: Arc::clone(&self.store) as _,
            applier: Arc::new(WalkingApplier::new(Arc::clone(&self.store) as _)),
            snapshotter: Arc::clone(&other) as _,
            snapshotter_name: "other".to_owned(),
        };
        let manifest = images::walk::read_manifest(&*self.store, &image.manifest).await.unwrap();
        let top = unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap().unwrap();
        seen(&other, &top).await
    }

    pub async fn seen(&self, chain: &Digest) -> BTreeMap<PathBuf, String> {
        seen(&self.snapshotter, chain).await
    }
}

/// An overlayfs snapshotter that can be told to fail.
pub fn overlay(dir: PathBuf) -> Arc<Failing> {
    Failing::new(Overlay::open(dir, overlay::Options::default()).unwrap())
}

/// A pull of `library/x`.
pub fn make(
    reference: &str,
    store: &Arc<Labelled>,
    snapshotter: &Arc<Failing>,
    shared: &Arc<Shared>,
) -> Pull {
    let reference = Reference::normalize(reference).unwrap();
    let mut settings = Settings::default();
    settings.limits.attempts = 2;
    settings.limits.first_wait = Duration::from_millis(5);
    let applier = Arc::new(WalkingApplier::new(Arc::clone(store) as _));
    Pull {
        store: Arc::clone(store) as _,
        fetcher: Registry::new(settings, Arc::new(Anonymous)).unwrap().fetcher(&reference),
        source: Source {
            name: reference.to_string(),
            host: "127.0.0.1".to_owned(),
            repository: "library/x".to_owned(),
        },
        namespace: "test".to_owned(),
        wanted: Wanted::All,
        manifest_limit: 0,
        metadata: Metadata::Wanted,
        keep: Keep::Layers,
        unpack: vec![UnpackInto {
            platforms: Wanted::All,
            snapshotter: Arc::clone(snapshotter) as _,
            snapshotter_name: "overlayfs".to_owned(),
            how: How::OnePass(applier),
            config_type: String::new(),
            layer_types: Vec::new(),
            remote: false,
            sync: false,
        }],
        limits: Limits::default(),
        shared: Arc::clone(shared),
    }
}

/// Everything that a container of the snapshot would see.
pub async fn seen(snapshotter: &Failing, chain: &Digest) -> BTreeMap<PathBuf, String> {
    let mounts = snapshotter.view("look", chain.as_str(), Labels::new()).await.unwrap();
    let view = TempMount::new(&mounts).unwrap();
    let mut all = BTreeMap::new();
    let mut todo = vec![view.path().to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let body = if meta.is_file() {
            Digest::of(&std::fs::read(&path).unwrap()).to_string()
        } else {
            String::new()
        };
        // What no entry names has the time of the test.
        let time = if meta.mtime() < 1_500_000_000 { meta.mtime() } else { 0 };
        let facts = format!("{:o} {}:{} {time} {body}", meta.mode(), meta.uid(), meta.gid());
        let shown = path.strip_prefix(view.path()).unwrap().to_owned();
        if !shown.as_os_str().is_empty() {
            all.insert(shown, facts);
        }
    }
    view.close().unwrap();
    snapshotter.remove("look").await.unwrap();
    all
}

/// What was told, as words.
#[derive(Default)]
pub struct Events(Mutex<Vec<(Digest, String)>>);

impl Events {
    pub fn of(&self, digest: &Digest) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(of, _)| of == digest).map(|(_, event)| event.clone()).collect()
    }
}

impl Progress for Events {
    fn report(&self, event: Event<'_>) {
        let (digest, word) = match event {
            Event::Found(what, _) => (&what.digest, "found".to_owned()),
            Event::Exists(digest) => (digest, "exists".to_owned()),
            Event::Fetching(digest, at, of) => (digest, format!("fetching {at}/{of}")),
            Event::Fetched(digest) => (digest, "fetched".to_owned()),
            Event::Extracting(digest, at, of) => (digest, format!("extracting {at}/{of}")),
            Event::Unpacking(digest, _) => (digest, "unpacking".to_owned()),
            Event::Unpacked(digest) => (digest, "unpacked".to_owned()),
            Event::Member(..) | Event::Stored(_) | Event::Sending(..) | Event::Sent(_) => return,
        };
        self.0.lock().unwrap().push((digest.clone(), word));
    }
}

pub fn layer(tar: Archive) -> fake::Layer {
    let tar = tar.end();
    let media_type = media::OCI_LAYER_GZIP.to_owned();
    fake::Layer { bytes: gzip(&tar).into(), media_type, diff_id: Digest::of(&tar) }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}
