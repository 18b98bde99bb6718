//! What is in a snapshot: these cases mount.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use types::snapshot::{Kind, Usage};

use super::tree::{Op, apply, assert_equal};
use super::*;

pub(super) async fn the_life_of_an_image(on: On<'_>) {
    let first = [
        Op::File("foo", "foo\n", 0o777),
        Op::Dir("a", 0o755),
        Op::Dir("a/b", 0o755),
        Op::Dir("a/b/c", 0o755),
    ];
    let second = [Op::File("bar", "bar\n", 0o777), Op::File("foo", "bar\n", 0o777), Op::Remove("a/b")];
    on.layer("life-1", "", &first).await;
    let info = on.snapshotter.stat("life-1").await.unwrap();
    assert_eq!((info.kind, info.parent.as_str()), (Kind::Committed, ""));
    assert_eq!(class(on.snapshotter.stat("life-1-active").await), Class::NotFound);

    let mounts = on.prepare("life-2-active", "life-1").await;
    let flat = on.bench.empty();
    apply(&flat, &first);
    {
        let mounted = on.bench.mount(&mounts);
        assert_equal(&flat, mounted.path());
        apply(mounted.path(), &second);
    }
    let info = on.snapshotter.stat("life-2-active").await.unwrap();
    assert_eq!((info.kind, info.parent.as_str()), (Kind::Active, "life-1"));
    on.commit("life-2", "life-2-active").await;

    apply(&flat, &second);
    let mounts = on.view("life-view", "life-2").await;
    assert_equal(&flat, on.bench.mount(&mounts).path());
    let error = on.snapshotter.remove("life-1").await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(error.to_string().contains("remove"), "{error}");
    on.remove(&["life-view", "life-2", "life-1"]).await;
}

pub(super) async fn files_are_replaced(on: On<'_>) {
    let first = [
        Op::Dir("etc", 0o700),
        Op::File("etc/hosts", "mydomain 10.0.0.1", 0o644),
        Op::File("etc/profile", "PATH=/usr/bin", 0o644),
    ];
    let second = [
        Op::File("etc/hosts", "mydomain 10.0.0.2", 0o644),
        Op::File("etc/profile", "PATH=/usr/bin", 0o666),
        Op::Dir("root", 0o700),
        Op::File("root/.bashrc", "PATH=/usr/sbin:/usr/bin", 0o644),
    ];
    for i in 0..3 {
        on.stack(&format!("replaced-{i}"), &[&first, &second]).await;
    }
}

pub(super) async fn a_directory_is_replaced_by_an_opaque_one(on: On<'_>) {
    on.stack(
        "opaque",
        &[
            &[Op::Dir("lib", 0o700), Op::File("lib/hidden", "", 0o644)],
            &[Op::Remove("lib"), Op::Dir("lib", 0o700), Op::File("lib/not-hidden", "", 0o644)],
            &[Op::File("lib/newfile", "", 0o644)],
        ],
    )
    .await;
}

pub(super) async fn owners_change(on: On<'_>) {
    on.stack(
        "owners",
        &[
            &[
                Op::Dir("opt", 0o700),
                Op::Dir("opt/a", 0o700),
                Op::Dir("opt/a/b", 0o700),
                Op::File("opt/a/b/file.txt", "hello", 0o644),
            ],
            &[
                Op::Chown("opt", 1),
                Op::Chown("opt/a", 1),
                Op::Chown("opt/a/b", 1),
                Op::Chown("opt/a/b/file.txt", 1),
            ],
        ],
    )
    .await;
}

pub(super) async fn directories_keep_their_attributes(on: On<'_>) {
    on.stack(
        "attributes",
        &[
            &[
                Op::Dir("dir1", 0o700),
                Op::Dir("dir2", 0o700),
                Op::Dir("dir3", 0o700),
                Op::Dir("dir4", 0o700),
                Op::File("dir4/f1", "...", 0o644),
                Op::Dir("dir5", 0o700),
                Op::File("dir5/f1", "...", 0o644),
                Op::Chown("dir1", 1),
                Op::Chown("dir2", 1),
                Op::Chown("dir3", 1),
                Op::Chown("dir5", 1),
                Op::Chown("dir5/f1", 1),
            ],
            &[Op::Chown("dir2", 0), Op::Remove("dir3"), Op::Chown("dir4", 1), Op::Chown("dir4/f1", 1)],
            &[
                Op::Dir("dir3", 0o700),
                Op::Chown("dir3", 1),
                Op::Remove("dir5"),
                Op::Dir("dir5", 0o700),
                Op::Chown("dir5", 1),
            ],
        ],
    )
    .await;
}

pub(super) async fn deleted_files_stay_deleted(on: On<'_>) {
    let first = [Op::File("foo", "foo\n", 0o777), Op::File("foobar", "foobar\n", 0o777)];
    on.stack("deleted", &[&first, &[Op::Remove("foobar")], &[]]).await;
}

pub(super) async fn files_move_between_layers(on: On<'_>) {
    on.stack(
        "moved",
        &[
            &[
                Op::Dir("dir1", 0o700),
                Op::File("dir1/f1", "Hello", 0o644),
                Op::Dir("dir2", 0o700),
                Op::File("dir2/f2", "...", 0o644),
            ],
            &[
                Op::Dir("dir3", 0o700),
                Op::File("dir3/f1", "Hello", 0o644),
                Op::Remove("dir1"),
                Op::Link("dir2/f2", "dir3/f2"),
                Op::Remove("dir2/f2"),
            ],
        ],
    )
    .await;
}

pub(super) async fn files_and_directories_are_renamed(on: On<'_>) {
    let first = [
        Op::Dir("dir1", 0o700),
        Op::Dir("somefiles", 0o700),
        Op::File("somefiles/f1", "was here first!", 0o644),
        Op::File("somefiles/f2", "nothing interesting", 0o644),
    ];
    let mut second = vec![
        Op::File("somefiles/f1-overwrite", "new content 1", 0o644),
        Op::Rename("somefiles/f1-overwrite", "somefiles/f1"),
        Op::Rename("somefiles/f2", "somefiles/f3"),
    ];
    if on.features.rename_lower_directories {
        second.push(Op::Rename("dir1", "dir2"));
    }
    on.stack("renamed", &[&first, &second]).await;
}

pub(super) async fn a_view_cannot_be_written(on: On<'_>) {
    on.layer("read-only", "", &[Op::File("file", "x", 0o644)]).await;
    for (key, parent) in [("read-only-view", "read-only"), ("read-only-empty", "")] {
        let mounts = on.view(key, parent).await;
        let mounted = on.bench.mount(&mounts);
        let error = std::fs::write(mounted.path().join("new"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    on.remove(&["read-only-empty", "read-only-view", "read-only"]).await;
}

pub(super) async fn the_root_is_open_to_all(on: On<'_>) {
    let mounts = on.prepare("root-mode", "").await;
    assert_eq!(std::fs::metadata(on.bench.mount(&mounts).path()).unwrap().mode() & 0o7777, 0o755);
    on.remove(&["root-mode"]).await;
}

pub(super) async fn the_root_takes_after_the_layer_below(on: On<'_>) {
    let mounts = on.prepare("like-1-active", "").await;
    {
        let mounted = on.bench.mount(&mounts);
        std::fs::set_permissions(mounted.path(), std::fs::Permissions::from_mode(0o1711)).unwrap();
        std::os::unix::fs::chown(mounted.path(), Some(5), Some(6)).unwrap();
    }
    on.commit("like-1", "like-1-active").await;
    let mounts = on.prepare("like-2", "like-1").await;
    let root = std::fs::metadata(on.bench.mount(&mounts).path()).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o1711, 5, 6));
    on.remove(&["like-2", "like-1"]).await;
}

pub(super) async fn usage_is_measured_and_recorded(on: On<'_>) {
    let mounts = on.prepare("usage-active", "").await;
    let empty = on.snapshotter.usage("usage-active").await.unwrap();
    {
        let mounted = on.bench.mount(&mounts);
        apply(mounted.path(), &[Op::File("file", &"x".repeat(100_000), 0o644), Op::Link("file", "again")]);
    }
    let full = on.snapshotter.usage("usage-active").await.unwrap();
    assert_eq!(full.inodes, empty.inodes + 1, "two names of one file count once");
    assert!((100_000..200_000).contains(&(full.size - empty.size)), "{empty:?} {full:?}");
    on.commit("usage", "usage-active").await;
    assert_eq!(on.snapshotter.usage("usage").await.unwrap(), full);

    on.view("usage-view", "usage").await;
    assert_eq!(on.snapshotter.usage("usage-view").await.unwrap(), Usage::default());
    assert_eq!(class(on.snapshotter.usage("usage-nothing").await), Class::NotFound);
    on.remove(&["usage-view", "usage"]).await;
}

pub(super) async fn a_layer_is_rebased(on: On<'_>) {
    if !on.snapshotter.can_rebase() {
        return;
    }
    let (first, second) = ([Op::File("one", "1", 0o644)], [Op::File("two", "2", 0o644)]);
    let mounts = on.prepare("rebase-active", "").await;
    apply(on.bench.mount(&mounts).path(), &second);
    let commit =
        async |parent| on.snapshotter.commit("rebase-2", "rebase-active", Some(parent), root_label()).await;
    assert_eq!(class(commit("rebase-1").await), Class::NotFound);
    on.layer("rebase-1", "", &first).await;
    commit("rebase-1").await.unwrap();
    assert_eq!(on.snapshotter.stat("rebase-2").await.unwrap().parent, "rebase-1");
    assert_eq!(class(on.snapshotter.remove("rebase-1").await), Class::FailedPrecondition);

    let flat = on.bench.empty();
    apply(&flat, &first);
    apply(&flat, &second);
    let mounts = on.prepare("rebase-3", "rebase-2").await;
    assert_equal(&flat, on.bench.mount(&mounts).path());
    let again = on.snapshotter.commit("rebase-4", "rebase-3", Some("rebase-1"), root_label()).await;
    assert_eq!(class(again), Class::InvalidArgument);
    on.remove(&["rebase-3", "rebase-2", "rebase-1"]).await;
}

pub(super) async fn a_hundred_and_twenty_eight_layers_are_mounted(on: On<'_>) {
    let flat = on.bench.empty();
    let names: Vec<String> = (0..128).map(|i| format!("deep-{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let (content, same, only) =
            (format!("{i} WAS HERE!\n"), format!("addhere/file-{i}"), format!("onlyme/file-{i}"));
        let mut ops = vec![Op::File("overwriteme", &content, 0o777)];
        if i == 0 {
            ops.extend([Op::File("bottom", "way at the bottom\n", 0o777), Op::Dir("addhere", 0o755)]);
        } else {
            ops.push(Op::Remove("onlyme"));
        }
        ops.extend([
            Op::File(&same, "same\n", 0o755),
            Op::Dir("onlyme", 0o755),
            Op::File(&only, "only me!\n", 0o777),
        ]);
        let parent = if i == 0 { "" } else { names[i - 1].as_str() };
        on.layer(name, parent, &ops).await;
        apply(&flat, &ops);
    }
    let mounts = on.view("deep-view", "deep-127").await;
    assert_equal(&flat, on.bench.mount(&mounts).path());
    let mounts = on.prepare("deep-active", "deep-127").await;
    assert_equal(&flat, on.bench.mount(&mounts).path());
    on.remove(&["deep-view", "deep-active"]).await;
    for name in names.iter().rev() {
        on.remove(&[name]).await;
    }
}
