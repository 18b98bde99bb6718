//! What is exported is what an import brings back, and never something incomplete that looks whole.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use content::{Store, WriterOptions};
use diff::tar::Reader;
use images::Silent;
use images::export::{Options, Output, export};
use images::import::{self, DigestNames, Naming};
use images::walk::Wanted;
use serde_json::{Value, json};
use types::oci::Descriptor;
use types::oci::image::media;
use types::platform::Platform;
use types::{Class, Digest, Error, Labels, Result};

use memory::Memory;

#[derive(Default)]
struct Bytestream(Vec<u8>);

#[async_trait]
impl Output for Bytestream {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }
}

struct Full;

#[async_trait]
impl Output for Full {
    async fn write(&mut self, _bytes: Bytes) -> Result<()> {
        Err(Error::exhausted("no space left on device"))
    }
}

async fn blob(store: &Arc<Memory>, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(bytes);
    let options = WriterOptions { reference: digest.to_string(), ..WriterOptions::default() };
    if let Ok(mut writer) = store.writer(options).await {
        writer.write(bytes.to_vec().into()).await.unwrap();
        let done = writer.commit(bytes.len() as u64, Some(digest.clone()), Labels::new()).await;
        assert!(done.is_ok() || done.unwrap_err().is_already_exists());
    }
    Descriptor::new(media_type, digest, bytes.len() as u64)
}

async fn image(store: &Arc<Memory>, architecture: &str) -> Descriptor {
    let layer = blob(store, media::OCI_LAYER, architecture.repeat(500_000).as_bytes()).await;
    let foreign = Descriptor::new(
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Digest::of(b"elsewhere"),
        9,
    );
    let config =
        json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = blob(store, media::OCI_CONFIG, config.to_string().as_bytes()).await;
    let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config,
        "layers": [layer, foreign]});
    let manifest = blob(store, media::OCI_MANIFEST, manifest.to_string().as_bytes()).await;
    let platform = Platform { architecture: architecture.into(), os: "linux".into(), ..Platform::default() };
    Descriptor { platform: Some(platform), ..manifest }
}

async fn index(store: &Arc<Memory>, manifests: &[Descriptor]) -> Descriptor {
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    blob(store, media::OCI_INDEX, index.to_string().as_bytes()).await
}

/// Without the layer that is elsewhere.
fn options(platforms: &[&str]) -> Options {
    let platforms = platforms.iter().map(|text| text.parse().unwrap()).collect();
    Options { platforms, skip_non_distributable: true, ..Options::default() }
}

async fn exported(store: &Arc<Memory>, images: &[(&str, &Descriptor)], options: &Options) -> Result<Vec<u8>> {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let images: Vec<_> =
        images.iter().map(|(name, target)| ((*name).to_owned(), (*target).clone())).collect();
    let mut out = Bytestream::default();
    export(&store, &images, options, &mut out).await?;
    Ok(out.0)
}

/// The members of an archive.
fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = Reader::new(tar);
    let mut all = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut body = Vec::new();
        loop {
            let piece = reader.body().unwrap().to_vec();
            if piece.is_empty() {
                break;
            }
            reader.consume(piece.len());
            body.extend(piece);
        }
        all.insert(String::from_utf8(entry.name).unwrap(), body);
    }
    all
}

fn document(members: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&members[name]).unwrap()
}

#[tokio::test]
async fn an_archive_brings_the_same_images_to_another_store() {
    let store = Arc::new(Memory::default());
    let one = image(&store, "amd64").await;
    let names = [("docker.io/library/one:1", &one), ("r.example/two:latest", &one)];
    let archive = exported(&store, &names, &options(&["linux/amd64"])).await.unwrap();
    assert_eq!(archive, exported(&store, &names, &options(&["linux/amd64"])).await.unwrap());
    let other = Arc::new(Memory::default());
    let wanted = import::Options { wanted: Wanted::All, compress: false, discard_layers: false };
    let naming = Naming { prefix: "x".into(), only_prefixed: false, digests: DigestNames::None, index: None };
    let archive = Box::new(std::io::Cursor::new(archive));
    let there = Arc::clone(&other) as Arc<dyn Store>;
    let imported = import::import(archive, &there, &wanted, &naming, &Silent).await.unwrap();
    let found: Vec<_> = imported.images.iter().map(|(n, t)| (n.as_str(), t.digest.clone())).collect();
    assert_eq!(found, names.map(|(name, target)| (name, target.digest.clone())));
    // The layer that is nowhere is not missed. The archive's index is there, too, and nothing keeps it.
    let mut digests = other.digests();
    digests.retain(|digest| store.digests().contains(digest));
    assert_eq!(digests, store.digests());
}

#[tokio::test]
async fn docker_gets_one_image_of_an_index_and_all_its_names() {
    let store = Arc::new(Memory::default());
    let images = [image(&store, "amd64").await, image(&store, "arm64").await, image(&store, "s390x").await];
    let target = index(&store, &images).await;
    let names = [("docker.io/library/x:1", &target), ("r.example/y:2", &target)];
    let both = exported(&store, &names, &options(&["linux/arm64", "linux/amd64"])).await.unwrap();
    let found = members(&both);
    let loaded = document(&found, "manifest.json");
    assert_eq!(loaded[0]["RepoTags"], json!(["x:1", "r.example/y:2"]));
    assert!(loaded[1].is_null());
    let config = loaded[0]["Config"].as_str().unwrap();
    assert_eq!(document(&found, config)["architecture"], "arm64");
    let listed = document(&found, "index.json");
    assert_eq!(listed["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"], "2");
    assert_eq!(listed["manifests"][1]["annotations"]["io.containerd.image.name"], "r.example/y:2");
    let member = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    assert!(
        found.contains_key(&member(&images[0].digest)) && !found.contains_key(&member(&images[2].digest))
    );
    let all = Options { all_platforms: true, skip_docker_manifest: true, ..options(&["linux/amd64"]) };
    let found = members(&exported(&store, &names, &all).await.unwrap());
    assert!(found.contains_key(&member(&images[2].digest)) && !found.contains_key("manifest.json"));
    let none = exported(&store, &names, &options(&["linux/riscv64"])).await.unwrap_err();
    assert_eq!(none.class(), Class::NotFound);
    assert!(none.to_string().ends_with("no manifest found for platform: not found"), "{none}");
}

#[tokio::test]
async fn what_is_missing_or_not_what_it_says_ends_an_export() {
    let store = Arc::new(Memory::default());
    let one = image(&store, "amd64").await;
    let whole = Options { skip_non_distributable: false, ..options(&["linux/amd64"]) };
    let missing = exported(&store, &[("a/b:1", &one)], &whole).await.unwrap_err();
    assert!(missing.is_not_found() && missing.to_string().contains(Digest::of(b"elsewhere").as_str()));
    let config = blob(&store, media::OCI_CONFIG, b"{}").await;
    let wrong = json!({"schemaVersion": 2, "config": Descriptor { size: 3, ..config.clone() }, "layers": []});
    let wrong = blob(&store, media::OCI_MANIFEST, wrong.to_string().as_bytes()).await;
    let wrong = exported(&store, &[("a/b:1", &wrong)], &options(&["linux/amd64"])).await.unwrap_err();
    assert_eq!(wrong.class(), Class::FailedPrecondition);
    let no_image = exported(&store, &[("a/b:1", &config)], &options(&[])).await.unwrap_err();
    assert!(no_image.to_string().contains("only manifests may be exported"), "{no_image}");
    let store = store as Arc<dyn Store>;
    let images = [("a/b:1".to_owned(), one)];
    let full = export(&store, &images, &options(&["linux/amd64"]), &mut Full).await.unwrap_err();
    assert_eq!(full.class(), Class::ResourceExhausted);
}
