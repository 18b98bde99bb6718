//! What goes wrong is told with its reason, leaves nothing half-done, and the next pull ends well.

use std::time::Duration;

use content::{Store as _, WriterOptions};
use registry::fake::{Fault, Layer, When};
use types::digest::Digest;
use types::{Class, Error};

use crate::archive::{Archive, gzip};
use crate::bench::{Bench, is_root, layer};
use crate::failing::{Step, Which, snapshots_of};
use crate::layers;

/// Pulls, gets an error, and then pulls well.
async fn fails_then_heals(bench: &Bench, image: &registry::fake::Image) -> Error {
    let error = bench.pull(&image.manifest).await.unwrap_err();
    bench.nothing_half_done().await;
    bench.registry.heal();
    bench.snapshotter.heal();
    bench.pull(&image.manifest).await.unwrap();
    bench.whole(image).await;
    bench.nothing_half_done().await;
    assert!(bench.store.ingests().await.is_empty());
    error
}

fn get(digest: &Digest) -> When {
    When::path(digest.as_str()).method("GET")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_another_digest_is_thrown_away_with_its_files() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    let lied = layer(Archive::default().file("lie", "1")).bytes;
    let mut padded = lied.to_vec();
    padded.resize(image.layers[0].size as usize, 7);
    bench.registry.fault(get(&image.layers[0].digest), Fault::Body(padded.into()));
    let reference = format!("layer-{}", image.layers[0].digest);
    let error = bench.pull(&image.manifest).await.unwrap_err();
    assert!(error.to_string().contains("unexpected commit digest"), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    assert!(bench.store.status(&reference).await.unwrap_err().is_not_found());
    assert!(bench.store.info(&image.layers[0].digest).await.unwrap_err().is_not_found());
    fails_then_heals(&bench, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_id_that_the_config_does_not_promise_is_refused_and_the_blob_is_a_blob() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let honest = layers();
    let mut lying = honest.clone();
    lying[1].diff_id = Digest::of(b"another");
    let image = bench.registry.add_image("library/x", "1", &lying);
    let blob = &image.layers[1].digest;
    // The first pull extracts it while it arrives, the second from the store.
    for _ in 0..2 {
        let error = bench.pull(&image.manifest).await.unwrap_err();
        assert!(error.to_string().contains("wrong diff id"), "{error}");
        bench.nothing_half_done().await;
        // It is what its digest says; it is the config that lies. Only its diff id is not noted.
        assert!(!bench.store.labels(blob).await.contains_key("containerd.io/uncompressed"));
        assert!(bench.store.status(&format!("layer-{blob}")).await.unwrap_err().is_not_found());
        assert_eq!(bench.registry.count("GET", blob.as_str()), 1);
        let committed = snapshots_of(&*bench.snapshotter).await;
        assert!(committed.iter().all(|(_, name)| *name == honest[0].diff_id.to_string()), "{committed:?}");
    }
    // Another image, whose config tells the truth, uses it.
    let honestly = bench.registry.add_image("library/x", "2", &honest);
    bench.pull(&honestly.manifest).await.unwrap();
    bench.whole(&honestly).await;
    assert_eq!(bench.registry.count("GET", blob.as_str()), 1);
    assert_eq!(bench.store.labels(blob).await["containerd.io/uncompressed"], honest[1].diff_id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_goes_on_where_it_ended() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    let first = &image.layers[0];
    bench.registry.fault(get(&first.digest), Fault::Reset(1_000_000));
    // Nor does it begin again by itself.
    bench.registry.fault(get(&first.digest).after(1), Fault::Status(404));
    bench.pull(&image.manifest).await.unwrap_err();
    bench.nothing_half_done().await;
    let left = bench.store.status(&format!("layer-{}", first.digest)).await.unwrap().offset;
    assert!(left > 0, "nothing was kept");
    bench.registry.heal();
    bench.registry.forget_requests();
    bench.pull(&image.manifest).await.unwrap();
    bench.whole(&image).await;
    let requests = bench.registry.requests();
    let again: Vec<_> = requests.iter().filter(|r| r.target.contains(first.digest.as_str())).collect();
    assert_eq!(again.len(), 1);
    let range = again[0].headers.get("range").unwrap().to_str().unwrap();
    assert!(range.starts_with(&format!("bytes={left}-")), "{range}, {left} bytes were there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_pull_left_is_not_believed() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    // As after a power cut: some of it is zeros.
    for blob in [&image.layers[0], &image.layers[1], &image.config] {
        let kind = if *blob == image.config { "config" } else { "layer" };
        let options = WriterOptions {
            reference: format!("{kind}-{}", blob.digest),
            total: blob.size as u64,
            expected: Some(blob.digest.clone()),
        };
        let mut writer = bench.store.writer(options).await.unwrap();
        let length = if *blob == image.layers[1] { blob.size } else { blob.size / 2 };
        writer.write(vec![0; length as usize].into()).await.unwrap();
        writer.digest().await.unwrap();
    }
    bench.pull(&image.manifest).await.unwrap();
    bench.whole(&image).await;
    bench.nothing_half_done().await;
    assert!(bench.store.ingests().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_that_fails_gets_its_half_done_work_removed() {
    if !is_root() {
        return;
    }
    for step in [Step::View, Step::Commit] {
        let bench = Bench::new();
        let image = bench.registry.add_image("library/x", "1", &layers());
        bench.snapshotter.fail(step, Which::All);
        let error = fails_then_heals(&bench, &image).await;
        assert!(error.to_string().contains("was told to fail"), "{step:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_stopped_at_the_limit_that_the_error_names() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let bomb = layer(Archive::default().file("zeros", vec![0; 64 << 20]));
    let image = bench.registry.add_image("library/x", "1", &[bomb]);
    let mut pull = bench.make();
    pull.limits.max_unpacked_layer = Some(8 << 20);
    let error = pull.pull(&image.manifest, bench.events.clone()).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("max_unpacked_layer"), "{error}");
    bench.nothing_half_done().await;
    bench.pull(&image.manifest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_no_archive_is_an_error_of_its_own() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let text = b"this is no archive, however long one reads in it ".repeat(40);
    let bytes = gzip(&text);
    let bad =
        Layer { bytes: bytes.into(), media_type: layers()[0].media_type.clone(), diff_id: Digest::of(&text) };
    let image = bench.registry.add_image("library/x", "1", &[bad]);
    let error = bench.pull(&image.manifest).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidArgument, "{error}");
    assert!(error.to_string().contains("tar"), "{error}");
    bench.nothing_half_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_sends_too_much_or_too_little_is_refused() {
    if !is_root() {
        return;
    }
    for fault in [Fault::Truncate(100), Fault::Extra(50), Fault::Endless, Fault::Status(500)] {
        let bench = Bench::new();
        let image = bench.registry.add_image("library/x", "1", &layers());
        bench.registry.fault(get(&image.layers[0].digest), fault.clone());
        let error =
            tokio::time::timeout(Duration::from_secs(60), fails_then_heals(&bench, &image)).await.unwrap();
        assert!(error.to_string().contains("127.0.0.1"), "{fault:?}: {error}");
    }
}
