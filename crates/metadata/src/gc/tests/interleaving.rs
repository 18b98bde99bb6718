//! What happens between the mark and the sweep: whatever is referred to, or promised to somebody, after the mark stays,
//! with all that it refers to.

use std::sync::{Arc, Mutex};

use ::content::WriterOptions;
use async_trait::async_trait;
use types::{Labels, Namespace};

use super::{NS, World, ago};
use crate::fakes::{SNAPSHOTTER, container, labels, ns, paths, put, scope};
use crate::gc::{Begun, Collectible, Item};

/// A dead image's manifest and layer, and two dead snapshots.
async fn dead_things(world: &World) -> (types::Digest, types::Digest) {
    let layer = world.blob("layer", &[]).await;
    let manifest = world.blob("manifest", &[("containerd.io/gc.ref.content.l.0", layer.as_str())]).await;
    world.snapshot("base", "", &[]).await;
    world.snapshot("top", "base", &[]).await;
    (manifest, layer)
}

#[tokio::test]
async fn an_image_that_is_named_meanwhile_keeps_all_of_it() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    let marked = world.marked().await;
    assert_eq!(marked.dead.len(), 4);
    world.image("image", &manifest, &[]).await;
    assert_eq!(world.swept(marked).await, ["image", "layer", "manifest"]);
    assert_eq!(world.left().await, ["image", "layer", "manifest"]);
}

#[tokio::test]
async fn a_label_that_is_set_meanwhile_keeps_what_it_names() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    let root = world.blob("root", &[("containerd.io/gc.root", "x")]).await;
    let marked = world.marked().await;
    world.blob_label(&root, "containerd.io/gc.ref.content", manifest.as_str()).await;
    world.blob_label(&root, "containerd.io/gc.ref.snapshot.memory", "top").await;
    assert_eq!(world.swept(marked).await, ["base", "layer", "manifest", "root", "top"]);
}

#[tokio::test]
async fn what_a_lease_is_given_meanwhile_stays() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    let marked = world.marked().await;
    world.lease("lease", &[], &[("content", manifest.as_str()), ("snapshots/memory", "top")]).await;
    assert_eq!(world.swept(marked).await, ["base", "layer", "lease", "manifest", "top"]);
}

#[tokio::test]
async fn a_container_that_is_created_meanwhile_keeps_its_snapshot() {
    let world = World::new();
    dead_things(&world).await;
    let marked = world.marked().await;
    let container = types::container::Container {
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: "top".to_owned(),
        ..container("c")
    };
    world.db.containers(&ns(NS)).create(container).await.unwrap();
    assert_eq!(world.swept(marked).await, ["base", "top"]);
}

#[tokio::test]
async fn what_is_prepared_meanwhile_stays_with_what_it_stands_on() {
    let world = World::new();
    dead_things(&world).await;
    let marked = world.marked().await;
    let snapshots = world.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
    snapshots.prepare("rw", "top", Labels::new()).await.unwrap();
    assert_eq!(world.swept(marked).await, ["base", "rw", "top"]);
    assert_eq!(world.left().await, [""; 0], "nobody has kept it since");
}

#[tokio::test]
async fn what_somebody_was_told_is_there_is_there() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    world.image("old", &manifest, &[("containerd.io/gc.expire", &ago(60))]).await;
    world.lease("lease", &[], &[]).await;
    let leased = scope(NS).with_lease("lease");
    for scope in [scope(NS), leased] {
        let marked = world.marked().await;
        let store = world.db.content(scope.clone());
        let error = put(&*store, "again", b"manifest").await.unwrap_err();
        assert!(error.is_already_exists());
        let snapshots = world.db.snapshotter(scope.clone(), SNAPSHOTTER).unwrap();
        let target = labels(&[("containerd.io/snapshot.ref", "top")]);
        let error = snapshots.prepare("extract", "base", target).await.unwrap_err();
        assert!(error.is_already_exists());
        let error = world.db.images(&scope).create(crate::fakes::image("old", &manifest)).await.unwrap_err();
        assert!(error.is_already_exists());
        assert_eq!(world.swept(marked).await, ["base", "layer", "lease", "manifest", "old", "top"]);
    }
    assert_eq!(world.left().await, ["base", "layer", "lease", "manifest", "top"], "the lease has them now");
}

#[tokio::test]
async fn what_somebody_with_a_lease_has_seen_is_there_until_the_next_collection() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    world.lease("lease", &[], &[]).await;
    let leased = scope(NS).with_lease("lease");
    let marked = world.marked().await;
    world.db.content(leased.clone()).info(&manifest).await.unwrap();
    world.db.snapshotter(leased, SNAPSHOTTER).unwrap().stat("top").await.unwrap();
    assert_eq!(world.swept(marked).await, ["base", "layer", "lease", "manifest", "top"]);
    assert_eq!(world.left().await, ["lease"]);
}

#[tokio::test]
async fn a_commit_that_finds_its_blob_keeps_it() {
    let world = World::new();
    let store = world.db.content(scope(NS));
    let options = WriterOptions { reference: "slow".to_owned(), ..WriterOptions::default() };
    let mut writer = store.writer(options).await.unwrap();
    writer.write(bytes::Bytes::from_static(b"blob")).await.unwrap();
    world.blob("blob", &[]).await;
    let marked = world.marked().await;
    let error = writer.commit(4, None, Labels::new()).await.unwrap_err();
    assert!(error.is_already_exists(), "{error}");
    drop(writer);
    assert_eq!(world.swept(marked).await, ["blob"]);
}

#[tokio::test]
async fn an_ingest_that_is_resumed_meanwhile_goes_on() {
    let world = World::new();
    world.lease("lease", &[], &[]).await;
    let options = || WriterOptions { reference: "slow".to_owned(), ..WriterOptions::default() };
    let leased = world.db.content(scope(NS).with_lease("lease"));
    let mut writer = leased.writer(options()).await.unwrap();
    writer.write(bytes::Bytes::from_static(b"bl")).await.unwrap();
    drop(writer);
    world.db.leases(&ns(NS)).delete("lease").await.unwrap();
    let marked = world.marked().await;
    let store = world.db.content(scope(NS));
    let mut writer = store.writer(options()).await.unwrap();
    assert_eq!(world.swept(marked).await, [""; 0]);
    writer.write(bytes::Bytes::from_static(b"ob")).await.unwrap();
    writer.commit(4, None, Labels::new()).await.unwrap();
    assert_eq!(world.seen().await, ["blob"]);
}

#[tokio::test]
async fn an_ingest_of_a_lease_that_has_ended_goes_and_its_data_with_it() {
    let world = World::new();
    world.lease("lease", &[], &[]).await;
    let options = |name: &str| WriterOptions { reference: name.to_owned(), ..WriterOptions::default() };
    drop(world.db.content(scope(NS).with_lease("lease")).writer(options("leased")).await.unwrap());
    drop(world.db.content(scope(NS)).writer(options("free")).await.unwrap());
    world.db.collect(&|_, _| ()).await.unwrap();
    assert_eq!(world.bench.files().await, (0, 2));
    world.db.leases(&ns(NS)).delete("lease").await.unwrap();
    world.db.collect(&|_, _| ()).await.unwrap();
    assert_eq!(world.bench.files().await, (0, 1), "the other one has a day");
    assert_eq!(world.db.content(scope(NS)).list_statuses(&[]).await.unwrap()[0].reference, "free");
}

#[tokio::test]
async fn what_names_an_image_keeps_itself_when_that_image_comes() {
    let world = World::new();
    let (manifest, layer) = dead_things(&world).await;
    world.blob_label(&manifest, "containerd.io/gc.bref.image", "later").await;
    let marked = world.marked().await;
    world.image("later", &layer, &[]).await;
    assert_eq!(world.swept(marked).await, ["later", "layer", "manifest"]);
}

#[tokio::test]
async fn what_is_let_go_meanwhile_goes_next_time() {
    let world = World::new();
    let (manifest, _) = dead_things(&world).await;
    world.image("image", &manifest, &[]).await;
    let marked = world.marked().await;
    world.db.images(&scope(NS)).delete("image", None).await.unwrap();
    assert_eq!(world.swept(marked).await, ["layer", "manifest"]);
    assert_eq!(world.left().await, [""; 0]);
}

#[tokio::test]
async fn a_sweep_of_a_collection_that_is_over_removes_nothing() {
    let world = World::new();
    dead_things(&world).await;
    let (first, second) = (world.marked().await, world.marked().await);
    let error = first.sweep(&|_, _| ()).await.unwrap_err();
    assert!(error.to_string().contains("over"), "{error}");
    assert_eq!(world.swept(second).await, [""; 0]);
}

#[tokio::test]
async fn a_commit_under_way_is_not_disturbed() {
    let world = World::new();
    let snapshots = world.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
    snapshots.prepare("key", "", Labels::new()).await.unwrap();
    world.bench.crash("after commit", snapshots.commit("name", "key", None, Labels::new())).await;
    // Whoever committed it is just slow; here nobody goes on, until somebody asks.
    world.db.collect(&|_, _| ()).await.unwrap();
    assert_eq!(world.bench.snapshotter.keys().len(), 1);
    assert!(snapshots.remove("key").await.is_err());
    assert_eq!(snapshots.stat("name").await.unwrap().name, "name");
}

/// Streams that only remember.
struct Streams {
    all: Mutex<Vec<Item>>,
}

#[async_trait]
impl Collectible for Streams {
    fn kind(&self) -> &'static str {
        "stream"
    }

    async fn items(&self) -> Vec<Item> {
        self.all.lock().unwrap().clone()
    }

    async fn release(&self, dead: Vec<(Namespace, String)>) {
        let mut all = self.all.lock().unwrap();
        all.retain(|item| !dead.contains(&(item.namespace.clone(), item.id.clone())));
    }
}

#[tokio::test]
async fn collectibles_are_kept_by_leases_labels_and_themselves() {
    let world = World::new();
    let item = |id: &str, active, lease: Option<&str>, pairs: &[(&str, &str)]| Item {
        namespace: ns(NS),
        id: id.to_owned(),
        active,
        lease: lease.map(str::to_owned),
        labels: labels(pairs),
    };
    let streams = Arc::new(Streams {
        all: Mutex::new(vec![
            item("active", true, None, &[]),
            item("leased", false, Some("lease"), &[]),
            item("over", false, Some("gone"), &[]),
            item("named", false, None, &[]),
            item("of-container", false, None, &[("containerd.io/gc.bref.container", "c")]),
            item("of-nobody", false, None, &[("containerd.io/gc.bref.container", "d")]),
        ]),
    });
    world.db.collect_also(streams.clone());
    let left = || -> Vec<String> { streams.all.lock().unwrap().iter().map(|item| item.id.clone()).collect() };
    world.lease("lease", &[], &[]).await;
    world.db.containers(&ns(NS)).create(container("c")).await.unwrap();
    let root = [("containerd.io/gc.root", "x"), ("containerd.io/gc.ref.stream.1", "named")];
    world.blob("root", &root).await;
    world.db.collect(&|_, _| ()).await.unwrap();
    assert_eq!(left(), ["active", "leased", "named", "of-container"]);

    world.db.leases(&ns(NS)).delete("lease").await.unwrap();
    world.db.containers(&ns(NS)).delete("c").await.unwrap();
    let collectibles: Vec<Arc<dyn Collectible>> = vec![streams.clone()];
    let marked = Begun::new(&world.db, &collectibles).await.unwrap().mark().await.unwrap();
    world.db.containers(&ns(NS)).create(container("c")).await.unwrap();
    let (_, unkept) = marked.sweep(&|_, _| ()).await.unwrap();
    assert_eq!(unkept, [[(ns(NS), "leased".to_owned())]], "the container is back");
    let info = types::content::Info { labels: labels(&[]), ..world.info("root").await };
    world.db.content(scope(NS)).update(info, &paths(&["labels"])).await.unwrap();
    world.db.collect(&|_, _| ()).await.unwrap();
    assert_eq!(left(), ["active", "of-container"]);
}
