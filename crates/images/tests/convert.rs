//! A converted image says what the old one said, in another format, and holds its parts.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod memory;

use std::io::Write as _;
use std::sync::Arc;

use content::store::read_blob;
use content::{Store, WriterOptions};
use images::convert::{Options, convert};
use images::walk::Wanted;
use serde_json::{Value, json};
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Digest, Labels, labels};

use memory::Memory;

async fn blob(store: &Arc<Memory>, media_type: &str, bytes: &[u8], labels: Labels) -> Descriptor {
    let digest = Digest::of(bytes);
    let options = WriterOptions { reference: digest.to_string(), ..WriterOptions::default() };
    let mut writer = store.writer(options).await.unwrap();
    writer.write(bytes.to_vec().into()).await.unwrap();
    writer.commit(bytes.len() as u64, Some(digest.clone()), labels).await.unwrap();
    Descriptor::new(media_type, digest, bytes.len() as u64)
}

async fn document(store: &Arc<Memory>, descriptor: &Descriptor) -> Value {
    serde_json::from_slice(&read_blob(&**store, &descriptor.digest, 1 << 20).await.unwrap()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LAYER: &[u8] = &[b'l'; 3_000_000];

/// A manifest as Docker writes it: another order of fields, and one that nobody knows.
async fn docker_image(store: &Arc<Memory>) -> Descriptor {
    let packed = gzip(LAYER);
    let uncompressed = Labels::from([
        (labels::UNCOMPRESSED.into(), Digest::of(LAYER).to_string()),
        ("containerd.io/distribution.source.r.io".into(), "x".into()),
    ]);
    let layer = blob(store, media::DOCKER_LAYER_GZIP, &packed, uncompressed).await;
    let config = blob(store, media::DOCKER_CONFIG, b"{}", Labels::new()).await;
    let child = |d: &Descriptor| json!({"mediaType": d.media_type, "size": d.size, "digest": d.digest});
    let manifest = json!({"schemaVersion": 2, "mediaType": media::DOCKER_MANIFEST, "config": child(&config),
        "layers": [child(&layer)], "ours": "kept"});
    let held = Labels::from([
        ("containerd.io/gc.ref.content.config".into(), config.digest.to_string()),
        ("containerd.io/gc.ref.content.l.0".into(), layer.digest.to_string()),
        ("mine".into(), "stays".into()),
    ]);
    blob(store, media::DOCKER_MANIFEST, manifest.to_string().as_bytes(), held).await
}

fn options(uncompress: bool, oci: bool) -> Options {
    Options { uncompress, oci, wanted: Wanted::All }
}

#[tokio::test]
async fn layers_lose_their_compression_and_are_held() {
    let store = Arc::new(Memory::default());
    let old = docker_image(&store).await;
    let there = Arc::clone(&store) as Arc<dyn Store>;
    let new = convert(&there, &old, &options(true, true)).await.unwrap();
    assert_eq!(new.media_type, media::OCI_MANIFEST);
    let manifest = document(&store, &new).await;
    assert_eq!(manifest["layers"][0]["digest"], Digest::of(LAYER).as_str());
    assert_eq!(manifest["layers"][0]["mediaType"], media::OCI_LAYER);
    assert_eq!(manifest["config"]["mediaType"], media::OCI_CONFIG);
    assert_eq!(manifest["ours"], "kept");
    let fields: Vec<&String> = manifest["layers"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["mediaType", "digest", "size"]);
    let held = store.info(&new.digest).await.unwrap().labels;
    assert_eq!(held["containerd.io/gc.ref.content.l.0"], Digest::of(LAYER).as_str());
    assert_eq!((held["mine"].as_str(), held.len()), ("stays", 3));
    let layer = store.info(&Digest::of(LAYER)).await.unwrap().labels;
    assert_eq!(layer.keys().collect::<Vec<_>>(), ["containerd.io/distribution.source.r.io"]);
    // What is converted already stays as it is, and so does what nobody wants changed.
    assert_eq!(convert(&there, &new, &options(true, true)).await.unwrap(), new);
    assert_eq!(convert(&there, &old, &options(false, false)).await.unwrap(), old);
    assert_eq!(there.list_statuses(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn platforms_that_are_not_wanted_are_left_out_of_an_index() {
    let store = Arc::new(Memory::default());
    let image = docker_image(&store).await;
    let of = |architecture: &str, digest: &Digest| {
        json!({"mediaType": media::DOCKER_MANIFEST, "digest": digest, "size": image.size,
            "platform": {"architecture": architecture, "os": "linux"}})
    };
    let missing = Digest::of(b"was never fetched");
    let manifests = [of("s390x", &missing), of("amd64", &image.digest)];
    let index = json!({"schemaVersion": 2, "mediaType": media::DOCKER_LIST, "manifests": manifests});
    let held = Labels::from([("containerd.io/gc.ref.content.m.0".into(), missing.to_string())]);
    let index = blob(&store, media::DOCKER_LIST, index.to_string().as_bytes(), held).await;
    let there = Arc::clone(&store) as Arc<dyn Store>;
    let wanted = Wanted::Any(vec!["linux/amd64".parse().unwrap()]);
    let new = convert(&there, &index, &Options { wanted, ..options(false, true) }).await.unwrap();
    let converted = document(&store, &new).await;
    assert_eq!(
        (new.media_type.as_str(), converted["manifests"].as_array().unwrap().len()),
        (media::OCI_INDEX, 1)
    );
    assert_eq!(converted["manifests"][0]["platform"]["architecture"], "amd64");
    assert_eq!(converted["manifests"][0]["mediaType"], media::OCI_MANIFEST);
    let held = store.info(&new.digest).await.unwrap().labels;
    assert_eq!(held.keys().collect::<Vec<_>>(), ["containerd.io/gc.ref.content.m.1"]);
    assert!(convert(&there, &index, &options(false, true)).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_layer_that_is_damaged_leaves_no_ingest() {
    let store = Arc::new(Memory::default());
    let mut packed = gzip(LAYER);
    packed.truncate(packed.len() - 5);
    let layer = blob(&store, media::OCI_LAYER_GZIP, &packed, Labels::new()).await;
    let there = Arc::clone(&store) as Arc<dyn Store>;
    assert!(convert(&there, &layer, &options(true, false)).await.is_err());
    assert_eq!(there.list_statuses(&[]).await.unwrap(), []);
}
