//! Pulls share work, and a caller that goes away takes nobody else along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use content::{Store as _, WriterOptions};
use registry::fake::{Fault, When};
use types::Labels;

use crate::bench::{Bench, is_root};
use crate::layers;

/// Waits until a pull has got some bytes of the first layer.
async fn begun(bench: &Bench, image: &registry::fake::Image) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let fetched = |running: &images::pull::Running| {
        running.layers.get(&image.layers[0].digest).is_some_and(|layer| layer.fetched > 0)
    };
    while !bench.shared.running().iter().any(fetched) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn slow(bench: &Bench, image: &registry::fake::Image) {
    let when = When::path(image.layers[0].digest.as_str()).method("GET").times(1);
    bench.registry.fault(when, Fault::Slow(60_000, Duration::from_millis(20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_once_fetch_and_unpack_it_once() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    slow(&bench, &image);
    let pulls = (0..8).map(|_| {
        let (pull, target) = (bench.make(), image.manifest.clone());
        tokio::spawn(async move { pull.pull(&target, Arc::new(images::Silent)).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap().unwrap();
    }
    assert_eq!(bench.registry.requests().len(), 5, "{:?}", bench.registry.requests());
    bench.whole(&image).await;
    bench.nothing_half_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_dropped_leaves_its_ingest_and_nothing_else() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    slow(&bench, &image);
    let (pull, target) = (bench.make(), image.manifest.clone());
    let work = tokio::spawn(async move { pull.pull(&target, Arc::new(images::Silent)).await });
    begun(&bench, &image).await;
    work.abort();
    bench.nothing_half_done().await;
    assert!(bench.store.info(&image.layers[0].digest).await.unwrap_err().is_not_found());
    bench.pull(&image.manifest).await.unwrap();
    bench.whole(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_whose_caller_goes_away_goes_on_for_the_other() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let image = bench.registry.add_image("library/x", "1", &layers());
    slow(&bench, &image);
    let start = || {
        let (pull, target) = (bench.make(), image.manifest.clone());
        tokio::spawn(async move { pull.pull(&target, Arc::new(images::Silent)).await })
    };
    let first = start();
    begun(&bench, &image).await;
    let second = start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    second.await.unwrap().unwrap();
    bench.whole(&image).await;
    bench.nothing_half_done().await;
    // The second went on where the first had ended.
    let requests = bench.registry.requests();
    let of_first: Vec<_> =
        requests.iter().filter(|r| r.target.contains(image.layers[0].digest.as_str())).collect();
    assert_eq!(of_first.len(), 2);
    assert!(of_first[1].headers.contains_key("range"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fetches_by_itself_is_waited_for() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers = layers();
    let image = bench.registry.add_image("library/x", "1", &layers);
    let (digest, bytes) = (image.layers[0].digest.clone(), layers[0].bytes.clone());
    let options = WriterOptions {
        reference: format!("layer-{digest}"),
        total: bytes.len() as u64,
        expected: Some(digest.clone()),
    };
    let mut writer = bench.store.writer(options).await.unwrap();
    let client = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        writer.write(bytes).await.unwrap();
        writer.commit(0, Some(digest), Labels::new()).await.unwrap();
    });
    bench.pull(&image.manifest).await.unwrap();
    client.await.unwrap();
    bench.whole(&image).await;
    assert_eq!(bench.registry.count("GET", image.layers[0].digest.as_str()), 0);
    let labels = bench.store.labels(&image.layers[0].digest).await;
    assert!(labels.contains_key("containerd.io/distribution.source.127.0.0.1"), "{labels:?}");
    assert!(labels.contains_key("containerd.io/uncompressed"), "{labels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_layer_are_put_together_in_order() {
    if !is_root() {
        return;
    }
    for fault in [None, Some(Fault::IgnoreRange)] {
        let bench = Bench::new();
        let image = bench.registry.add_image("library/x", "1", &layers());
        if let Some(fault) = fault.clone() {
            bench.registry.fault(When::path("/blobs/").method("GET"), fault);
        }
        let mut pull = bench.make();
        pull.limits.fetch_buffer = 300_000;
        pull.pull(&image.manifest, bench.events.clone()).await.unwrap();
        bench.whole(&image).await;
        let asked = bench.registry.count("GET", image.layers[0].digest.as_str());
        assert!(asked > 2 || fault.is_some(), "{asked} requests");
    }
}
