//! What a namespace sees of a snapshotter, and what a crash leaves.

use std::sync::Arc;

use ::snapshots::Snapshotter;
use types::filters::Filters;
use types::lease::Resource;
use types::snapshot::Kind;
use types::{Class, Labels};

use crate::Db;
use crate::fakes::{Bench, SNAPSHOTTER, labels, ns, paths, scope};

fn view(db: &Db, namespace: &str) -> Arc<dyn Snapshotter> {
    db.snapshotter(scope(namespace), SNAPSHOTTER).unwrap()
}

fn none() -> Labels {
    Labels::new()
}

async fn layer(snapshots: &dyn Snapshotter, name: &str, parent: &str) {
    let key = format!("{name}-key");
    snapshots.prepare(&key, parent, none()).await.unwrap();
    snapshots.commit(name, &key, None, none()).await.unwrap();
}

async fn names(snapshots: &dyn Snapshotter, filter: &str) -> Vec<String> {
    let mut names = Vec::new();
    let filters = Filters::parse(&[filter]).unwrap();
    snapshots
        .walk(&filters, &mut |info| {
            names.push(info.name);
            Ok(())
        })
        .await
        .unwrap();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_snapshotter() {
    use ::snapshots::overlay::{Options, Overlay};
    use ::snapshots::testsuite;
    let Some(place) = testsuite::Bench::new() else { return };
    let bench = Bench::new();
    let overlay: Arc<dyn Snapshotter> = Overlay::open(place.root(), Options::default()).unwrap();
    let db = Db::open_only(crate::Options {
        snapshotters: [("overlayfs".to_owned(), Arc::clone(&overlay))].into(),
        ..bench.options()
    });
    let db = db.unwrap();
    for namespace in ["a", "b"] {
        let view = db.snapshotter(scope(namespace), "overlayfs").unwrap();
        testsuite::all(&*view, &place, testsuite::Features::default()).await;
    }
    let mut each = |info: types::snapshot::Info| panic!("left behind: {info:?}");
    overlay.walk(&Filters::default(), &mut each).await.unwrap();
}

#[tokio::test]
async fn layers_stand_on_each_other_under_the_clients_names() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    layer(&*a, "base", "").await;
    let mounts = a.prepare("run", "base", labels(&[("k", "v")])).await.unwrap();
    assert_eq!(a.mounts("run").await.unwrap(), mounts);
    assert_eq!(a.usage("run").await.unwrap().size, 2);
    let info = a.stat("run").await.unwrap();
    assert_eq!((info.kind, info.name.as_str(), info.parent.as_str()), (Kind::Active, "run", "base"));
    assert_eq!(info.labels, labels(&[("k", "v")]));
    assert_eq!(a.stat("base").await.unwrap().kind, Kind::Committed);
    a.view("look", "base", none()).await.unwrap();
    assert_eq!(names(&*a, "").await, ["base", "look", "run"]);
    assert_eq!(names(&*a, "kind==view").await, ["look"]);
    assert_eq!(names(&*a, "parent==base,labels.k").await, ["run"]);

    let b = view(&db, "b");
    assert_eq!(b.stat("base").await.unwrap_err().to_string(), "snapshot base does not exist: not found");
    let error = b.prepare("run", "base", none()).await.unwrap_err();
    assert_eq!(error.to_string(), "parent snapshot base does not exist: not found");
    layer(&*b, "base", "").await;
    let keys = bench.snapshotter.keys();
    assert_eq!(keys.len(), 4, "each namespace has its own: {keys:?}");
    assert!(keys.iter().all(|key| key.split('/').count() == 3), "{keys:?}");
}

#[tokio::test]
async fn what_has_children_is_not_removed() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    layer(&*a, "base", "").await;
    layer(&*a, "top", "base").await;
    let error = a.remove("base").await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert_eq!(error.to_string(), "cannot remove snapshot with child: failed precondition");
    a.remove("top").await.unwrap();
    assert_eq!(a.remove("top").await.unwrap_err().to_string(), "snapshot top does not exist: not found");
    a.remove("base").await.unwrap();
    assert!(bench.snapshotter.keys().is_empty(), "removal is at once");
}

#[tokio::test]
async fn keys_and_names_are_taken_once() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    layer(&*a, "base", "").await;
    a.prepare("run", "base", none()).await.unwrap();
    for key in ["run", "base"] {
        let error = a.prepare(key, "", none()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("snapshot {key:?}: already exists"));
    }
    let error = a.commit("base", "run", None, none()).await.unwrap_err();
    assert_eq!(error.to_string(), r#"snapshot "base": already exists"#);
    assert_eq!(a.stat("run").await.unwrap().kind, Kind::Active, "the active one stays");
    let error = a.commit("new", "nothing", None, none()).await.unwrap_err();
    assert_eq!(error.to_string(), "snapshot nothing does not exist: not found");
    let error = a.commit("new", "base", None, none()).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition, "it is committed already");
    assert_eq!(a.stat("base").await.unwrap().parent, "");
    assert_eq!(names(&*a, "").await, ["base", "run"]);
    assert_eq!(bench.snapshotter.keys().len(), 2);
}

#[tokio::test]
async fn a_target_that_is_there_is_told_before_anything_is_prepared() {
    let bench = Bench::new();
    let db = bench.open();
    db.leases(&ns("a")).create(Some("l".to_owned()), none()).await.unwrap();
    let a = db.snapshotter(scope("a").with_lease("l"), SNAPSHOTTER).unwrap();
    layer(&*view(&db, "a"), "chain", "").await;
    let target = labels(&[("containerd.io/snapshot.ref", "chain")]);
    let error = a.prepare("extract-1", "", target).await.unwrap_err();
    assert_eq!(error.to_string(), r#"target snapshot "chain": already exists"#);
    assert_eq!(bench.snapshotter.keys().len(), 1);
    let held = db.leases(&ns("a")).list_resources("l").unwrap();
    assert_eq!(held, [Resource { kind: "snapshots/memory".into(), id: "chain".into() }]);
}

#[tokio::test]
async fn a_layer_that_the_snapshotter_made_elsewhere_is_taken_over() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    let target = labels(&[("containerd.io/snapshot.ref", "remote"), ("k", "v")]);
    let error = a.prepare("extract-1", "", target).await.unwrap_err();
    assert_eq!(error.to_string(), r#"target snapshot "remote" from snapshotter: already exists"#);
    let info = a.stat("remote").await.unwrap();
    assert_eq!((info.kind, info.labels.get("k").map(String::as_str)), (Kind::Committed, Some("v")));
    assert_eq!(names(&*a, "").await, ["remote"]);
    drop((a, db));
    let db = bench.recover().await;
    assert_eq!(bench.snapshotter.keys(), ["elsewhere"], "names that are not ours are not swept");
    view(&db, "a").remove("remote").await.unwrap();
    assert!(bench.snapshotter.keys().is_empty());
}

#[tokio::test]
async fn only_labels_for_snapshotters_reach_the_snapshotter() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    let all = labels(&[
        ("containerd.io/snapshot/x", "1"),
        ("containerd.io/snapshot.ref", "chain"),
        ("containerd.io/gc.root", "now"),
        ("mine", "2"),
    ]);
    let inner = |_: ()| bench.snapshotter.all.lock().unwrap().values().next().unwrap().labels.clone();
    a.prepare("k", "", all.clone()).await.unwrap();
    let passed = labels(&[("containerd.io/snapshot/x", "1"), ("containerd.io/snapshot.ref", "chain")]);
    assert_eq!(inner(()), passed);
    let mut info = a.stat("k").await.unwrap();
    assert_eq!(info.labels, all);
    info.labels = labels(&[("containerd.io/snapshot/x", "3"), ("mine", "4")]);
    let changed = a.update(info.clone(), &paths(&["labels"])).await.unwrap();
    assert_eq!(changed.labels, info.labels);
    assert_eq!(inner(()), labels(&[("containerd.io/snapshot/x", "3")]));
    assert!(changed.updated_at > info.updated_at && changed.created_at == info.created_at);
    let error = a.update(info, &paths(&["parent"])).await.unwrap_err();
    assert_eq!(error.to_string(), r#"cannot update "parent" field on snapshot "k": invalid argument"#);
    a.commit("c", "k", None, labels(&[("containerd.io/snapshot/y", "5"), ("other", "6")])).await.unwrap();
    assert_eq!(inner(()), labels(&[("containerd.io/snapshot/y", "5")]));
}

#[tokio::test]
async fn a_layer_prepared_on_nothing_is_committed_on_its_parent() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    a.prepare("top-key", "", none()).await.unwrap();
    let error = a.commit("top", "top-key", Some("base"), none()).await.unwrap_err();
    assert_eq!(error.to_string(), "parent snapshot base does not exist: not found");
    layer(&*a, "base", "").await;
    a.commit("top", "top-key", Some("base"), none()).await.unwrap();
    assert_eq!(a.stat("top").await.unwrap().parent, "base");
    assert_eq!(a.remove("base").await.unwrap_err().class(), Class::FailedPrecondition);
    let parents: Vec<_> =
        bench.snapshotter.all.lock().unwrap().values().map(|info| info.parent.clone()).collect();
    assert_eq!(parents.iter().filter(|parent| !parent.is_empty()).count(), 1, "the backend rebased it");
    a.remove("top").await.unwrap();
    a.remove("base").await.unwrap();
}

#[tokio::test]
async fn a_lease_holds_what_is_prepared_and_then_what_it_became() {
    let bench = Bench::new();
    let db = bench.open();
    let leases = db.leases(&ns("a"));
    leases.create(Some("l".to_owned()), none()).await.unwrap();
    let a = db.snapshotter(scope("a").with_lease("l"), SNAPSHOTTER).unwrap();
    let held = || leases.list_resources("l").unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>();
    a.prepare("k", "", none()).await.unwrap();
    assert_eq!(held(), ["k"]);
    a.commit("c", "k", None, none()).await.unwrap();
    assert_eq!(held(), ["c"]);
    a.remove("c").await.unwrap();
    assert!(held().is_empty());
    let nobody = db.snapshotter(scope("a").with_lease("nobody"), SNAPSHOTTER).unwrap();
    let error = nobody.prepare("k", "", none()).await.unwrap_err();
    assert_eq!(error.to_string(), "lease does not exist: not found");
    assert!(bench.snapshotter.keys().is_empty(), "what could not be recorded was taken back");
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_prepared_leaves_nothing() {
    for place in ["before prepare", "after prepare"] {
        let bench = Bench::new();
        let db = bench.open();
        let a = view(&db, "a");
        layer(&*a, "base", "").await;
        bench.crash(place, a.prepare("k", "base", none())).await;
        drop((a, db));
        let db = bench.recover().await;
        assert_eq!(bench.snapshotter.keys().len(), 1, "{place}");
        let a = view(&db, "a");
        assert_eq!(names(&*a, "").await, ["base"]);
        a.prepare("k", "base", none()).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_committed_loses_nothing() {
    for (place, found) in [("before commit", "k"), ("after commit", "c")] {
        for rebased in [false, true] {
            let bench = Bench::new();
            let db = bench.open();
            db.leases(&ns("a")).create(Some("l".to_owned()), none()).await.unwrap();
            let a = db.snapshotter(scope("a").with_lease("l"), SNAPSHOTTER).unwrap();
            layer(&*a, "base", "").await;
            a.prepare("k", if rebased { "" } else { "base" }, none()).await.unwrap();
            let parent = rebased.then_some("base");
            bench.crash(place, a.commit("c", "k", parent, labels(&[("x", "y")]))).await;
            drop((a, db));
            let db = bench.recover().await;
            let a = db.snapshotter(scope("a").with_lease("l"), SNAPSHOTTER).unwrap();
            assert_eq!(
                names(&*a, "").await,
                {
                    let mut all = ["base", found];
                    all.sort_unstable();
                    all
                },
                "{place}"
            );
            assert_eq!(bench.snapshotter.keys().len(), 2);
            let held = db.leases(&ns("a")).list_resources("l").unwrap();
            assert!(held.iter().any(|resource| resource.id == found) && held.len() == 2, "{held:?}");
            if found == "k" {
                a.commit("c", "k", parent, labels(&[("x", "y")])).await.unwrap();
            }
            let info = a.stat("c").await.unwrap();
            assert_eq!((info.parent.as_str(), info.labels), ("base", labels(&[("x", "y")])));
            a.remove("c").await.unwrap();
            a.remove("base").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_is_settled_by_the_next_who_asks() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    for (place, name) in [("before commit", "c1"), ("after commit", "c2")] {
        a.prepare("k", "", none()).await.unwrap();
        bench.crash(place, a.commit(name, "k", None, none())).await;
        let again = a.commit(name, "k", None, none()).await;
        match place {
            "before commit" => again.unwrap(),
            _ => assert!(again.unwrap_err().is_already_exists()),
        }
        assert!(a.stat("k").await.unwrap_err().is_not_found());
        assert_eq!(a.stat(name).await.unwrap().kind, Kind::Committed);
    }
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_removed_leaves_nothing() {
    for place in ["before remove", "after remove"] {
        let bench = Bench::new();
        let db = bench.open();
        let a = view(&db, "a");
        layer(&*a, "base", "").await;
        layer(&*a, "top", "base").await;
        bench.crash(place, a.remove("top")).await;
        drop((a, db));
        let db = bench.recover().await;
        assert_eq!(bench.snapshotter.keys().len(), 1, "{place}");
        view(&db, "a").remove("base").await.unwrap();
        assert!(bench.snapshotter.keys().is_empty());
    }
}

#[tokio::test]
async fn whole_chains_of_orphans_are_swept_and_foreign_names_left() {
    let bench = Bench::new();
    drop(bench.open());
    // Numbers of the first generation, which is over, and one of upstream's.
    let ours = |number: u64, name: &str| format!("a/{}/{name}", (1_u64 << 40) | number);
    let [base, middle, top] = [ours(7, "base"), ours(8, "middle"), ours(9, "top")];
    for (key, parent) in
        [(base.as_str(), ""), (&middle, &base), (&top, &middle), ("theirs", ""), ("a/7/upstreams", "")]
    {
        bench.snapshotter.prepare("k", parent, none()).await.unwrap();
        bench.snapshotter.commit(key, "k", None, none()).await.unwrap();
    }
    let _db = bench.recover().await;
    assert_eq!(bench.snapshotter.keys(), ["a/7/upstreams", "theirs"]);
}

#[tokio::test]
async fn walking_goes_through_more_than_one_batch() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    for i in 0..205 {
        a.prepare(&format!("k{i:03}"), "", none()).await.unwrap();
    }
    let all = names(&*a, "").await;
    assert_eq!(all.len(), 205);
    assert!(all.is_sorted());
    assert!(names(&*view(&db, "b"), "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn preparing_on_what_is_being_removed_ends_one_way_or_the_other() {
    let bench = Bench::new();
    let db = bench.open();
    for _ in 0..50 {
        let (a, b) = (view(&db, "a"), view(&db, "a"));
        layer(&*a, "base", "").await;
        let prepare = tokio::spawn(async move { b.prepare("k", "base", none()).await });
        let removed = a.remove("base").await;
        let prepared = prepare.await.unwrap();
        assert!(removed.is_ok() != prepared.is_ok(), "{removed:?} {prepared:?}");
        if prepared.is_ok() {
            a.remove("k").await.unwrap();
            a.remove("base").await.unwrap();
        }
        a.cleanup().await.unwrap();
        assert!(bench.snapshotter.keys().is_empty(), "{:?}", bench.snapshotter.keys());
    }
}

fn lose(bench: &Bench, name: &str) -> String {
    let all = bench.snapshotter.all.lock().unwrap();
    let key = all.keys().find(|key| key.ends_with(&format!("/{name}"))).cloned().unwrap();
    bench.snapshotter.lost.lock().unwrap().insert(key.clone());
    key
}

#[tokio::test]
async fn a_layer_whose_files_are_gone_counts_as_absent_and_is_committed_again_below_what_stands_on_it() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    layer(&*a, "base", "").await;
    a.prepare("run", "base", none()).await.unwrap();
    let target = labels(&[(types::labels::SNAPSHOT_REF, "base")]);
    assert!(a.prepare("k", "", target.clone()).await.unwrap_err().is_already_exists());
    let backend_key = lose(&bench, "base");
    let error = a.stat("base").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("are gone: unpack its image again"), "{error}");
    a.stat("run").await.unwrap();

    a.prepare("k", "", target).await.unwrap();
    a.commit("base", "k", None, labels(&[("new", "1")])).await.unwrap();
    let info = a.stat("base").await.unwrap();
    assert_eq!((info.kind, info.labels), (Kind::Committed, labels(&[("new", "1")])));
    assert!(bench.snapshotter.keys().contains(&backend_key), "the name that children know");
    assert_eq!(names(&*a, "").await, ["base", "run"]);
    assert!(a.remove("base").await.is_err(), "the container still stands on it");
    a.remove("run").await.unwrap();
    a.remove("base").await.unwrap();
    assert!(bench.snapshotter.keys().is_empty());
}

#[tokio::test]
async fn a_row_of_which_the_snapshotter_knows_nothing_is_committed_again() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    layer(&*a, "base", "").await;
    bench.snapshotter.all.lock().unwrap().clear();
    assert!(a.stat("base").await.unwrap_err().is_not_found());
    layer(&*a, "base", "").await;
    assert_eq!(a.stat("base").await.unwrap().kind, Kind::Committed);
    assert_eq!(bench.snapshotter.keys().len(), 1);
}

#[tokio::test]
async fn a_crash_while_a_lost_layer_is_committed_again_leaves_it_lost_or_whole() {
    for (at, whole) in [("before commit", false), ("after commit", true)] {
        let bench = Bench::new();
        let db = bench.open();
        let a = view(&db, "a");
        layer(&*a, "base", "").await;
        layer(&*a, "top", "base").await;
        lose(&bench, "base");
        a.prepare("k", "", none()).await.unwrap();
        bench.crash(at, a.commit("base", "k", None, none())).await;
        drop((a, db));
        let db = bench.recover().await;
        let a = view(&db, "a");
        assert_eq!(a.stat("base").await.is_ok(), whole, "{at}");
        if !whole {
            a.commit("base", "k", None, none()).await.unwrap();
        }
        assert!(a.stat("k").await.unwrap_err().is_not_found(), "{at}");
        assert_eq!(names(&*a, "").await, ["base", "top"], "{at}");
        a.remove("top").await.unwrap();
        a.remove("base").await.unwrap();
        assert!(bench.snapshotter.keys().is_empty(), "{at}");
    }
}
