//! What differs between two trees becomes a layer that makes one out of the other, and always the same one.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

#[path = "../archive/mod.rs"]
mod archive;
mod failures;
mod forest;
mod overlays;

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::Store as _;
use content::local::LocalStore;
use content::store::read_blob;
use diff::tar::{Kind, Reader, Time};
use diff::{Applier as _, ApplyOptions, CompareOptions, Differ as _, WalkingApplier, WalkingDiffer};
use tempfile::TempDir;
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Class, Digest, Result};

use forest::{Rng, copy, disturb, facts};

/// A store, and directories to compare.
pub(crate) struct Place {
    top: TempDir,
    pub store: Arc<LocalStore>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let store = LocalStore::open(top.path().join("content")).unwrap();
        Self { top, store }
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub async fn compare(&self, lower: &[Mount], upper: &[Mount], media_type: &str) -> Result<Descriptor> {
        let options = CompareOptions { media_type: media_type.into(), ..Default::default() };
        WalkingDiffer::new(Arc::clone(&self.store) as _).compare(lower, upper, options).await
    }

    pub async fn plain(&self, lower: &[Mount], upper: &[Mount]) -> Vec<u8> {
        let layer = self.compare(lower, upper, media::OCI_LAYER).await.unwrap();
        read_blob(&*self.store, &layer.digest, 1 << 30).await.unwrap()
    }

    async fn apply(&self, layer: &Descriptor, to: &Path) {
        let applier = WalkingApplier::new(Arc::clone(&self.store) as _);
        applier.apply(layer, &[bind_rw(to)], ApplyOptions::default()).await.unwrap();
    }

    /// No comparison has left an ingest.
    pub async fn check_no_ingests(&self) {
        assert_eq!(self.store.list_statuses(&[]).await.unwrap(), []);
    }
}

pub fn bind(dir: &Path) -> Mount {
    Mount {
        kind: "bind".into(),
        source: dir.display().to_string(),
        target: String::new(),
        options: vec!["ro".into(), "rbind".into()],
    }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// The names in a layer, in order, with what they are.
pub fn entries(tar: &[u8]) -> Vec<(String, Kind)> {
    let mut reader = Reader::new(tar);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push((String::from_utf8(entry.name).unwrap(), entry.kind));
    }
    all
}

#[tokio::test]
async fn a_tree_and_its_changes_make_the_changed_tree_again() {
    let root_user = rustix::process::geteuid().is_root();
    let types = [media::OCI_LAYER, media::OCI_LAYER_GZIP, media::OCI_LAYER_ZSTD];
    for seed in 1..=12 {
        let place = Place::new();
        let mut rng = Rng::new(seed);
        let (lower, upper, again) = (place.dir("lower"), place.path("upper"), place.dir("again"));
        (0..30).for_each(|_| disturb(&lower, &mut rng, root_user));
        copy(&lower, &upper);
        (0..20).for_each(|_| disturb(&upper, &mut rng, root_user));
        let media_type = types[seed as usize % 3];
        let base = place.compare(&[], &[bind(&lower)], media_type).await.unwrap();
        place.apply(&base, &again).await;
        assert_eq!(facts(&again), facts(&lower), "seed {seed}: the base");
        let changes = place.compare(&[bind(&lower)], &[bind(&upper)], media_type).await.unwrap();
        place.apply(&changes, &again).await;
        assert_eq!(facts(&again), facts(&upper), "seed {seed}: the changes");
        place.check_no_ingests().await;
    }
}

#[tokio::test]
async fn a_layer_names_what_is_gone_new_or_another_and_the_directories_on_the_way() {
    let place = Place::new();
    let (lower, upper) = (place.dir("lower"), place.path("upper"));
    for dir in ["gone/deep", "kept/deep", "typed"] {
        std::fs::create_dir_all(lower.join(dir)).unwrap();
    }
    for file in ["gone/deep/x", "kept/deep/same", "kept/deep/other", "kept/removed", "typed/x", "linked"] {
        std::fs::write(lower.join(file), "before").unwrap();
    }
    std::fs::hard_link(lower.join("linked"), lower.join("also")).unwrap();
    copy(&lower, &upper);
    std::fs::remove_dir_all(upper.join("gone")).unwrap();
    std::fs::remove_file(upper.join("kept/removed")).unwrap();
    std::fs::write(upper.join("kept/deep/other"), "longer than before").unwrap();
    std::fs::remove_dir_all(upper.join("typed")).unwrap();
    std::fs::write(upper.join("typed"), "a file").unwrap();
    std::fs::hard_link(upper.join("linked"), upper.join("third")).unwrap();
    symlink("/etc/passwd", upper.join("link")).unwrap();
    std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
    let tar = place.plain(&[bind(&lower)], &[bind(&upper)]).await;
    let wanted = [
        (".wh.gone", Kind::File),
        ("kept/", Kind::Directory),
        ("kept/deep/", Kind::Directory),
        ("kept/deep/other", Kind::File),
        ("kept/.wh.removed", Kind::File),
        ("link", Kind::Symlink),
        // Two names that did not change, and were waiting for the third.
        ("third", Kind::File),
        ("also", Kind::HardLink),
        ("linked", Kind::HardLink),
        ("typed", Kind::File),
    ];
    assert_eq!(entries(&tar), wanted.map(|(name, kind)| (name.to_owned(), kind)));
    let mut reader = Reader::new(&tar[..]);
    let whiteout = reader.next_entry().unwrap().unwrap();
    assert_eq!((whiteout.mode, whiteout.mtime, whiteout.size), (0, Time::default(), 0));
}

#[tokio::test]
async fn times_are_whole_seconds_and_not_after_the_given_epoch() {
    let place = Place::new();
    let upper = place.dir("upper");
    std::fs::write(upper.join("f"), "x").unwrap();
    let now = std::fs::metadata(upper.join("f")).unwrap().mtime();
    for (epoch, wanted) in [(None, now), (Some(5), 5), (Some(i64::MAX / 2), now)] {
        let epoch = epoch.map(|secs| Time { secs, nanos: 3 });
        let options = CompareOptions { media_type: media::OCI_LAYER.into(), epoch, ..Default::default() };
        let differ = WalkingDiffer::new(Arc::clone(&place.store) as _);
        let layer = differ.compare(&[], &[bind(&upper)], options).await.unwrap();
        let tar = read_blob(&*place.store, &layer.digest, 1 << 20).await.unwrap();
        let entry = Reader::new(&tar[..]).next_entry().unwrap().unwrap();
        assert_eq!(entry.mtime, Time { secs: wanted, nanos: 0 });
    }
}

#[tokio::test]
async fn the_same_trees_give_the_same_bytes_in_every_media_type() {
    let place = Place::new();
    let upper = place.dir("upper");
    let mut rng = Rng::new(7);
    (0..60).for_each(|_| disturb(&upper, &mut rng, false));
    std::fs::write(upper.join("large"), vec![b'x'; 3_000_000]).unwrap();
    let plain = Digest::of(&place.plain(&[], &[bind(&upper)]).await);
    for media_type in ["", media::OCI_LAYER_GZIP, media::OCI_LAYER_ZSTD] {
        let one = place.compare(&[], &[bind(&upper)], media_type).await.unwrap();
        assert_eq!(place.compare(&[], &[bind(&upper)], media_type).await.unwrap(), one);
        assert_eq!(place.store.info(&one.digest).await.unwrap().size, one.size as u64);
        assert_eq!(one.media_type, if media_type.is_empty() { media::OCI_LAYER_GZIP } else { media_type });
        let again = tempfile::tempdir().unwrap();
        let applier = WalkingApplier::new(Arc::clone(&place.store) as _);
        let applied = applier.apply(&one, &[bind_rw(again.path())], ApplyOptions::default()).await.unwrap();
        assert_eq!(applied.uncompressed.digest, plain);
    }
    for media_type in [media::DOCKER_LAYER_GZIP, "text/plain"] {
        let refused = place.compare(&[], &[bind(&upper)], media_type).await.unwrap_err();
        assert_eq!(refused.class(), Class::Unimplemented);
        assert_eq!(
            refused.to_string(),
            format!("unsupported diff media type: {media_type}: not implemented")
        );
    }
    place.check_no_ingests().await;
}

fn bind_rw(dir: &Path) -> Mount {
    Mount { options: vec!["rw".into(), "rbind".into()], ..bind(dir) }
}
