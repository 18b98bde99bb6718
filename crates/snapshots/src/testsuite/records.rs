//! What is known of snapshots: these cases do not mount.

use std::collections::BTreeMap;
use std::time::SystemTime;

use types::fields::FieldPaths;
use types::filters::Filters;
use types::snapshot::{Info, Kind};

use super::*;

/// c1, c2 on it, an active snapshot and a view on c2, and one of each without parent.
async fn some(on: On<'_>, prefix: &str) -> Vec<(String, Kind, String)> {
    let name = |name: &str| format!("{prefix}-{name}");
    on.prepare(&name("t1"), "").await;
    on.commit(&name("c1"), &name("t1")).await;
    on.prepare(&name("t2"), &name("c1")).await;
    on.commit(&name("c2"), &name("t2")).await;
    on.prepare(&name("a1"), &name("c2")).await;
    on.prepare(&name("a2"), "").await;
    on.view(&name("v1"), &name("c2")).await;
    on.view(&name("v2"), "").await;
    vec![
        (name("v2"), Kind::View, String::new()),
        (name("v1"), Kind::View, name("c2")),
        (name("a2"), Kind::Active, String::new()),
        (name("a1"), Kind::Active, name("c2")),
        (name("c2"), Kind::Committed, name("c1")),
        (name("c1"), Kind::Committed, String::new()),
    ]
}

async fn remove_all(on: On<'_>, some: Vec<(String, Kind, String)>) {
    for (name, _, _) in some {
        on.remove(&[&name]).await;
    }
}

async fn walk(on: On<'_>, filters: &[&str]) -> BTreeMap<String, Info> {
    let mut found = BTreeMap::new();
    let mut each = |info: Info| {
        found.insert(info.name.clone(), info);
        Ok(())
    };
    on.snapshotter.walk(&Filters::parse(filters).unwrap(), &mut each).await.unwrap();
    found
}

pub(super) async fn an_active_snapshot_is_described(on: On<'_>) {
    let since = SystemTime::now();
    assert!(!on.prepare("described", "").await.is_empty());
    let info = on.snapshotter.stat("described").await.unwrap();
    assert_eq!((info.name.as_str(), info.parent.as_str(), info.kind), ("described", "", Kind::Active));
    assert_eq!(info.labels, root_label());
    assert!(info.created_at >= since && info.created_at <= SystemTime::now());
    assert_eq!(info.created_at, info.updated_at);
    on.remove(&["described"]).await;
    assert_eq!(class(on.snapshotter.stat("described").await), Class::NotFound);
}

pub(super) async fn a_committed_snapshot_is_described(on: On<'_>) {
    on.prepare("commit-a", "").await;
    let since = SystemTime::now();
    on.snapshotter.commit("commit-c", "commit-a", None, with_label("new")).await.unwrap();
    let info = on.snapshotter.stat("commit-c").await.unwrap();
    assert_eq!((info.name.as_str(), info.parent.as_str(), info.kind), ("commit-c", "", Kind::Committed));
    assert_eq!(info.labels, with_label("new"), "labels of the active snapshot are not inherited");
    assert!(info.created_at >= since && info.created_at <= SystemTime::now());
    assert_eq!(class(on.snapshotter.stat("commit-a").await), Class::NotFound);
    on.remove(&["commit-c"]).await;
}

pub(super) async fn parents_are_transitive(on: On<'_>) {
    let all = some(on, "parents").await;
    for (name, kind, parent) in &all {
        let info = on.snapshotter.stat(name).await.unwrap();
        assert_eq!((&info.name, info.kind, &info.parent), (name, *kind, parent));
    }
    remove_all(on, all).await;
}

pub(super) async fn a_key_is_used_once(on: On<'_>) {
    on.prepare("once-t", "").await;
    on.commit("once", "once-t").await;
    on.prepare("once-a", "once").await;
    on.view("once-v", "once").await;
    for key in ["once-a", "once-v", "once"] {
        let taken = on.snapshotter.prepare(key, "once", root_label()).await;
        assert_eq!(class(taken), Class::AlreadyExists);
        assert_eq!(class(on.snapshotter.view(key, "once", root_label()).await), Class::AlreadyExists);
    }
    on.remove(&["once-a", "once-v", "once"]).await;
}

pub(super) async fn parents_must_be_committed(on: On<'_>) {
    on.prepare("uncommitted", "").await;
    let prepare = async |parent| class(on.snapshotter.prepare("child", parent, root_label()).await);
    assert_eq!(prepare("uncommitted").await, Class::InvalidArgument);
    assert_eq!(prepare("nothing-at-all").await, Class::NotFound);
    assert_eq!(
        class(on.snapshotter.view("child", "uncommitted", root_label()).await),
        Class::InvalidArgument
    );
    assert_eq!(class(on.snapshotter.stat("child").await), Class::NotFound);
    on.remove(&["uncommitted"]).await;
}

pub(super) async fn mounts_are_answered_again(on: On<'_>) {
    let mounts = on.prepare("mounts-a", "").await;
    assert_eq!(on.snapshotter.mounts("mounts-a").await.unwrap(), mounts);
    on.commit("mounts-c", "mounts-a").await;
    for mounts in [on.view("mounts-v", "mounts-c").await, on.prepare("mounts-v2", "mounts-c").await] {
        assert!(!mounts.is_empty());
    }
    assert_eq!(class(on.snapshotter.mounts("mounts-c").await), Class::FailedPrecondition);
    assert_eq!(class(on.snapshotter.mounts("mounts-a").await), Class::NotFound);
    on.remove(&["mounts-v", "mounts-v2", "mounts-c"]).await;
}

pub(super) async fn labels_are_updated(on: On<'_>) {
    let all = some(on, "labels").await;
    let labels = |pairs: &[(&str, &str)]| {
        let mut labels = root_label();
        labels.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        labels
    };
    let update = async |info: &Info, paths: &[&str]| {
        let paths = FieldPaths(paths.iter().map(|path| (*path).to_owned()).collect());
        on.snapshotter.update(info.clone(), &paths).await
    };
    for (name, kind, parent) in &all {
        let mut info = on.snapshotter.stat(name).await.unwrap();
        let created = info.created_at;
        info.parent = "doesnotexist".to_owned();
        info.labels = labels(&[("l1", "v1"), ("l2", "v2"), ("l3", "v3")]);
        let since = SystemTime::now();
        let updated = update(&info, &[]).await.unwrap();
        assert_eq!((&updated.parent, updated.kind, updated.created_at), (parent, *kind, created));
        assert!(updated.updated_at >= since && updated.labels == info.labels);

        info.labels = [("l1", "updated"), ("l4", "v4")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let updated = update(&info, &["labels.l1", "labels.l2"]).await.unwrap();
        assert_eq!(updated.labels, labels(&[("l1", "updated"), ("l3", "v3")]));

        info.labels = labels(&[("l4", "v4")]);
        assert_eq!(update(&info, &["labels"]).await.unwrap().labels, info.labels);
        assert_eq!(on.snapshotter.stat(name).await.unwrap().labels, info.labels);
        assert_eq!(class(update(&info, &["parent"]).await), Class::InvalidArgument);
    }
    let mut nothing = on.snapshotter.stat(&all[0].0).await.unwrap();
    nothing.name = "nothing-at-all".to_owned();
    assert_eq!(class(update(&nothing, &[]).await), Class::NotFound);
    remove_all(on, all).await;
}

pub(super) async fn names_are_free_after_removal(on: On<'_>) {
    on.prepare("free-t", "").await;
    on.commit("free-c", "free-t").await;
    on.prepare("free", "free-c").await;
    on.remove(&["free"]).await;
    on.view("free", "free-c").await;
    on.remove(&["free"]).await;
    on.prepare("free", "").await;
    on.remove(&["free-c"]).await;
    on.commit("free-c", "free").await;
    on.remove(&["free-c"]).await;
    assert_eq!(class(on.snapshotter.remove("free-c").await), Class::NotFound);
}

pub(super) async fn snapshots_with_children_stay(on: On<'_>) {
    let all = some(on, "children").await;
    for name in ["children-c1", "children-c2"] {
        assert_eq!(class(on.snapshotter.remove(name).await), Class::FailedPrecondition);
    }
    remove_all(on, all).await;
}

pub(super) async fn walking_is_filtered(on: On<'_>) {
    on.prepare("walk-t", "").await;
    on.commit("walk-p", "walk-t").await;
    on.prepare("walk-a", "walk-p").await;
    on.view("walk-v", "walk-p").await;
    on.prepare("walk-np", "").await;
    on.snapshotter.prepare("walk-t2", "", root_label()).await.unwrap();
    on.snapshotter.commit("walk-pl", "walk-t2", None, with_label("walk-1")).await.unwrap();
    on.snapshotter.prepare("walk-al", "walk-pl", with_label("walk-2")).await.unwrap();
    on.snapshotter.view("walk-vl", "walk-pl", with_label("walk-3")).await.unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["name~=^walk-"], &["walk-a", "walk-al", "walk-np", "walk-p", "walk-pl", "walk-v", "walk-vl"]),
        (&["kind==active,name~=^walk-"], &["walk-a", "walk-al", "walk-np"]),
        (&["kind==view,name~=^walk-"], &["walk-v", "walk-vl"]),
        (&["kind==committed,name~=^walk-"], &["walk-p", "walk-pl"]),
        (&["name==walk-p", "name==walk-al"], &["walk-al", "walk-p"]),
        (&["name==walk-al,labels.l"], &["walk-al"]),
        (&["parent==walk-p"], &["walk-a", "walk-v"]),
        (&["parent!=\"\",name~=^walk-"], &["walk-a", "walk-al", "walk-v", "walk-vl"]),
        (&["labels.l~=^walk-"], &["walk-al", "walk-pl", "walk-vl"]),
        (&["labels.l==walk-2", "labels.l==walk-3"], &["walk-al", "walk-vl"]),
        (&["labels.l==nothing"], &[]),
    ];
    for (filters, names) in cases {
        let found = walk(on, filters).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), *names, "{filters:?}");
    }
    for (name, info) in walk(on, &[]).await {
        assert_eq!(on.snapshotter.stat(&name).await.unwrap(), info);
    }
    on.remove(&["walk-a", "walk-v", "walk-np", "walk-al", "walk-vl", "walk-p", "walk-pl"]).await;
}

pub(super) async fn a_snapshot_can_be_looked_at_during_a_walk(on: On<'_>) {
    let all = some(on, "during").await;
    let mut equal = 0;
    // A walk that held a lock which a look needs would never come back from here.
    let runtime = tokio::runtime::Handle::current();
    let mut each = |info: Info| {
        let look = || runtime.block_on(on.snapshotter.stat(&info.name));
        equal += usize::from(tokio::task::block_in_place(look)? == info);
        Ok(())
    };
    on.snapshotter.walk(&Filters::parse(&["name~=^during-"]).unwrap(), &mut each).await.unwrap();
    assert_eq!(equal, all.len());
    remove_all(on, all).await;
}

pub(super) async fn an_error_of_the_caller_ends_the_walk(on: On<'_>) {
    let all = some(on, "ends").await;
    let mut calls = 0;
    let mut each = |_| {
        calls += 1;
        Err(types::Error::out_of_range("enough"))
    };
    assert_eq!(class(on.snapshotter.walk(&Filters::default(), &mut each).await), Class::OutOfRange);
    assert_eq!(calls, 1);
    remove_all(on, all).await;
}

pub(super) async fn a_name_that_is_taken_keeps_the_active_snapshot(on: On<'_>) {
    on.prepare("taken-t", "").await;
    on.commit("taken", "taken-t").await;
    on.prepare("taken-a", "").await;
    let again = on.snapshotter.commit("taken", "taken-a", None, root_label()).await;
    assert_eq!(class(again), Class::AlreadyExists);
    assert_eq!(on.snapshotter.stat("taken-a").await.unwrap().kind, Kind::Active);
    on.remove(&["taken-a", "taken"]).await;
}

pub(super) async fn only_active_snapshots_are_committed(on: On<'_>) {
    let all = some(on, "only").await;
    let commit = async |key| class(on.snapshotter.commit("only-new", key, None, root_label()).await);
    assert_eq!(commit("only-v1").await, Class::FailedPrecondition);
    assert_eq!(commit("only-c1").await, Class::FailedPrecondition);
    assert_eq!(commit("nothing-at-all").await, Class::NotFound);
    assert_eq!(class(on.snapshotter.stat("only-new").await), Class::NotFound);
    remove_all(on, all).await;
}

pub(super) async fn cleaning_up_keeps_what_is_used(on: On<'_>) {
    let all = some(on, "cleanup").await;
    on.snapshotter.cleanup().await.unwrap();
    for (name, kind, _) in &all {
        if *kind != Kind::Committed {
            drop(on.bench.mount(&on.snapshotter.mounts(name).await.unwrap()));
        }
    }
    remove_all(on, all).await;
    on.snapshotter.cleanup().await.unwrap();
}
