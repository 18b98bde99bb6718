//! A root belongs to one daemon, and one that is not ours is left as it is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::Home;

/// Every path below `dir` with what an observer could tell apart.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
    }
    all
}

#[test]
fn the_root_of_another_containerd_is_left_byte_for_byte_as_it_is() {
    let home = Home::new();
    let root = home.path("root");
    let bolt = root.join("io.containerd.metadata.v1.bolt");
    std::fs::create_dir_all(&bolt).unwrap();
    std::fs::write(bolt.join("meta.db"), "upstream's").unwrap();
    let before = picture(&root);
    let output = home.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(root.to_str().unwrap()) && text.contains("--root"), "{text}");
    assert_eq!(picture(&root), before);
    assert!(!home.path("state").exists() && !home.path("s").exists());
}

#[test]
fn blobs_that_no_database_knows_are_left_too() {
    let home = Home::new();
    let blobs = home.path("root/io.containerd.content.v1.content/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("00"), "x").unwrap();
    let before = picture(&home.path("root"));
    assert_eq!(home.command().output().unwrap().status.code(), Some(1));
    assert_eq!(picture(&home.path("root")), before);
}

#[tokio::test]
async fn a_second_daemon_on_one_root_is_refused_at_once() {
    let home = Home::new();
    let _first = home.start().await;
    let begun = Instant::now();
    let mut second = home.command();
    second.arg("--address").arg(home.path("other.sock")).arg("--state").arg(home.path("other"));
    let output = second.output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(home.path("root").to_str().unwrap()), "{text}");
    assert!(!home.path("other.sock").exists());
}

#[tokio::test]
async fn a_second_daemon_on_one_state_is_refused_at_once() {
    let home = Home::new();
    let _first = home.start().await;
    let mut second = home.command();
    second.arg("--address").arg(home.path("other.sock")).arg("--root").arg(home.path("other"));
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("in use by another") && text.contains("--state"), "{text}");
    assert!(!home.path("other").exists() && !home.path("other.sock").exists());
}
