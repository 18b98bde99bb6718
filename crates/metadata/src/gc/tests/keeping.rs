//! Which labels, leases and records keep what.

use std::time::{Duration, SystemTime};

use types::Labels;

use super::{NS, World, ago, hence};
use crate::fakes::{SNAPSHOTTER, labels, ns, scope};
use crate::gc::Collected;

#[tokio::test]
async fn an_image_keeps_its_target_and_what_labels_say_and_the_rest_goes() {
    let world = World::new();
    let layer = world.blob("layer", &[]).await;
    let config = world.blob("config", &[("containerd.io/gc.ref.snapshot.memory", "top")]).await;
    let manifest = world
        .blob(
            "manifest",
            &[
                ("containerd.io/gc.ref.content.config", config.as_str()),
                ("containerd.io/gc.ref.content.l.0", layer.as_str()),
            ],
        )
        .await;
    world.image("image", &manifest, &[]).await;
    world.blob("loose", &[]).await;
    world.snapshot("base", "", &[]).await;
    world.snapshot("top", "base", &[]).await;
    world.snapshot("other", "base", &[]).await;
    assert_eq!(world.left().await, ["base", "config", "image", "layer", "manifest", "top"]);
    world.db.images(&scope(NS)).delete("image", None).await.unwrap();
    assert_eq!(world.left().await, [""; 0]);
    world.db.namespaces().delete(&ns(NS)).await.unwrap();
}

#[tokio::test]
async fn a_container_keeps_its_snapshot_and_what_its_labels_say() {
    let world = World::new();
    let blob = world.blob("blob", &[]).await;
    world.snapshot("base", "", &[]).await;
    let snapshots = world.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
    snapshots.prepare("rw", "base", Labels::new()).await.unwrap();
    snapshots.prepare("forgotten", "base", Labels::new()).await.unwrap();
    let container = types::container::Container {
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: "rw".to_owned(),
        labels: labels(&[("containerd.io/gc.ref.content/x", blob.as_str())]),
        ..crate::fakes::container("c")
    };
    world.db.containers(&ns(NS)).create(container).await.unwrap();
    assert_eq!(world.left().await, ["base", "blob", "rw"]);
    world.db.containers(&ns(NS)).delete("c").await.unwrap();
    assert_eq!(world.left().await, [""; 0]);
}

#[tokio::test]
async fn what_a_lease_names_stays_as_long_as_the_lease() {
    let world = World::new();
    let child = world.blob("child", &[]).await;
    let parent = world.blob("parent", &[("containerd.io/gc.ref.content", child.as_str())]).await;
    let target = world.blob("target", &[]).await;
    world.image("expired", &target, &[("containerd.io/gc.expire", &ago(60))]).await;
    world.snapshot("base", "", &[]).await;
    world.snapshot("top", "base", &[]).await;
    let holds = [("content", parent.as_str()), ("images", "expired"), ("snapshots/memory", "top")];
    world.lease("lease", &[("containerd.io/gc.expire", &hence(600))], &holds).await;
    world.lease("over", &[("containerd.io/gc.expire", &ago(1))], &[]).await;
    world.lease("wrong", &[("containerd.io/gc.expire", "tomorrow")], &[]).await;
    let all = ["base", "child", "expired", "lease", "parent", "target", "top", "wrong"];
    assert_eq!(world.left().await, all);
    world.db.leases(&ns(NS)).delete("lease").await.unwrap();
    assert_eq!(world.left().await, ["wrong"]);
}

#[tokio::test]
async fn a_flat_lease_keeps_what_it_names_and_no_more() {
    let world = World::new();
    let child = world.blob("child", &[]).await;
    let parent = world.blob("parent", &[("containerd.io/gc.ref.content", child.as_str())]).await;
    let target = world.blob("target", &[("containerd.io/gc.ref.content", child.as_str())]).await;
    world.image("expired", &target, &[("containerd.io/gc.expire", &ago(60))]).await;
    world.snapshot("base", "", &[("containerd.io/gc.ref.content", child.as_str())]).await;
    world.snapshot("top", "base", &[]).await;
    let holds = [("content", parent.as_str()), ("images", "expired"), ("snapshots/memory", "top")];
    world.lease("flat", &[("containerd.io/gc.flat", "x")], &holds).await;
    assert_eq!(world.left().await, ["base", "expired", "flat", "parent", "target", "top"]);
}

#[tokio::test]
async fn roots_back_references_and_conditions_keep() {
    let world = World::new();
    let root = world.blob("root", &[("containerd.io/gc.root", "yes")]).await;
    world.image("image", &root, &[("containerd.io/gc.cond.snapshot.memory", "usedat<1h|recent")]).await;
    for (name, from) in [
        ("of-image", ("containerd.io/gc.bref.image", "image")),
        ("of-blob", ("containerd.io/gc.bref.content.1", root.as_str())),
        ("of-snapshot", ("containerd.io/gc.bref.snapshot.memory/x", "rooted")),
        ("of-nobody", ("containerd.io/gc.bref.image", "nobody")),
        ("of-container", ("containerd.io/gc.bref.container", "c")),
    ] {
        world.blob(name, &[from]).await;
    }
    world.snapshot("rooted", "", &[("containerd.io/gc.root", "yes")]).await;
    world.snapshot("recent", "", &[("containerd.io/gc.cond.value-usedat", &ago(60))]).await;
    world.snapshot("old", "", &[("containerd.io/gc.cond.value-usedat", &ago(7200))]).await;
    world.db.containers(&ns(NS)).create(crate::fakes::container("c")).await.unwrap();
    let kept = ["image", "of-blob", "of-container", "of-image", "of-snapshot", "recent", "root", "rooted"];
    assert_eq!(world.left().await, kept);
}

#[tokio::test]
async fn an_expired_image_goes_and_subscribers_are_told() {
    let world = World::new();
    let target = world.blob("target", &[]).await;
    world.image("expired", &target, &[("containerd.io/gc.expire", &ago(60))]).await;
    world.image("later", &target, &[("containerd.io/gc.expire", &hence(60))]).await;
    world.image("never", &target, &[("containerd.io/gc.expire", "never")]).await;
    world.snapshot("gone", "", &[]).await;
    let told = std::sync::Mutex::new(Vec::new());
    let statistics = world
        .db
        .collect(&|namespace, what| told.lock().unwrap().push((namespace.clone(), what)))
        .await
        .unwrap();
    let mut told = told.into_inner().unwrap();
    told.sort_by_key(|(_, what)| matches!(what, Collected::Snapshot { .. }));
    let snapshot = Collected::Snapshot { snapshotter: SNAPSHOTTER.to_owned(), key: "gone".to_owned() };
    assert_eq!(told, [(ns(NS), Collected::Image { name: "expired".to_owned() }), (ns(NS), snapshot)]);
    assert_eq!((statistics.rows, statistics.removed), (5, 2));
    let next = statistics.next_expiry.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(next > Duration::from_secs(50) && next < Duration::from_secs(61), "{next:?}");
    assert_eq!(world.left().await, ["later", "never", "target"]);
}
