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

/// Starts two daemons with states and sockets of their own on one root, at the same moment. Returns what the one that was
/// refused said, and the log of the one that serves.
fn race(home: &Home) -> (String, String) {
    let barrier = std::sync::Barrier::new(2);
    let started = ["a", "b"].map(|name| (name, home.path(&format!("{name}.log"))));
    let mut children: Vec<_> = std::thread::scope(|scope| {
        let starts = started.each_ref().map(|(name, log)| {
            let mut command = home.command();
            command.arg("--address").arg(home.path(&format!("{name}.sock")));
            command.arg("--state").arg(home.path(&format!("{name}.state")));
            command.stderr(std::fs::File::create(log).unwrap());
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                command.spawn().unwrap()
            })
        });
        starts.map(|start| start.join().unwrap()).into_iter().collect()
    });
    let serves =
        |name: &str| std::os::unix::net::UnixStream::connect(home.path(&format!("{name}.sock"))).is_ok();
    let begun = Instant::now();
    let (winner, loser) = loop {
        assert!(begun.elapsed() < daemon::PATIENCE, "nobody serves, or nobody is refused");
        let ended: Vec<_> = children.iter_mut().map(|child| child.try_wait().unwrap().is_some()).collect();
        assert_ne!(ended, [true, true], "both were refused");
        match (serves("a"), serves("b"), &ended[..]) {
            (true, true, _) => panic!("both serve one root"),
            (true, _, [_, true]) => break (0, 1),
            (_, true, [true, _]) => break (1, 0),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    for child in &mut children {
        drop(child.kill());
        drop(child.wait());
    }
    let log = |index: usize| std::fs::read_to_string(&started[index].1).unwrap();
    (log(loser), log(winner))
}

#[test]
fn of_two_daemons_that_begin_on_a_fresh_root_at_the_same_moment_one_is_refused_and_one_has_everything() {
    for _ in 0..5 {
        let home = Home::new();
        let (refused, serving) = race(&home);
        let root = home.path("root");
        assert!(
            refused.contains("in use by another") && refused.contains(root.to_str().unwrap()),
            "{refused}"
        );
        // Whoever opens a snapshotter's database that another daemon has open gets this.
        assert!(!serving.contains("acquire lock"), "{serving}");
    }
}
