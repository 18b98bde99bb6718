//! Snapshots by hand: prepare, mount, commit, view, remove.

use std::path::Path;
use std::process::Command;

use containerd_tests::Daemon;
use containerd_tests::archive::Image;

/// Mounts a snapshot with the commands that `ctr snapshots mounts` prints.
#[track_caller]
fn mount(daemon: &Daemon, target: &Path, key: &str) {
    let commands = daemon.ctr(&["snapshots", "mounts", &target.to_string_lossy(), key]).ok();
    let status = Command::new("sh").args(["-ec", &commands]).status().unwrap();
    assert!(status.success(), "{commands}");
}

#[track_caller]
fn unmount(target: &Path) {
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).unwrap();
}

#[test]
fn the_snapshot_of_an_image_is_named_by_its_chain() {
    let daemon = Daemon::shared();
    daemon.image();
    let list = daemon.ctr(&["snapshots", "list"]).ok();
    let chain = Image::standard().chain_id();
    let line = list.lines().find(|line| line.starts_with(&chain)).unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("Committed"), "{line}");
}

#[test]
fn what_is_written_to_a_snapshot_is_in_what_is_committed_from_it() {
    let daemon = Daemon::shared();
    daemon.image();
    let (active, committed, view) = (daemon.id("active"), daemon.id("committed"), daemon.id("view"));
    let target = tempfile::tempdir().unwrap();
    daemon.ctr(&["snapshots", "prepare", &active, &Image::standard().chain_id()]).ok();
    mount(&daemon, target.path(), &active);
    std::fs::write(target.path().join("etc/added"), "added\n").unwrap();
    std::fs::remove_file(target.path().join("etc/greeting")).unwrap();
    unmount(target.path());
    daemon.ctr(&["snapshots", "commit", &committed, &active]).ok();
    daemon.ctr(&["snapshots", "info", &active]).fails().says("not found");
    // Nothing refers to a view: upstream's collector may take it before it is held.
    let held = (0..5).any(|_| {
        daemon.ctr(&["snapshots", "view", &view, &committed]).ok();
        daemon.ctr(&["snapshots", "label", &view, "containerd.io/gc.root=held"]).run().code == 0
    });
    assert!(held, "the view does not stay");
    mount(&daemon, target.path(), &view);
    let added = std::fs::read_to_string(target.path().join("etc/added"));
    let removed = target.path().join("etc/greeting").exists();
    let refused = std::fs::write(target.path().join("etc/more"), "");
    unmount(target.path());
    assert_eq!(added.unwrap(), "added\n");
    assert!(!removed, "the removed file is back");
    assert!(refused.is_err(), "a view can be written");
    daemon.ctr(&["snapshots", "delete", &view]).ok();
    daemon.ctr(&["snapshots", "delete", &committed]).ok();
}

#[test]
fn a_snapshot_with_children_is_not_removed() {
    let daemon = Daemon::shared();
    daemon.image();
    let (chain, child) = (Image::standard().chain_id(), daemon.id("child"));
    daemon.ctr(&["snapshots", "prepare", &child, &chain]).ok();
    daemon.ctr(&["snapshots", "delete", &chain]).fails();
    daemon.ctr(&["snapshots", "delete", &child]).ok();
    daemon.ctr(&["snapshots", "info", &chain]).ok();
}

#[test]
fn names_are_unique_and_parents_must_be_committed() {
    let daemon = Daemon::shared();
    let (one, two) = (daemon.id("one"), daemon.id("two"));
    daemon.ctr(&["snapshots", "prepare", &one]).ok();
    daemon.ctr(&["snapshots", "prepare", &one]).fails().says("already exists");
    daemon.ctr(&["snapshots", "prepare", &two, &one]).fails();
    daemon.ctr(&["snapshots", "prepare", &two, "sha256:absent"]).fails().says("not found");
    daemon.ctr(&["snapshots", "delete", &one]).ok();
    daemon.ctr(&["snapshots", "delete", &one]).fails().says("not found");
}

#[test]
fn the_usage_of_a_snapshot_is_what_was_written_to_it() {
    let daemon = Daemon::shared();
    let active = daemon.id("usage");
    let target = tempfile::tempdir().unwrap();
    daemon.ctr(&["snapshots", "prepare", &active]).ok();
    mount(&daemon, target.path(), &active);
    std::fs::write(target.path().join("file"), vec![1; 1 << 20]).unwrap();
    unmount(target.path());
    let usage = daemon.ctr(&["snapshots", "usage", "-b", &active]).ok();
    let line = usage.lines().find(|line| line.starts_with(&active)).unwrap_or_default();
    let bytes: u64 = line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
    assert!((1 << 20..(1 << 20) + 65_536).contains(&bytes), "{usage}");
    daemon.ctr(&["snapshots", "delete", &active]).ok();
}

#[test]
fn an_unknown_snapshotter_is_an_error_that_names_it() {
    let daemon = Daemon::shared();
    daemon.ctr(&["snapshots", "--snapshotter", "no-such", "list"]).fails().says("no-such");
}
