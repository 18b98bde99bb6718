//! What a layer makes on disk, and what it can never reach: everything outside its root stays as it was.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

#[path = "../archive/mod.rs"]
mod archive;
mod attacks;
mod overlays;
mod place;
mod rebased;
mod verification;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diff::{Applier as _, ApplyOptions, WalkingApplier};
use types::mount::Mount;
use types::oci::image::media;
use types::{Class, Digest};

use archive::{Archive, Header, gzip, store_layer};
use place::{Place, bind, is_root, read};

#[tokio::test]
async fn every_kind_of_entry_gets_its_attributes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let tar = Archive::default()
        .entry(Header::new(b'5', "d/").mode(0o1750).owner(3, 4).mtime(7), b"")
        .pax(&[("mtime", b"12.5"), ("SCHILY.xattr.user.one", b"1"), ("SCHILY.xattr.trusted.two", b"2")])
        .entry(Header::new(b'0', "d/f").mode(0o6755).owner(1000, 1001).size(5), b"hello")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .file("d/caps", "x")
        .hardlink("h", "d/f")
        .entry(Header::new(b'2', "s").owner(5, 6).link("/does/not/exist").mtime(9), b"")
        .hardlink("s2", "s")
        .entry(Header::new(b'3', "null").mode(0o666).device(1, 3), b"")
        .entry(Header::new(b'4', "disk").mode(0o660).owner(0, 6).device(7, 300), b"")
        .entry(Header::new(b'6', "pipe").mode(0o622), b"")
        .end();
    let applied = place.apply(&gzip(&tar)).await.unwrap();
    assert_eq!(applied.uncompressed.digest, Digest::of(&tar));
    assert_eq!(applied.uncompressed.size, tar.len() as i64);
    assert_eq!(applied.uncompressed.media_type, media::OCI_LAYER);
    let meta = |name: &str| std::fs::symlink_metadata(place.root(name)).unwrap();
    let facts = |name: &str| (meta(name).mode() & 0o7777, meta(name).uid(), meta(name).gid());
    assert_eq!((facts("d"), meta("d").mtime()), ((0o1750, 3, 4), 7));
    // The hard link's own header comes last.
    assert_eq!(facts("d/f"), (0o644, 0, 0));
    assert_eq!((meta("d/f").ino(), meta("d/f").nlink()), (meta("h").ino(), 2));
    assert_eq!(read(place.root("h")), "hello");
    assert_eq!((meta("s").uid(), meta("s").gid(), meta("s").nlink()), (0, 0, 2));
    assert_eq!(std::fs::read_link(place.root("s2")).unwrap(), Path::new("/does/not/exist"));
    assert!(meta("null").file_type().is_char_device() && meta("null").rdev() == rustix::fs::makedev(1, 3));
    assert_eq!(facts("null").0, 0o666);
    assert!(meta("disk").file_type().is_block_device() && meta("disk").rdev() == rustix::fs::makedev(7, 300));
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(facts("pipe").0, 0o622);
    let file = std::fs::File::open(place.root("d/f")).unwrap();
    assert_eq!(sys::fs::list_xattrs(&file).unwrap(), [c"user.one".to_owned()]);
    let caps = std::fs::File::open(place.root("d/caps")).unwrap();
    assert!(sys::fs::get_xattr(&caps, c"security.capability").unwrap().is_some());
}

#[tokio::test]
async fn setuid_survives_and_times_have_fractions() {
    let place = Place::new();
    let me = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let tar = Archive::default()
        .pax(&[("mtime", b"12.5"), ("atime", b"99.25")])
        .entry(Header::new(b'0', "su").mode(0o4755).owner(me, gid), b"")
        .end();
    place.apply(&tar).await.unwrap();
    let meta = std::fs::metadata(place.root("su")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o4755, 12, 500_000_000));
    assert_eq!((meta.atime(), meta.atime_nsec()), (99, 250_000_000));
}

#[tokio::test]
async fn later_entries_replace_earlier_ones_as_upstream() {
    let place = Place::new();
    std::fs::create_dir_all(place.root("keep/old")).unwrap();
    std::fs::create_dir_all(place.root("gone/deep/er")).unwrap();
    let tar = Archive::default()
        .dir("keep")
        .file("keep/new", "1")
        .file("gone", "file now")
        .file("twice", "first")
        .file("twice", "second")
        .symlink("link", "keep")
        .dir("link")
        .file("link/x", "y")
        .end();
    place.apply(&tar).await.unwrap();
    assert!(place.root("keep/old").is_dir() && place.root("keep/new").is_file());
    assert_eq!(read(place.root("gone")), "file now");
    assert_eq!(read(place.root("twice")), "second");
    assert!(!place.root("link").is_symlink() && place.root("link/x").is_file());
    assert!(!place.root("keep/x").exists());
}

#[tokio::test]
async fn other_mounts_are_mounted_and_left_unmounted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mut mount = bind(&place.path("root"));
    mount.options.push("noatime".into());
    place.apply_to(&[mount], &Archive::default().file("x", "y").end()).await.unwrap();
    assert_eq!(read(place.root("x")), "y");
    let mut read_only = bind(&place.path("root"));
    read_only.options[0] = "ro".into();
    let error = place.apply_to(&[read_only], &Archive::default().file("z", "").end()).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn errors_name_layer_entry_and_reason() {
    let place = Place::new();
    let tar = Archive::default()
        .file("a\u{1b}[31m/b", "x")
        .entry(Header::new(b'1', "bad\nname").link("no"), b"")
        .end();
    let error = place.apply(&tar).await.unwrap_err().to_string();
    assert!(error.contains(&Digest::of(&tar).to_string()), "{error}");
    assert!(error.contains("\"bad\\nname\"") && !error.contains('\n'), "{error}");
    let layer = store_layer(&place.store, "text/plain", b"x").await;
    let applier = WalkingApplier::new(Arc::clone(&place.store) as _);
    let error = applier
        .apply(&layer, &[bind(&place.path("root"))], ApplyOptions { sync: true, ..ApplyOptions::default() })
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Unimplemented);
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let tmpfs = Mount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        target: String::new(),
        options: vec!["size=64k".into()],
    };
    // More than fits as files of a page each, and less than fits as an archive.
    let many = (0..50).fold(Archive::default(), |tar, number| tar.file(&format!("small{number}"), "x"));
    let error = place.apply_to(std::slice::from_ref(&tmpfs), &many.end()).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("extract \"small"), "{error}");
    let big = Archive::default().file("big", vec![1; 1 << 20]).end();
    let error = place.apply_to(&[tmpfs], &big).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("max_unpacked_layer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extraction_that_nobody_waits_for_stops() {
    let place = Place::new();
    let mut tar = Archive::default();
    for number in 0..60_000 {
        tar = tar.entry(Header::new(b'0', &format!("f{number}")), b"");
    }
    let layer = store_layer(&place.store, media::OCI_LAYER_GZIP, &gzip(&tar.end())).await;
    let applier = WalkingApplier::new(Arc::clone(&place.store) as _);
    let count = || std::fs::read_dir(place.path("root")).unwrap().count();
    {
        let mounts = [bind(&place.path("root"))];
        let mut apply = std::pin::pin!(applier.apply(&layer, &mounts, ApplyOptions::default()));
        let deadline = Instant::now() + Duration::from_secs(30);
        // Until it has begun.
        while count() == 0 {
            assert!(Instant::now() < deadline);
            let pause = tokio::time::timeout(Duration::from_millis(1), &mut apply).await;
            assert!(pause.is_err(), "it is done already");
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = count();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = count();
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it goes on");
        before = now;
    }
    assert!(before < 60_000, "it ran to its end");
}
