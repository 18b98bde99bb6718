//! Layers of an overlay, written without mounting it.

use std::os::unix::fs::MetadataExt as _;

use types::Digest;

use crate::archive::{Archive, Header, gzip};
use crate::place::{Place, is_root, read};

#[tokio::test]
async fn an_overlay_sees_whiteouts_without_being_mounted() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    let base = Archive::default()
        .entry(Header::new(b'5', "etc").mode(0o750).owner(7, 8).mtime(5), b"")
        .file("etc/a", "a")
        .file("etc/b", "b")
        .dir("opaque")
        .file("opaque/old", "")
        .dir("again")
        .file("again/old", "")
        .dir("typed")
        .file("typed/x", "")
        .end();
    place.apply_layer(&base).await.unwrap();
    let next = Archive::default()
        .file("etc/.wh.a", "")
        .file("etc/c", "c")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "")
        .file(".wh.again", "")
        .file("again/new", "")
        .file("typed", "a file now")
        .end();
    let applied = place.apply_layer(&gzip(&next)).await.unwrap();
    assert_eq!(applied.uncompressed.digest, Digest::of(&next));
    let upper = &place.layers[1];
    let whiteout = std::fs::symlink_metadata(upper.join("etc/.wh.a"));
    assert!(whiteout.is_err() && std::fs::symlink_metadata(upper.join("etc/a")).unwrap().rdev() == 0);
    // Never named by this layer, so like the one below.
    let etc = std::fs::metadata(upper.join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid(), etc.mtime()), (0o750, 7, 8, 5));
    let view = place.view();
    let seen = |name: &str| view.path().join(name).exists();
    assert!(!seen("etc/a") && seen("etc/b") && seen("etc/c"));
    assert!(!seen("opaque/old") && seen("opaque/new"));
    assert!(!seen("again/old") && seen("again/new"));
    assert_eq!(read(view.path().join("typed")), "a file now");
    view.close().unwrap();
}

#[tokio::test]
async fn paths_through_layers_below_are_those_of_the_merged_view() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    let base = Archive::default()
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/libc", "c")
        .symlink("lib", "usr/lib")
        .end();
    place.apply_layer(&base).await.unwrap();
    // Through a link that only the layer below has, and a hard link to one of its files.
    place.apply_layer(&Archive::default().file("first", "1").file("lib/new", "2").end()).await.unwrap();
    place.apply_layer(&Archive::default().hardlink("libc2", "usr/lib/libc").end()).await.unwrap();
    place.apply_layer(&Archive::default().file(".wh..wh..opq", "").file("only", "3").end()).await.unwrap();
    let last = place.layers.pop().unwrap();
    let view = place.view();
    assert!(view.path().join("lib").is_symlink());
    assert_eq!(read(view.path().join("usr/lib/new")), "2");
    assert_eq!(read(view.path().join("first")), "1");
    let (one, two) = (view.path().join("libc2"), view.path().join("usr/lib/libc"));
    assert_eq!(read(&one), "c");
    assert_eq!(std::fs::metadata(one).unwrap().ino(), std::fs::metadata(two).unwrap().ino());
    view.close().unwrap();
    place.layers.push(last);
    let view = place.view();
    let names: Vec<_> = std::fs::read_dir(view.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["only"]);
    view.close().unwrap();
}

/// SEC-117, 118: what would steer overlayfs never comes from the archive.
#[tokio::test]
async fn attributes_that_steer_the_kernel_are_not_taken() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    let forged = [
        ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.fine", b"1"),
    ];
    let base = Archive::default().dir("d").file("d/below", "").end();
    place.apply_layer(&base).await.unwrap();
    place
        .apply_layer(&Archive::default().pax(&forged).dir("d").pax(&forged).file("f", "").end())
        .await
        .unwrap();
    for name in ["d", "f"] {
        let file = std::fs::File::open(place.layers[1].join(name)).unwrap();
        assert_eq!(sys::fs::list_xattrs(file).unwrap(), [c"user.fine".to_owned()], "{name}");
    }
    let view = place.view();
    assert!(view.path().join("d/below").exists());
    view.close().unwrap();
}
