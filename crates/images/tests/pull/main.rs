//! A pull leaves what upstream leaves, once, whatever the registry, the disk or the caller does meanwhile.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

#[path = "../../../diff/tests/archive/mod.rs"]
mod archive;
mod bench;
#[path = "../failing/mod.rs"]
mod failing;
mod faults;
mod interrupted;
mod sharing;
mod store;
mod trees;

use snapshots::Snapshotter as _;
use types::digest::Digest;
use types::oci::image::{chain_id, media};
use types::snapshot::Kind;
use types::{Class, Labels};

use archive::{Archive, Header, gzip};
use bench::{Bench, is_root, layer};
use failing::snapshots_of;

/// Three layers: the second implies a directory of the first, the third links to one of its files.
pub fn layers() -> Vec<registry::fake::Layer> {
    let big: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    vec![
        layer(
            Archive::default()
                .entry(Header::new(b'5', "etc").mode(0o750).owner(7, 8).mtime(5), b"")
                .file("etc/a", "1")
                .dir("usr")
                .file("usr/big", &big),
        ),
        layer(Archive::default().file("etc/b", "2").file("etc/.wh.a", "").file("new/.wh.x", "")),
        layer(Archive::default().hardlink("again", "usr/big").file("top", "3")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_blobs_labels_and_snapshots_as_upstream_makes_them() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers = layers();
    let image = bench.registry.add_image("library/x", "1", &layers);
    let pulled = bench.pull(&image.manifest).await.unwrap();

    let ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let chains: Vec<Digest> = (1..=3).map(|n| chain_id(&ids[..n]).unwrap()).collect();
    assert_eq!(pulled.images[0].unpacked, Some(("overlayfs".to_owned(), chains[2].clone())));
    let source = ("containerd.io/distribution.source.127.0.0.1".to_owned(), "library/x".to_owned());
    let with = |more: &[(&str, &Digest)]| -> Labels {
        let more = more.iter().map(|(key, value)| (format!("containerd.io/{key}"), value.to_string()));
        more.chain([source.clone()]).collect()
    };
    let held = [
        ("gc.ref.content.config", &image.config.digest),
        ("gc.ref.content.l.0", &image.layers[0].digest),
        ("gc.ref.content.l.1", &image.layers[1].digest),
        ("gc.ref.content.l.2", &image.layers[2].digest),
    ];
    assert_eq!(bench.store.labels(&image.manifest.digest).await, with(&held));
    let top = [("gc.ref.snapshot.overlayfs", &chains[2])];
    assert_eq!(bench.store.labels(&image.config.digest).await, with(&top));
    for (layer, id) in image.layers.iter().zip(&ids) {
        assert_eq!(bench.store.labels(&layer.digest).await, with(&[("uncompressed", id)]));
    }
    let mut wanted: Vec<_> = chains.iter().map(|chain| (Kind::Committed, chain.to_string())).collect();
    wanted.sort_by(|a, b| a.1.cmp(&b.1));
    let mut found = snapshots_of(&*bench.snapshotter).await;
    found.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(found, wanted);
    let info = bench.stat(&chains[1]).await;
    let labels = [
        ("containerd.io/snapshot.ref", chains[1].to_string()),
        ("containerd.io/snapshot/diff-id", ids[1].to_string()),
        ("containerd.io/snapshot/parent-chain-id", chains[0].to_string()),
    ];
    assert_eq!(info.parent, chains[0].to_string());
    assert_eq!(info.labels, labels.map(|(key, value)| (key.to_owned(), value)).into());
    assert!(bench.store.ingests().await.is_empty());
    assert!(bench.shared.running().is_empty());

    // Entry by entry what an unpack of one layer after another gives.
    let one_by_one = bench.unpacked_one_by_one(&image).await;
    assert_eq!(bench.seen(&chains[2]).await, one_by_one);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_fetched_again_and_what_is_missing_is() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    bench.pull(&image.manifest).await.unwrap();
    bench.registry.forget_requests();
    bench.pull(&image.manifest).await.unwrap();
    assert_eq!(bench.registry.requests().len(), 0, "{:?}", bench.registry.requests());

    content::Store::delete(&*bench.store, &image.layers[1].digest).await.unwrap();
    bench.pull(&image.manifest).await.unwrap();
    assert_eq!(bench.registry.requests().len(), 1);
    bench.whole(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_that_cannot_rebase_gets_one_layer_after_another() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    let native = snapshots::native::Native::open(bench.path("native")).unwrap();
    let mut pull = bench.make();
    pull.unpack[0].snapshotter = native;
    pull.unpack[0].snapshotter_name = "native".to_owned();
    let pulled = pull.pull(&image.manifest, bench.events.clone()).await.unwrap();
    assert!(pulled.images[0].unpacked.is_some());
    let labels = bench.store.labels(&image.layers[2].digest).await;
    assert!(labels.contains_key("containerd.io/uncompressed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshotter_brings_itself_is_not_fetched() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    // The third links to a file of the first, of which nothing comes here.
    let layers = &layers()[..2];
    let image = bench.registry.add_image("library/x", "1", layers);
    let ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let lowest = chain_id(&ids[..1]).unwrap();
    let remote = failing::Failing::new(snapshots::native::Native::open(bench.path("native")).unwrap());
    remote.bring(lowest.as_str());
    let pull = || {
        let mut pull = bench.make();
        pull.unpack[0].snapshotter = remote.clone();
        pull.unpack[0].remote = true;
        pull.pull(&image.manifest, bench.events.clone())
    };
    pull().await.unwrap();

    let labels = remote.stat(lowest.as_str()).await.unwrap().labels;
    let said = |key: &str| labels[&format!("containerd.io/snapshot/cri.{key}")].clone();
    assert_eq!(said("image-ref"), bench.make().source.name);
    assert_eq!(said("manifest-digest"), image.manifest.digest.to_string());
    assert_eq!(said("layer-digest"), image.layers[0].digest.to_string());
    let all: Vec<_> = image.layers.iter().map(|layer| layer.digest.to_string()).collect();
    assert_eq!(said("image-layers"), all.join(","));
    let is_there =
        async |n: usize| content::Store::info(&*bench.store, &image.layers[n].digest).await.is_ok();
    assert_eq!([is_there(0).await, is_there(1).await], [false, true]);

    // It is there, and so is what stands on it.
    bench.registry.forget_requests();
    pull().await.unwrap();
    assert_eq!(bench.registry.requests().len(), 0, "{:?}", bench.registry.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_told_of_from_found_to_unpacked() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    bench.pull(&image.manifest).await.unwrap();
    let of_layer = bench.events.of(&image.layers[0].digest);
    let first = |word: &str| of_layer.iter().position(|event| event.starts_with(word));
    let order = ["found", "fetching", "extracting", "fetched", "unpacked"].map(|word| first(word).unwrap());
    assert!(order.is_sorted(), "{order:?} in {of_layer:?}");
    assert!(first("unpacking").unwrap() < first("extracting").unwrap());
    assert_eq!(of_layer.last().unwrap(), "unpacked");
    assert_eq!(bench.events.of(&image.manifest.digest)[0], "found");
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_and_plain_layers_and_docker_s_types_are_unpacked_too() {
    if !is_root() {
        return;
    }
    let tar = |name: &str| Archive::default().file(name, "x".repeat(9000)).end();
    let of = |media_type: &str, bytes: Vec<u8>, tar: &[u8]| registry::fake::Layer {
        bytes: bytes.into(),
        media_type: media_type.to_owned(),
        diff_id: Digest::of(tar),
    };
    let (a, b, c, d) = (tar("a"), tar("b"), tar("c"), tar("d"));
    let layers = [
        of(media::OCI_LAYER_ZSTD, zstd::encode_all(&a[..], 1).unwrap(), &a),
        of(media::OCI_LAYER, b.clone(), &b),
        of(media::DOCKER_LAYER_GZIP, gzip(&c), &c),
        of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", gzip(&d), &d),
    ];
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers);
    let pulled = bench.pull(&image.manifest).await.unwrap();
    let (_, top) = pulled.images[0].unpacked.clone().unwrap();
    let seen = bench.seen(&top).await;
    assert_eq!(seen.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);

    let e = tar("e");
    let secret = of("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", gzip(&e), &e);
    let image = bench.registry.add_image("library/x", "2", &[secret]);
    let error = bench.pull(&image.manifest).await.unwrap_err();
    assert_eq!(error.class(), Class::Unimplemented, "{error}");
}
