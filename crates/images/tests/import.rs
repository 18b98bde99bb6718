//! What an import brings, and that a bad archive names nothing and leaves nothing half-written.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod memory;

use std::io::Write;
use std::sync::Arc;

use content::Store;
use images::Silent;
use images::import::{DigestNames, Imported, Naming, Options, import};
use images::walk::Wanted;
use serde_json::json;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;
use types::oci::image::media;
use types::platform::Platform;
use types::{Class, Digest, Result};

use memory::Memory;

#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, "", bytes);
        self
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, &[]);
        self
    }

    fn entry(&mut self, name: &str, kind: EntryType, link: &str, bytes: &[u8]) {
        let mut entry = EntryBuilder::new_gnu();
        entry.path(name).entry_type(kind).mode(0o644).unwrap().size(bytes.len() as u64).unwrap();
        if !link.is_empty() {
            entry.link_name(link);
        }
        self.0.extend_from_slice(&entry.finish_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An image in parts, so that a test can spoil one.
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
}

impl Image {
    fn new() -> Self {
        let layer = Tar::default().file("hello", &[7; 100_000]).end();
        let platform = Platform::host();
        let config = json!({"architecture": platform.architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}})
        .to_string()
        .into_bytes();
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
            "config": descriptor(media::OCI_CONFIG, &config), "layers": [descriptor(media::OCI_LAYER, &layer)]})
        .to_string()
        .into_bytes();
        let mut named = descriptor(media::OCI_MANIFEST, &manifest);
        named["platform"] = json!({"architecture": Platform::host().architecture, "os": "linux"});
        named["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
        let index = json!({"schemaVersion": 2, "manifests": [named]}).to_string().into_bytes();
        Self { layer, config, manifest, index }
    }

    fn layout(&self) -> Tar {
        let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in [&self.layer, &self.config, &self.manifest] {
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
        }
        tar.file("index.json", &self.index)
    }

    fn saved(&self) -> Tar {
        let manifest =
            json!([{"Config": "config.json", "RepoTags": ["busybox:1"], "Layers": ["a/layer.tar"]}]);
        Tar::default()
            .file("a/layer.tar", &self.layer)
            .file("a/VERSION", b"1.0")
            .file("config.json", &self.config)
            .file("manifest.json", manifest.to_string().as_bytes())
    }
}

fn options() -> Options {
    Options { wanted: Wanted::Only(Platform::host()), compress: false, discard_layers: false }
}

fn naming() -> Naming {
    Naming { prefix: "import".into(), only_prefixed: false, digests: DigestNames::None, index: None }
}

async fn run(store: &Arc<Memory>, archive: Vec<u8>, options: &Options) -> Result<Imported> {
    run_named(store, archive, options, &naming()).await
}

async fn run_named(
    store: &Arc<Memory>,
    archive: Vec<u8>,
    options: &Options,
    naming: &Naming,
) -> Result<Imported> {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    import(Box::new(std::io::Cursor::new(archive)), &store, options, naming, &Silent).await
}

#[tokio::test]
async fn an_oci_layout_brings_its_image_and_holds_its_children() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    let imported = run(&store, image.layout().end(), &options()).await.unwrap();
    let (name, target) = imported.images.first().unwrap();
    assert_eq!(name, "import:v1");
    assert_eq!(target.digest, Digest::of(&image.manifest));
    let labels = store.info(&target.digest).await.unwrap().labels;
    assert_eq!(labels["containerd.io/gc.ref.content.config"], Digest::of(&image.config).as_str());
    assert_eq!(labels["containerd.io/gc.ref.content.l.0"], Digest::of(&image.layer).as_str());
    // With the index, which was not asked for and which nothing keeps.
    assert_eq!(store.digests().len(), 4);
}

#[tokio::test]
async fn what_another_namespace_has_is_not_written_again() {
    let image = Image::new();
    let store = Arc::new(Memory::beside(&[&image.layer, &image.config, &image.manifest]));
    let imported = run(&store, image.layout().end(), &options()).await.unwrap();
    assert_eq!(imported.images[0].1.digest, Digest::of(&image.manifest));
    assert_eq!(store.info(&Digest::of(&image.layer)).await.unwrap().size, image.layer.len() as u64);
    assert_eq!(store.list_statuses(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn an_index_that_is_named_is_kept_with_a_label_for_each_manifest() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    let naming = Naming { index: Some("whole".into()), ..naming() };
    let imported = run_named(&store, image.layout().end(), &options(), &naming).await.unwrap();
    assert_eq!(imported.images[0].0, "whole");
    let labels = store.info(&imported.images[0].1.digest).await.unwrap().labels;
    assert_eq!(labels["containerd.io/gc.ref.content.m.0"], Digest::of(&image.manifest).as_str());
}

#[tokio::test]
async fn a_docker_archive_becomes_the_same_manifest_as_upstreams() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    let imported = run(&store, image.saved().end(), &options()).await.unwrap();
    let (name, target) = &imported.images[0];
    assert_eq!(name, "docker.io/library/busybox:1");
    assert_eq!(target.annotations["org.opencontainers.image.ref.name"], "1");
    let expected = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
        media::DOCKER_MANIFEST,
        media::DOCKER_CONFIG,
        Digest::of(&image.config),
        image.config.len(),
        media::DOCKER_LAYER,
        Digest::of(&image.layer),
        image.layer.len()
    );
    assert_eq!(target.digest, Digest::of(expected.as_bytes()));
}

#[tokio::test]
async fn layers_of_a_docker_archive_are_compressed_on_request_and_found_again() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    let compress = Options { compress: true, ..options() };
    let first = run(&store, image.saved().end(), &compress).await.unwrap();
    // The compressed form is known by its label now.
    let second = run(&store, image.saved().end(), &options()).await.unwrap();
    assert_eq!(first.images, second.images);
}

#[tokio::test]
async fn a_layer_that_is_a_link_to_another_is_that_layer() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    let manifest = json!([{"Config": "config.json", "Layers": ["b/layer.tar"]}]).to_string();
    let archive = Tar::default()
        .file("a/layer.tar", &image.layer)
        .link("b/layer.tar", "../a/layer.tar")
        .file("config.json", &image.config)
        .file("manifest.json", manifest.as_bytes());
    let naming = Naming { digests: DigestNames::Unnamed, ..naming() };
    let imported = run_named(&store, archive.end(), &options(), &naming).await.unwrap();
    assert_eq!(imported.images.len(), 1);
}

#[tokio::test]
async fn compressed_archives_are_read_as_they_are() {
    let store = Arc::new(Memory::default());
    let plain = Image::new().layout().end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for archive in [gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        assert_eq!(run(&store, archive, &options()).await.unwrap().images.len(), 1);
    }
}

#[tokio::test]
async fn a_bad_archive_is_an_error_and_leaves_no_ingest() {
    let image = Image::new();
    let whole = image.layout().end();
    let mut wrong_digest = Image::new();
    let name = format!("blobs/sha256/{}", Digest::of(b"something else").hex());
    wrong_digest.config.clear();
    let without_layer = Image { layer: Vec::new(), ..Image::new() };
    let foreign = Options { wanted: Wanted::Only("linux/s390x".parse().unwrap()), ..options() };
    let cases: Vec<(&str, Vec<u8>, Options)> = vec![
        ("empty", Vec::new(), options()),
        ("noise", vec![42; 4096], options()),
        ("cut in a layer", whole[..60_000].to_vec(), options()),
        ("cut at a member", whole[..1024].to_vec(), options()),
        ("wrong digest, small", image.layout().file(&name, b"small").end(), options()),
        ("wrong digest, large", image.layout().file(&name, &[1; 100_000]).end(), options()),
        ("leaves the archive", image.layout().file("../../etc/passwd", b"x").end(), options()),
        ("no layer", without_layer.layout().end(), options()),
        ("a link to nowhere", image.saved().link("x", "/etc/passwd").end(), options()),
        ("a loop of links", image.saved().link("x", "y").link("y", "x").end(), options()),
        ("not JSON", image.layout().file("index.json", b"{").end(), options()),
        ("huge index", image.layout().file("index.json", &[b' '; 21 << 20]).end(), options()),
        ("not for this machine", whole.clone(), foreign),
        (
            "another layout",
            Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"2"}"#).end(),
            options(),
        ),
    ];
    for (what, archive, options) in cases {
        let store = Arc::new(Memory::default());
        let error = run(&store, archive, &options).await.expect_err(what);
        assert_ne!(error.class(), Class::Internal, "{what}: {error}");
        assert!(store.list_statuses(&[]).await.unwrap().is_empty(), "{what}: {error}: left an ingest");
    }
}

#[tokio::test]
async fn a_failed_import_leaves_what_was_there_before() {
    let store = Arc::new(Memory::default());
    let image = Image::new();
    run(&store, image.layout().end(), &options()).await.unwrap();
    let before = store.digests();
    let bad = image.layout().file("blobs/sha256/00", b"").end();
    run(&store, bad, &options()).await.unwrap_err();
    assert_eq!(store.digests(), before);
}

#[tokio::test]
async fn small_blobs_of_a_layout_may_have_other_digests() {
    for (algorithm, good) in [("sha512", true), ("sha512", false), ("sha384", true)] {
        let store = Arc::new(Memory::default());
        let mut hasher = types::digest::Hasher::new(match algorithm {
            "sha384" => types::digest::Algorithm::Sha384,
            _ => types::digest::Algorithm::Sha512,
        });
        hasher.update(if good { b"blob" } else { b"else" });
        let digest = hasher.finish();
        let archive =
            Image::new().layout().file(&format!("blobs/{algorithm}/{}", digest.hex()), b"blob").end();
        assert_eq!(run(&store, archive, &options()).await.is_ok(), good, "{algorithm}");
        assert_eq!(store.digests().contains(&digest), good);
    }
}

#[tokio::test]
async fn a_million_members_are_refused_before_they_cost_anything() {
    let mut tar = Tar::default();
    for number in 0..60_000 {
        tar.entry(&number.to_string(), EntryType::Regular, "", &[]);
    }
    let store = Arc::new(Memory::default());
    let error = run(&store, tar.end(), &options()).await.unwrap_err();
    assert!(error.to_string().contains("members"), "{error}");
    assert!(store.digests().is_empty());
}
