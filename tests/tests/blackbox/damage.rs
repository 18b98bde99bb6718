//! What a power loss or somebody's `rm` takes: found by `ctr content check`, mended by `--repair`, and healed by the next
//! import on the way. Nothing that is whole is touched.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries::beyond_upstream;
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, Ledger};

const NAME: &str = "docker.io/library/damage:1";

fn image() -> Image {
    let files =
        (0..20).map(|number| Entry::file(format!("data/{number}"), format!("contents of {number}\n")));
    let top: Vec<Entry> = std::iter::once(Entry::dir("data")).chain(files).collect();
    Image::named(NAME)
        .layer(&base_layer(), Packing::Gzip)
        .layer(
            &[Entry::file("etc/greeting", "from the second layer\n"), Entry::file("etc/.wh.removed", "")],
            Packing::Gzip,
        )
        .layer(&top, Packing::Gzip)
}

/// A daemon with one image, and the directories of its three layers, topmost first.
fn daemon() -> (Daemon, Vec<PathBuf>) {
    let daemon = Daemon::start();
    import(&daemon);
    let mounts = daemon.ctr(&["snapshots", "view", "--mounts", "look", &image().chain_id()]).ok();
    // A collection may have been faster.
    daemon.ctr(&["snapshots", "rm", "look"]).run();
    let dirs = mounts.split("lowerdir=").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let dirs = dirs.split(':').map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(dirs.len(), 3);
    (daemon, dirs)
}

fn import(daemon: &Daemon) {
    let archive = daemon.archive("damage.tar", &image().oci());
    daemon.ctr(&["images", "import", &archive]).ok();
}

#[track_caller]
fn check(daemon: &Daemon, flags: &[&str], code: i32) -> String {
    let finished = daemon.ctr(&[&["content", "check"], flags].concat()).run().expect_code(code);
    finished.stdout.clone()
}

#[track_caller]
fn whole(daemon: &Daemon) {
    let said = check(daemon, &[], 0);
    assert!(said.ends_with(": all are whole\n"), "{said}");
    let id = daemon.id("whole");
    let done = daemon
        .ctr(&["run", "--rm", NAME, &id, "sh", "-c", "cat /etc/greeting /data/7; ls /etc/removed"])
        .run();
    assert_eq!(done.stdout, "from the second layer\ncontents of 7\n");
}

fn blob(daemon: &Daemon, media: &str) -> PathBuf {
    let dir = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let holds = |path: &Path| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(media.len()).any(|w| w == media.as_bytes()))
    };
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| holds(path)).unwrap()
}

/// Writes over a file that is read-only.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_root_is_said_to_be_whole_and_nothing_is_left_by_the_look() {
    if beyond_upstream("ctr content check") {
        return;
    }
    let (daemon, _dirs) = daemon();
    daemon.collect_garbage();
    let before = Ledger::take(&daemon);
    let said = check(&daemon, &["--repair"], 0);
    assert!(said.starts_with("checked 5 blobs (") || said.starts_with("checked 6 blobs ("), "{said}");
    assert!(said.contains(" and 3 layers ("), "{said}");
    let json: serde_json::Value = serde_json::from_str(&check(&daemon, &["--json"], 0)).unwrap();
    assert_eq!((json["layers"].as_u64(), json["broken"].as_array().unwrap().len()), (Some(3), 0));
    Ledger::check(&before, &daemon);
    whole(&daemon);
}

#[test]
fn files_that_are_empty_short_missing_or_others_are_found_and_mended_from_the_blob() {
    if beyond_upstream("ctr content check --repair") {
        return;
    }
    let (daemon, dirs) = daemon();
    fs::write(dirs[0].join("data/7"), "").unwrap();
    fs::remove_file(dirs[0].join("data/8")).unwrap();
    fs::write(dirs[0].join("data/9"), "contents of X\n").unwrap();
    fs::remove_file(dirs[1].join("etc/removed")).unwrap();
    fs::remove_dir_all(dirs[2].join("home")).unwrap();
    let said = check(&daemon, &[], 2);
    assert!(said.contains("3 of 21 entries differ: data/7 is empty instead of 14 bytes; broken"), "{said}");
    assert!(said.contains("etc/removed should be hidden; broken"), "{said}");
    assert!(said.contains("home is missing; broken"), "{said}");
    assert!(said.contains("3 are broken, `ctr content check --repair` mends"), "{said}");
    let said = check(&daemon, &["--repair"], 0);
    assert_eq!(said.matches("; mended").count(), 3, "{said}");
    whole(&daemon);
}

#[test]
fn a_layer_in_use_is_left_alone_and_its_user_is_named() {
    if beyond_upstream("ctr content check --repair") {
        return;
    }
    let (daemon, dirs) = daemon();
    let id = daemon.id("user");
    daemon.ctr(&["run", "-d", NAME, &id, "sleep", "1000"]).ok();
    fs::write(dirs[0].join("data/7"), "").unwrap();
    let said = check(&daemon, &["--repair"], 2);
    assert!(said.contains("still broken: it is in use, stop its containers first: mounted at "), "{said}");
    assert!(said.contains(&id), "{said}");
    assert_eq!(fs::read(dirs[0].join("data/7")).unwrap(), b"");
    daemon.ctr(&["tasks", "kill", "-s", "KILL", &id]).ok();
    daemon.await_status(&id, "STOPPED");
    daemon.ctr(&["tasks", "delete", &id]).run();
    check(&daemon, &["--repair"], 0);
    daemon.ctr(&["containers", "delete", &id]).ok();
    whole(&daemon);
}

#[test]
fn a_broken_blob_is_dropped_and_the_next_import_brings_it_and_keeps_the_rest() {
    if beyond_upstream("ctr content check --repair") {
        return;
    }
    for (media, reason) in [("layers", "bytes"), ("diff_ids", "other bytes"), ("layers", "bytes")] {
        let (daemon, _dirs) = daemon();
        daemon.collect_garbage();
        let path = blob(&daemon, media);
        let mut bytes = fs::read(&path).unwrap();
        if reason == "other bytes" {
            bytes[5] ^= 1;
        } else {
            bytes.truncate(bytes.len() / 2);
        }
        overwrite(&path, &bytes);
        let said = check(&daemon, &[], 2);
        assert!(said.contains(reason), "{said}");
        let said = check(&daemon, &["--repair"], 0);
        assert!(said.contains("dropped: pull its image again"), "{said}");
        assert!(!path.exists());
        daemon.collect_garbage();
        let blobs = daemon.ctr(&["content", "ls", "-q"]).ok().lines().count();
        assert!(blobs >= 4, "what it refers to is kept: {blobs}");
        import(&daemon);
        whole(&daemon);
    }
}

#[test]
fn a_blob_or_layer_that_is_gone_heals_with_the_next_import_without_a_command() {
    if beyond_upstream("healing on the way") {
        return;
    }
    let (daemon, dirs) = daemon();
    let id = daemon.id("above");
    daemon.ctr(&["containers", "create", NAME, &id]).ok();
    daemon.stop();
    overwrite(&blob(&daemon, "layers"), b"");
    fs::remove_file(blob(&daemon, "diff_ids")).unwrap();
    fs::remove_dir_all(&dirs[1]).unwrap();
    fs::remove_dir_all(dirs[2].parent().unwrap()).unwrap();
    daemon.launch();
    assert!(check(&daemon, &[], 2).contains("its files are gone"));
    import(&daemon);
    whole(&daemon);
    // A container that was made before stands on the layers that are there now.
    daemon.ctr(&["tasks", "start", "-d", &id]).ok();
    daemon.ctr(&["tasks", "kill", "-s", "KILL", &id]).ok();
    daemon.await_status(&id, "STOPPED");
    daemon.ctr(&["tasks", "delete", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn a_layer_whose_directory_is_gone_is_mended_by_repair() {
    if beyond_upstream("ctr content check --repair") {
        return;
    }
    let (daemon, dirs) = daemon();
    fs::remove_dir_all(&dirs[0]).unwrap();
    fs::remove_dir_all(&dirs[2]).unwrap();
    let said = check(&daemon, &["--repair"], 0);
    assert!(said.contains("its files are gone"), "{said}");
    whole(&daemon);
}

#[test]
fn a_file_that_no_namespace_knows_is_removed_if_it_is_broken_and_stays_if_it_is_whole() {
    if beyond_upstream("ctr content check --repair") {
        return;
    }
    let (daemon, _dirs) = daemon();
    let dir = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let (broken, good) = (dir.join("ab".repeat(32)), dir.join(containerd_tests::archive::hex(b"whole")));
    fs::write(&broken, "half").unwrap();
    fs::write(&good, "whole").unwrap();
    let said = check(&daemon, &["--repair"], 0);
    assert!(said.contains("no namespace knows this blob, and it is not whole; removed"), "{said}");
    assert!(said.contains("1 blobs below "), "{said}");
    assert!(good.exists() && !broken.exists());
}
