//! Which documents are fetched, what holds them, and which are refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use content::Store as _;
use diff::{Applied, Applier, ApplyOptions};
use images::pull::{How, Metadata};
use images::walk::Wanted;
use serde_json::json;
use types::digest::Digest;
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::platform::Platform;
use types::{Class, Result};

use crate::archive::Archive;
use crate::bench::{Bench, is_root, layer};

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// An image for a platform, as its index names it.
fn image_for(bench: &Bench, text: &str) -> Descriptor {
    let made = layer(Archive::default().file("platform", text));
    let platform = platform(text);
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "rootfs": {"type": "layers", "diff_ids": [made.diff_id]},
    })
    .to_string();
    let blob = |media_type: &str, bytes: bytes::Bytes| {
        let size = bytes.len() as u64;
        Descriptor::new(media_type, bench.registry.add_blob("library/x", bytes), size)
    };
    let config = blob(media::OCI_CONFIG, config.into());
    let layers = [blob(media::OCI_LAYER_GZIP, made.bytes)];
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": layers});
    let manifest = manifest.to_string();
    let mut manifest = bench.registry.add_manifest("library/x", None, media::OCI_MANIFEST, manifest);
    manifest.platform = Some(platform);
    manifest
}

fn index_of(bench: &Bench, manifests: &[Descriptor]) -> Descriptor {
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    bench.registry.add_manifest("library/x", Some("1"), media::OCI_INDEX, index.to_string())
}

async fn has(bench: &Bench, descriptor: &Descriptor) -> bool {
    bench.store.info(&descriptor.digest).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_only_the_wanted_platform_is_fetched_but_all_are_named() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let images = ["linux/arm/v6", "linux/arm/v7", "linux/s390x"].map(|text| image_for(&bench, text));
    let index = index_of(&bench, &images);
    let mut pull = bench.make();
    pull.wanted = Wanted::Only(platform("linux/arm/v7"));
    pull.manifest_limit = 1;
    let pulled = pull.pull(&index, bench.events.clone()).await.unwrap();
    assert_eq!(pulled.images.len(), 1);
    assert_eq!(pulled.images[0].manifest.digest, images[1].digest);
    assert!(pulled.images[0].unpacked.is_some());
    assert!(
        !has(&bench, &images[0]).await && has(&bench, &images[1]).await && !has(&bench, &images[2]).await
    );
    let labels = bench.store.labels(&index.digest).await;
    for (number, image) in images.iter().enumerate() {
        assert_eq!(labels[&format!("containerd.io/gc.ref.content.m.{number}")], image.digest.to_string());
    }

    let mut pull = bench.make();
    pull.wanted = Wanted::Only(platform("linux/arm/v7"));
    pull.metadata = Metadata::All;
    pull.pull(&index, bench.events.clone()).await.unwrap();
    let other = images::walk::read_manifest(&*bench.store, &images[2]).await.unwrap();
    assert!(has(&bench, &other.config).await && !has(&bench, &other.layers[0]).await);

    let mut pull = bench.make();
    pull.wanted = Wanted::Only(platform("linux/riscv64"));
    pull.manifest_limit = 1;
    let error = pull.pull(&index, bench.events.clone()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_deep_is_refused_and_the_limit_named() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = image_for(&bench, "linux/amd64");
    let mut index = index_of(&bench, &[image]);
    for _ in 0..4 {
        index = index_of(&bench, &[index]);
    }
    let error = bench.pull(&index).await.unwrap_err();
    assert!(error.to_string().contains("max_index_depth"), "{error}");

    let padding = "x".repeat(9 << 20);
    let large = json!({"schemaVersion": 2, "manifests": [], "annotations": {"x": padding}}).to_string();
    let large = bench.registry.add_manifest("library/x", None, media::OCI_INDEX, large);
    bench.registry.forget_requests();
    let error = bench.pull(&large).await.unwrap_err();
    assert!(error.to_string().contains("max_manifest_size"), "{error}");
    assert!(bench.registry.requests().is_empty());
    assert!(bench.store.ingests().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_1_is_refused_by_name() {
    let bench = Bench::new();
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let error = bench.pull(&Descriptor::new(old, Digest::of(b"old"), 3)).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidArgument);
    assert!(error.to_string().contains("schema 1"), "{error}");
    assert!(bench.registry.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_fetched_and_not_unpacked() {
    let bench = Bench::new();
    let blob = |media_type: &str, bytes: &'static [u8]| {
        Descriptor::new(media_type, bench.registry.add_blob("library/x", bytes), bytes.len() as u64)
    };
    let config = blob("application/vnd.oci.empty.v1+json", b"{}");
    let body = blob("application/vnd.example.thing", b"the thing");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": [body]});
    let manifest = manifest.to_string();
    let manifest = bench.registry.add_manifest("library/x", Some("1"), media::OCI_MANIFEST, manifest);
    let pulled = bench.pull(&manifest).await.unwrap();
    assert_eq!(pulled.images[0].unpacked, None);
    assert!(has(&bench, &config).await && has(&bench, &body).await);
    let labels = bench.store.labels(&manifest.digest).await;
    assert_eq!(labels["containerd.io/gc.ref.content.0"], config.digest.to_string());
    assert_eq!(labels["containerd.io/gc.ref.content.1"], body.digest.to_string());
}

/// The manifest of an image that the registry has, to be changed.
fn manifest_for(bench: &Bench, platform: &str) -> serde_json::Value {
    let image = image_for(bench, platform);
    let (_, manifest) = bench.registry.manifest("library/x", image.digest.as_str()).unwrap();
    serde_json::from_slice(&manifest).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_descriptor_brings_along_is_not_fetched_but_verified() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let mut manifest = manifest_for(&bench, "linux/amd64");
    let digest: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config = bench.registry.blob("library/x", &digest).unwrap();
    bench.registry.remove_blob("library/x", &digest);
    let mut lie = config.to_vec();
    lie[0] = b' ';
    for (content, good) in [(&lie[..], false), (&config[..], true)] {
        manifest["config"]["data"] = STANDARD.encode(content).into();
        let manifest =
            bench.registry.add_manifest("library/x", Some("1"), media::OCI_MANIFEST, manifest.to_string());
        let pulled = bench.pull(&manifest).await;
        assert_eq!(pulled.is_ok(), good, "{pulled:?}");
        assert!(good || pulled.unwrap_err().to_string().contains("unexpected commit digest"));
        assert!(bench.store.ingests().await.is_empty());
        bench.nothing_half_done().await;
    }
    assert_eq!(bench.registry.count("GET", digest.as_str()), 0);
}

/// Applies layers of a type of its own.
struct Special(Arc<dyn Applier>);

const SPECIAL_LAYER: &str = "application/vnd.example.layer";
const SPECIAL_CONFIG: &str = "application/vnd.example.config";

#[async_trait::async_trait]
impl Applier for Special {
    async fn apply(&self, blob: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied> {
        assert_eq!(blob.media_type, SPECIAL_LAYER);
        let blob = Descriptor { media_type: media::OCI_LAYER_GZIP.to_owned(), ..blob.clone() };
        self.0.apply(&blob, mounts, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_configs_and_layers_may_be_a_way_s_own() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let mut manifest = manifest_for(&bench, "linux/amd64");
    manifest["config"]["mediaType"] = SPECIAL_CONFIG.into();
    manifest["layers"][0]["mediaType"] = SPECIAL_LAYER.into();
    let manifest = manifest.to_string();
    let special = bench.registry.add_manifest("library/x", Some("1"), media::OCI_MANIFEST, manifest);
    // Nobody says that it is an image: it comes, and is not unpacked.
    let pulled = bench.pull(&special).await.unwrap();
    assert_eq!(pulled.images[0].unpacked, None);

    let with_own_types = || {
        let mut pull = bench.make();
        let usual = pull.unpack[0].clone();
        let own = &mut pull.unpack[0];
        let How::OnePass(applier) = own.how.clone() else { panic!("the bench extracts by itself") };
        own.how = How::ByApplier(Arc::new(Special(applier)));
        own.config_type = SPECIAL_CONFIG.to_owned();
        own.layer_types = vec![SPECIAL_LAYER.to_owned()];
        pull.unpack.push(usual);
        pull
    };
    let pulled = with_own_types().pull(&special, bench.events.clone()).await.unwrap();
    assert!(pulled.images[0].unpacked.is_some());
    // The usual image goes the usual way.
    let other = layer(Archive::default().file("another", "1"));
    let usual = bench.registry.add_image("library/x", "2", &[other]).manifest;
    let pulled = with_own_types().pull(&usual, bench.events.clone()).await.unwrap();
    assert!(pulled.images[0].unpacked.is_some());
}
