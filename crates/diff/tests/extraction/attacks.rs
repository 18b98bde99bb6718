//! Layers that try to reach outside.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use types::Class;

use crate::archive::{self, Archive, Header};
use crate::place::{Place, read};

/// SEC-004, 065, 069, 085, 087: links in every place, then everything through and onto them.
#[tokio::test]
async fn no_entry_reaches_the_canary() {
    let place = Place::new();
    let canary = place.path("canary").display().to_string();
    let relative = "../canary".to_owned();
    let deep = "../../../../../../../..".to_owned() + &canary;
    let before = place.canary();
    for target in [&canary, &relative, &deep] {
        let attacks = |link: &str| -> Vec<Archive> {
            let base = || Archive::default().symlink(link, target);
            let evil = |flag: u8, name: &str| Header::new(flag, name).mode(0o6777).owner(1234, 1234).mtime(1);
            let xattr = [("SCHILY.xattr.user.evil", &b"1"[..])];
            vec![
                base().entry(evil(b'5', link), b""),
                base().pax(&xattr).entry(evil(b'5', &format!("{link}/")), b""),
                base().entry(evil(b'0', link).size(4), b"evil"),
                base().pax(&xattr).entry(evil(b'0', &format!("{link}/file")).size(4), b"evil"),
                base().entry(evil(b'5', &format!("{link}/dir")), b""),
                base().entry(evil(b'1', "hard").link(&format!("{link}/file")), b""),
                base().entry(evil(b'1', &format!("{link}/hard")).link(link), b""),
                base().entry(evil(b'2', &format!("{link}/file")).link("x"), b""),
                base().entry(evil(b'6', &format!("{link}/file")), b""),
                base().entry(evil(b'1', "two").link(link), b"").entry(evil(b'5', "two"), b""),
                base().file(&format!("{link}/.wh.file"), ""),
                base().file(&format!("{link}/.wh..wh..opq"), ""),
                base().dir(&format!("{link}/..")).file(&format!("{link}/../canary/file"), "evil"),
            ]
        };
        for (at, tar) in attacks("l").into_iter().chain(attacks("a/b/l")).enumerate() {
            let _ = std::fs::remove_dir_all(place.path("root"));
            std::fs::create_dir(place.path("root")).unwrap();
            // Refused or kept inside: both are fine.
            let result = place.apply(&tar.end()).await;
            assert_eq!(place.canary(), before, "attack {at} by {target}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_hard_link_must_find_its_target_inside() {
    let place = Place::new();
    for target in ["../canary/file", "../../etc/passwd", "missing", "later", "d/", "", ".."] {
        let tar = Archive::default().dir("d").hardlink("h", target).file("later", "x").end();
        let error = place.apply(&tar).await.unwrap_err().to_string();
        assert!(error.contains("extract \"h\""), "{target}: {error}");
    }
    // An absolute target means one in the root.
    let tar = Archive::default().file("etc", "x").hardlink("h", "/etc").end();
    place.apply(&tar).await.unwrap();
    assert_eq!(read(place.root("h")), "x");
}

#[tokio::test]
async fn a_link_as_parent_is_followed_inside_the_root_only() {
    let place = Place::new();
    let tar = Archive::default()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "/usr/lib")
        .file("lib/a", "1")
        .symlink("up", "../../../usr")
        .file("up/lib/b", "2")
        .symlink("dangling", "usr/new/dir")
        .file("dangling/c", "3")
        .end();
    place.apply(&tar).await.unwrap();
    for (path, body) in [("usr/lib/a", "1"), ("usr/lib/b", "2"), ("usr/new/dir/c", "3")] {
        assert_eq!(read(place.root(path)), body);
    }
    assert!(place.root("lib").is_symlink());
    let tar = Archive::default().symlink("x", "y").symlink("y", "x").file("x/f", "").end();
    assert!(place.apply(&tar).await.is_err());
}

#[tokio::test]
async fn a_parent_that_is_replaced_is_not_remembered() {
    let place = Place::new();
    let canary = place.path("canary").display().to_string();
    let before = place.canary();
    let tar =
        Archive::default().dir("d").file("d/one", "1").symlink("d", &canary).file("d/file", "evil").end();
    let _ = place.apply(&tar).await;
    assert_eq!(place.canary(), before);
    let tar =
        Archive::default().dir("e").file("e/one", "1").file(".wh.e", "").dir("e").file("e/two", "2").end();
    place.apply(&tar).await.unwrap();
    assert!(place.root("e/two").exists() && !place.root("e/one").exists());
}

/// SEC-118.
#[tokio::test]
async fn whiteouts_remove_only_what_is_below_and_forged_ones_are_refused() {
    let place = Place::new();
    for file in ["d/a", "d/b/c", "e/f", "g"] {
        std::fs::create_dir_all(place.root(file).parent().unwrap()).unwrap();
        std::fs::write(place.root(file), "").unwrap();
    }
    let tar = Archive::default()
        .file(".wh.g", "")
        .file("d/new", "")
        .file("d/.wh..wh..opq", "")
        .file("d/b/late", "")
        .file("e/.wh.f", "")
        .file(".wh.missing", "")
        .dir(".wh..wh.aufs")
        .end();
    place.apply(&tar).await.unwrap();
    assert!(!place.root("g").exists() && !place.root("d/a").exists() && !place.root("d/b/c").exists());
    assert!(place.root("d/new").exists() && place.root("d/b/late").exists());
    assert!(place.root("e").exists() && !place.root("e/f").exists());
    assert!(!place.root(".wh..wh.aufs").exists());
    for bad in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", "d/.wh./", "x/../.wh.."] {
        for flag in [b'0', b'5'] {
            let tar = Archive::default().entry(Header::new(flag, bad), b"").end();
            let error = place.apply(&tar).await.unwrap_err();
            assert_eq!(error.class(), Class::InvalidArgument, "{bad}: {error}");
        }
    }
    assert!(place.root("d/new").exists());
}

#[tokio::test]
async fn names_that_leave_the_root_are_refused() {
    let place = Place::new();
    let before = place.canary();
    for bad in ["../canary/file", "a/../../canary/file", "/../canary/file", ".."] {
        let error = place.apply(&Archive::default().file(bad, "evil").end()).await.unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
    assert_eq!(place.canary(), before);
    place.apply(&Archive::default().file("/abs/./x//y/../z", "in").dir("./").end()).await.unwrap();
    assert_eq!(read(place.root("abs/x/z")), "in");
}

#[tokio::test]
async fn an_unknown_type_is_an_error_and_global_headers_are_nothing() {
    let place = Place::new();
    let global = archive::record("path", b"elsewhere");
    let tar = Archive::default()
        .entry(Header::new(b'g', "pax_global_header").size(global.len() as u64), &global)
        .file("f", "x")
        .end();
    place.apply(&tar).await.unwrap();
    assert_eq!(std::fs::read_dir(place.path("root")).unwrap().count(), 1);
    let error = place.apply(&Archive::default().entry(Header::new(b'Z', "z"), b"").end()).await.unwrap_err();
    assert!(error.to_string().contains("unhandled tar header type 90"), "{error}");
}

/// SEC-018: somebody renames inside the root while it is filled.
#[tokio::test(flavor = "multi_thread")]
async fn renames_during_extraction_do_not_lead_out() {
    let place = Place::new();
    let before = place.canary();
    let (a, b, c) = (place.root("d"), place.root("moved"), place.path("canary"));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::rename(&a, &b);
                let _ = symlink(&c, &a);
                let _ = std::fs::remove_file(&a);
                let _ = std::fs::rename(&b, &a);
            }
        }
    });
    let mut tar = Archive::default();
    for round in 0..300 {
        tar = tar
            .dir("d")
            .entry(Header::new(b'0', "d/file").mode(0o777).size(4), b"evil")
            .file(&format!("d/f{round}"), "x")
            .entry(Header::new(b'5', "d/sub").mode(0o777), b"")
            .hardlink("hard", "d/file")
            .file("d/.wh.file", "");
    }
    let tar = tar.end();
    for _ in 0..10 {
        // It may fail as often as it likes.
        let _ = place.apply(&tar).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(place.canary(), before);
}

/// SEC-018: two layers side by side into one directory, one makes it a link out, the other writes through it.
#[tokio::test(flavor = "multi_thread")]
async fn two_layers_at_once_do_not_lead_out() {
    let place = Arc::new(Place::new());
    let before = place.canary();
    let canary = place.path("canary").display().to_string();
    let (mut one, mut two) = (Archive::default(), Archive::default());
    for _ in 0..200 {
        one = one.dir("d").symlink("d", &canary);
        two = two.entry(Header::new(b'0', "d/file").mode(0o777).size(4), b"evil").dir("d");
    }
    let (one, two) = (one.end(), two.end());
    for _ in 0..5 {
        let (_, _) = tokio::join!(place.apply(&one), place.apply(&two));
    }
    assert_eq!(place.canary(), before);
}
