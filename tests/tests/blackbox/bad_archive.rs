//! Archives that are damaged or hostile: a clear error, nothing left behind, nothing written outside.

use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::tar::{self, Entry, Kind};
use containerd_tests::{Daemon, Finished};

/// A daemon without images: what a refused import leaves is all there is.
fn empty() -> Daemon {
    Daemon::start()
}

fn import(daemon: &Daemon, bytes: &[u8]) -> Finished {
    let archive = daemon.archive("bad.tar", bytes);
    daemon.ctr(&["images", "import", &archive]).run()
}

#[track_caller]
fn nothing_is_left(daemon: &Daemon) {
    daemon.collect_garbage();
    assert_eq!(daemon.ctr(&["images", "list", "-q"]).ok(), "", "images");
    assert_eq!(daemon.ctr(&["content", "list", "-q"]).ok(), "", "blobs");
    assert_eq!(daemon.ctr(&["snapshots", "list"]).ok().lines().count(), 1, "snapshots");
    assert_eq!(daemon.ctr(&["content", "active"]).ok().lines().count(), 1, "ingests");
    assert_eq!(daemon.api().leases(), Vec::<String>::new(), "leases");
    assert_eq!(
        containerd_tests::proc::mounts_below(daemon.dir()),
        Vec::<std::path::PathBuf>::new(),
        "mounts"
    );
}

fn image() -> Image {
    Image::named("docker.io/library/bad:1").layer(&base_layer(), Packing::Gzip)
}

#[test]
fn a_truncated_archive_is_refused() {
    if beyond_upstream("a refused import leaves nothing") {
        return;
    }
    let daemon = empty();
    let whole = image().oci();
    for length in [700, whole.len() / 2, whole.len() - 3000] {
        let done = import(&daemon, &whole[..length]);
        assert_ne!(done.code, 0, "{length} of {} bytes: {done}", whole.len());
        nothing_is_left(&daemon);
    }
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let daemon = empty();
    for bytes in [b"".as_slice(), b"no archive at all", &[0; 4096]] {
        let done = import(&daemon, bytes);
        assert_ne!(done.code, 0, "{done}");
        nothing_is_left(&daemon);
    }
}

#[test]
fn a_blob_that_does_not_match_its_digest_is_refused() {
    if beyond_upstream("a refused import leaves nothing") {
        return;
    }
    let daemon = empty();
    let mut entries = image().oci_entries();
    let layer =
        entries.iter_mut().filter(|e| e.name.starts_with("blobs/sha256/")).max_by_key(|e| size(e)).unwrap();
    if let Kind::File(bytes) = &mut layer.kind {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let done = import(&daemon, &tar::archive(&entries));
    assert_ne!(done.code, 0, "{done}");
    done.says("digest");
    nothing_is_left(&daemon);
}

#[test]
fn a_layer_that_is_missing_is_named() {
    if beyond_upstream("a refused import leaves nothing") {
        return;
    }
    let daemon = empty();
    let mut entries = image().oci_entries();
    let layer = entries.iter().max_by_key(|e| size(e)).unwrap().name.clone();
    entries.retain(|entry| entry.name != layer);
    let done = import(&daemon, &tar::archive(&entries));
    assert_ne!(done.code, 0, "{done}");
    done.says(layer.trim_start_matches("blobs/sha256/"));
    nothing_is_left(&daemon);
}

#[test]
fn blobs_outside_the_archives_root_do_not_exist() {
    let daemon = empty();
    let mut entries = image().oci_entries();
    entries.insert(0, Entry::file("../../../../tmp/ctd-escaped", "escaped"));
    entries.insert(1, Entry::file("/tmp/ctd-escaped", "escaped"));
    import(&daemon, &tar::archive(&entries));
    assert!(!std::path::Path::new("/tmp/ctd-escaped").exists());
}

/// Unpacks one hostile layer above the usual one. Whether the layer is refused or disarmed, `victim` must not change.
#[track_caller]
fn does_not_escape(name: &str, layer: &[Entry]) {
    let daemon = empty();
    let victim = tempfile::tempdir().unwrap();
    std::fs::write(victim.path().join("file"), "untouched").unwrap();
    let path = victim.path().to_string_lossy().into_owned();
    let layer: Vec<Entry> = layer.iter().map(|entry| aimed_at(entry, &path)).collect();
    let done = import(&daemon, &image().layer(&layer, Packing::Gzip).oci());
    let names: Vec<_> = std::fs::read_dir(victim.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["file"], "{name}: {done}");
    assert_eq!(std::fs::read_to_string(victim.path().join("file")).unwrap(), "untouched", "{name}: {done}");
    // Upstream leaves what it had unpacked to its collector.
    if done.code != 0 && binaries::suite() == Suite::Ours {
        nothing_is_left(&daemon);
    }
}

/// Puts the victim's path where an entry says VICTIM.
fn aimed_at(entry: &Entry, path: &str) -> Entry {
    let mut entry = entry.clone();
    entry.name = entry.name.replace("VICTIM", path);
    entry.kind = match entry.kind {
        Kind::Symlink(target) => Kind::Symlink(target.replace("VICTIM", path)),
        Kind::Hardlink(target) => Kind::Hardlink(target.replace("VICTIM", path)),
        other => other,
    };
    entry
}

#[test]
fn names_with_dots_stay_below_the_layers_root() {
    let up = "../../../../../../../../..";
    does_not_escape("dots", &[Entry::file(format!("{up}VICTIM/new"), "escaped")]);
    does_not_escape("dots inside", &[Entry::file(format!("etc/{up}VICTIM/new"), "escaped")]);
    does_not_escape("absolute", &[Entry::file("VICTIM/new", "escaped")]);
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let new = Entry::file("link/new", "escaped");
    does_not_escape("absolute link", &[Entry::symlink("link", "VICTIM"), new.clone()]);
    does_not_escape("relative link", &[Entry::symlink("link", "../../../../../../../..VICTIM"), new.clone()]);
    does_not_escape("link to a link", &[Entry::symlink("a", "VICTIM"), Entry::symlink("link", "a"), new]);
    does_not_escape(
        "over a link",
        &[Entry::symlink("file", "VICTIM/file"), Entry::file("file", "overwritten by a layer")],
    );
}

#[test]
fn nothing_outside_is_linked_or_removed() {
    does_not_escape(
        "hard link",
        &[Entry::hardlink("link", "VICTIM/file"), Entry::file("link", "overwritten")],
    );
    does_not_escape(
        "hard link through a symlink",
        &[
            Entry::symlink("dir", "VICTIM"),
            Entry::hardlink("link", "dir/file"),
            Entry::file("link", "overwritten"),
        ],
    );
    does_not_escape(
        "whiteout through a symlink",
        &[Entry::symlink("dir", "VICTIM"), Entry::file("dir/.wh.file", "")],
    );
    does_not_escape("whiteout with dots", &[Entry::file("../../../../../../../..VICTIM/.wh.file", "")]);
    does_not_escape("whiteout of dots", &[Entry::file("etc/.wh...", "")]);
    does_not_escape(
        "opaque through a symlink",
        &[Entry::symlink("dir", "VICTIM"), Entry::file("dir/.wh..wh..opq", "")],
    );
    does_not_escape(
        "mode through a symlink",
        &[Entry::symlink("dir", "VICTIM/file"), Entry::dir("dir").mode(0o777)],
    );
}

fn size(entry: &Entry) -> usize {
    match &entry.kind {
        Kind::File(bytes) => bytes.len(),
        _ => 0,
    }
}
