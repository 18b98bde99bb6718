//! Layers become snapshots once, under the right name, and nothing half-done stays.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod failing;
mod memory;

use std::sync::Arc;

use content::WriterOptions;
use content::store::Store;
use diff::{Applied, Applier, ApplyOptions, WalkingApplier};
use images::Silent;
use images::unpack::{Options, Unpacker};
use snapshots::Snapshotter;
use snapshots::native::Native;
use snapshots::overlay::{self, Overlay};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;
use types::mount::Mount;
use types::oci::image::{chain_id, media};
use types::oci::{Descriptor, Manifest};
use types::snapshot::Kind;
use types::{Class, Digest, Error, Labels, Result};

use failing::{Failing, Step, Which, snapshots_of};
use memory::Memory;

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, body) in files {
        let mut entry = EntryBuilder::new_gnu();
        let size = body.len() as u64;
        entry.path(name).entry_type(EntryType::Regular).mode(0o644).unwrap().size(size).unwrap();
        tar.extend_from_slice(&entry.finish_bytes());
        tar.extend_from_slice(body.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

async fn store_blob(store: &Arc<Memory>, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(bytes);
    let options = WriterOptions { reference: digest.to_string(), ..WriterOptions::default() };
    let mut writer = store.writer(options).await.unwrap();
    writer.write(bytes.to_vec().into()).await.unwrap();
    writer.commit(bytes.len() as u64, Some(digest.clone()), Labels::new()).await.unwrap();
    Descriptor::new(media_type, digest, bytes.len() as u64)
}

/// An image of these layers whose config promises these diff ids.
async fn image(store: &Arc<Memory>, layers: &[Vec<u8>], diff_ids: &[Digest]) -> Manifest {
    let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, ids.join(","));
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#);
    let config = store_blob(store, media::OCI_CONFIG, config.as_bytes()).await;
    let mut blobs = Vec::new();
    for layer in layers {
        blobs.push(store_blob(store, media::OCI_LAYER, layer).await);
    }
    Manifest {
        schema_version: 2,
        media_type: String::new(),
        config,
        layers: blobs,
        annotations: Default::default(),
    }
}

fn unpacker(store: &Arc<Memory>, snapshotter: Arc<dyn Snapshotter>) -> Unpacker {
    let applier = Arc::new(WalkingApplier::new(Arc::clone(store) as _));
    Unpacker { store: Arc::clone(store) as _, applier, snapshotter, snapshotter_name: "test".into() }
}

fn layers() -> (Vec<Vec<u8>>, Vec<Digest>) {
    let layers = vec![layer(&[("a", "1"), ("d/b", "2")]), layer(&[(".wh.a", ""), ("d/c", "3")])];
    let ids = layers.iter().map(|layer| Digest::of(layer)).collect();
    (layers, ids)
}

fn is_root() -> bool {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

fn both(top: &std::path::Path) -> Vec<Arc<dyn Snapshotter>> {
    let overlay = Overlay::open(top.join("overlay"), overlay::Options::default()).unwrap();
    vec![overlay, Native::open(top.join("native")).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unpacked_once_and_labelled() {
    if !is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    for snapshotter in both(top.path()) {
        let store = Arc::new(Memory::default());
        let (layers, ids) = layers();
        let manifest = image(&store, &layers, &ids).await;
        let unpacker = unpacker(&store, Arc::clone(&snapshotter));
        assert_eq!(unpacker.is_unpacked(&manifest).await.unwrap(), None);
        let top = unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap();
        assert_eq!(top, chain_id(&ids));
        assert_eq!(unpacker.is_unpacked(&manifest).await.unwrap(), top);
        let all = snapshots_of(&*snapshotter).await;
        assert!(all.iter().all(|(kind, _)| *kind == Kind::Committed) && all.len() == 2, "{all:?}");
        for (blob, id) in manifest.layers.iter().zip(&ids) {
            let labels = store.info(&blob.digest).await.unwrap().labels;
            assert_eq!(labels["containerd.io/uncompressed"], id.as_str());
        }
        let labels = store.info(&manifest.config.digest).await.unwrap().labels;
        assert_eq!(labels["containerd.io/gc.ref.snapshot.test"], top.clone().unwrap().as_str());
        // Once more changes nothing, and two at a time end the same.
        let options = Options::default();
        let (one, two) = tokio::join!(
            unpacker.unpack(&manifest, &options, &Silent),
            unpacker.unpack(&manifest, &options, &Silent)
        );
        assert_eq!((one.unwrap(), two.unwrap()), (top.clone(), top));
        assert_eq!(snapshots_of(&*snapshotter).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_unpack_the_same_image_both_succeed() {
    if !is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    for snapshotter in both(top.path()) {
        let store = Arc::new(Memory::default());
        let (layers, ids) = layers();
        let manifest = image(&store, &layers, &ids).await;
        let unpacker = unpacker(&store, Arc::clone(&snapshotter));
        let options = Options::default();
        let (one, two) = tokio::join!(
            unpacker.unpack(&manifest, &options, &Silent),
            unpacker.unpack(&manifest, &options, &Silent)
        );
        assert_eq!((one.unwrap(), two.unwrap()), (chain_id(&ids), chain_id(&ids)));
        let all = snapshots_of(&*snapshotter).await;
        assert!(all.iter().all(|(kind, _)| *kind == Kind::Committed) && all.len() == 2, "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_what_the_config_promises_is_not_committed() {
    if !is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    for snapshotter in both(top.path()) {
        let store = Arc::new(Memory::default());
        let (layers, mut ids) = layers();
        ids[1] = Digest::of(b"something else");
        let manifest = image(&store, &layers, &ids).await;
        let unpacker = unpacker(&store, Arc::clone(&snapshotter));
        let error = unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
        assert_eq!(error.class(), Class::FailedPrecondition);
        assert!(error.to_string().contains("wrong diff id calculated on extraction"), "{error}");
        // The layer below is right, but nobody needs it.
        assert!(snapshots_of(&*snapshotter).await.is_empty());
        let labels = store.info(&manifest.layers[1].digest).await.unwrap().labels;
        assert!(!labels.contains_key("containerd.io/uncompressed"));
        // Where somebody needs it, it stays.
        let other = Arc::new(Memory::default());
        let below = image(&other, &layers[..1], &ids[..1]).await;
        let others = self::unpacker(&other, Arc::clone(&snapshotter));
        others.unpack(&below, &Options::default(), &Silent).await.unwrap();
        unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
        assert_eq!(snapshots_of(&*snapshotter).await, [(Kind::Committed, ids[0].to_string())]);
    }
}

/// An applier that cannot.
struct Broken;

#[async_trait::async_trait]
impl Applier for Broken {
    async fn apply(&self, _: &Descriptor, _: &[Mount], _: ApplyOptions) -> Result<Applied> {
        Err(Error::exhausted("no space left on device"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_extraction_leaves_no_snapshot() {
    let top = tempfile::tempdir().unwrap();
    for snapshotter in both(top.path()) {
        let store = Arc::new(Memory::default());
        let (layers, ids) = layers();
        let manifest = image(&store, &layers, &ids).await;
        let broken = Unpacker { applier: Arc::new(Broken), ..unpacker(&store, Arc::clone(&snapshotter)) };
        let error = broken.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
        assert_eq!(error.class(), Class::ResourceExhausted);
        assert!(snapshots_of(&*snapshotter).await.is_empty());
        let error =
            broken.unpack(&Manifest { layers: Vec::new(), ..manifest }, &Options::default(), &Silent).await;
        assert!(error.unwrap_err().to_string().contains("mismatched"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_that_fails_once_leaves_nothing_and_the_next_unpack_is_well() {
    if !is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    for inner in both(top.path()) {
        for (step, after) in [(Step::Prepare, 0), (Step::Prepare, 1), (Step::Commit, 0), (Step::Commit, 1)] {
            let store = Arc::new(Memory::default());
            let (layers, ids) = layers();
            let manifest = image(&store, &layers, &ids).await;
            let failing = Failing::new(Arc::clone(&inner));
            failing.fail(step, Which::After(after));
            let unpacker = unpacker(&store, failing);
            let error = unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
            assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
            assert!(snapshots_of(&*inner).await.is_empty(), "{step:?} {after}");
            let unpacked = unpacker.unpack(&manifest, &Options::default(), &Silent).await.unwrap();
            assert_eq!(unpacked, chain_id(&ids));
            for chain in [unpacked.unwrap().to_string(), ids[0].to_string()] {
                inner.remove(&chain).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_does_not_hide_why_it_was_needed() {
    let top = tempfile::tempdir().unwrap();
    for inner in both(top.path()) {
        let store = Arc::new(Memory::default());
        let (layers, ids) = layers();
        let manifest = image(&store, &layers, &ids).await;
        let failing = Failing::new(Arc::clone(&inner));
        failing.fail(Step::Remove, Which::After(0));
        let unpacker = unpacker(&store, failing);
        let broken = Unpacker { applier: Arc::new(Broken), ..unpacker };
        let error = broken.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
        assert!(error.to_string().contains("no space left on device"), "{error}");
        assert!(!error.to_string().contains("Remove"), "{error}");
        // What could not be removed is under a key of its own and in nobody's way.
        let left = snapshots_of(&*inner).await;
        assert!(matches!(&left[..], [(Kind::Active, key)] if key.starts_with("extract-")), "{left:?}");
        broken.unpack(&manifest, &Options::default(), &Silent).await.unwrap_err();
        assert_eq!(snapshots_of(&*inner).await, left);
    }
}
