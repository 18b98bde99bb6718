//! A crash at each step of a collection: after the next start and the next collection nothing is left of what was dead,
//! and everything is there that was in use.

use types::Labels;

use super::{NS, World};
use crate::fakes::{SNAPSHOTTER, ns, put, scope};

#[tokio::test]
async fn a_crash_at_any_step_of_a_collection_leaves_nothing_dead_and_loses_nothing() {
    let steps =
        ["before delete", "after delete", "before abort", "after abort", "before remove", "after remove"];
    for step in steps {
        let mut world = World::new();
        let layer = world.blob("layer", &[]).await;
        let kept = world.blob("kept", &[("containerd.io/gc.ref.content.l.0", layer.as_str())]).await;
        world.image("image", &kept, &[]).await;
        world.blob("dead", &[]).await;
        world.snapshot("base", "", &[]).await;
        world.snapshot("top", "base", &[]).await;
        world.lease("lease", &[], &[]).await;
        let leased = world.db.content(scope(NS).with_lease("lease"));
        let options = ::content::WriterOptions { reference: "r".to_owned(), ..Default::default() };
        drop(leased.writer(options).await.unwrap());
        world.db.leases(&ns(NS)).delete("lease").await.unwrap();

        world.bench.crash(step, world.db.collect(&|_, _| ())).await;
        drop(leased);
        world = world.restarted().await;
        assert_eq!(world.left().await, ["image", "kept", "layer"], "{step}");
        assert_eq!(world.bench.files().await, (2, 0), "{step}");
    }
}

#[tokio::test]
async fn a_crash_between_the_rows_and_the_stores_leaves_nothing() {
    let mut world = World::new();
    world.blob("dead", &[]).await;
    world.snapshot("base", "", &[]).await;
    let marked = world.marked().await;
    marked.sweep(&|_, _| ()).await.unwrap();
    assert_eq!((world.bench.files().await, world.bench.snapshotter.keys().len()), ((1, 0), 1));
    world = world.restarted().await;
    assert_eq!((world.bench.files().await, world.bench.snapshotter.keys().len()), ((0, 0), 0));
}

#[tokio::test]
async fn a_blob_that_comes_back_before_it_is_buried_stays() {
    let world = World::new();
    world.blob("phoenix", &[]).await;
    let marked = world.marked().await;
    marked.sweep(&|_, _| ()).await.unwrap();
    // Its file is still there, and a note that it is dead.
    let other = world.db.content(scope("b"));
    let digest = put(&*other, "r", b"phoenix").await.unwrap();
    world.db.bury_all().await;
    assert_eq!(&other.reader(&digest).await.unwrap().read_at(0, 100).await.unwrap()[..], b"phoenix");
    other.delete(&digest).await.unwrap();
    world.db.bury_all().await;
    assert_eq!(world.bench.files().await, (0, 0));
}

#[tokio::test]
async fn a_snapshotter_that_hangs_keeps_neither_clients_nor_collections() {
    let world = World::new();
    world.snapshot("dead", "", &[]).await;
    world.blob("dead blob", &[]).await;
    let marked = world.marked().await;
    marked.sweep(&|_, _| ()).await.unwrap();
    let db = world.db.clone();
    world.bench.crash("before remove", db.bury_snapshots(SNAPSHOTTER)).await;
    // As if it hung: another removal is under way and does not come back.
    let _digging = world.db.inner.graves.digging(SNAPSHOTTER).await;
    assert_eq!(world.left_rows().await, [""; 0]);
    let snapshots = world.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
    snapshots.prepare("new", "", Labels::new()).await.unwrap();
    snapshots.remove("new").await.unwrap();
}
