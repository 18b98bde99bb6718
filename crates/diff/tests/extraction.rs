//! What a layer makes on disk, and what it can never reach: everything outside its root stays as it was.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod archive;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::{Archive, Header, gzip, store_layer};
use content::local::LocalStore;
use diff::{Applied, Applier as _, ApplyOptions, WalkingApplier};
use sys::mount::TempMount;
use tempfile::TempDir;
use types::mount::Mount;
use types::oci::image::media;
use types::{Class, Digest, Result};

/// A store, a directory to extract to, and a canary next to it.
struct Place {
    top: TempDir,
    store: Arc<LocalStore>,
    layers: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for dir in ["canary", "root", "work"] {
            std::fs::create_dir(top.path().join(dir)).unwrap();
        }
        std::fs::write(top.path().join("canary/file"), "alive").unwrap();
        let store = LocalStore::open(top.path().join("content")).unwrap();
        Self { top, store, layers: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn root(&self, name: &str) -> PathBuf {
        self.path("root").join(name)
    }

    fn canary(&self) -> Canary {
        Canary::of(&self.path("canary"))
    }

    async fn apply_to(&self, mounts: &[Mount], tar: &[u8]) -> Result<Applied> {
        let layer = store_layer(&self.store, media::OCI_LAYER_GZIP, tar).await;
        WalkingApplier::new(Arc::clone(&self.store) as _).apply(&layer, mounts, ApplyOptions::default()).await
    }

    /// Straight into a directory.
    async fn apply(&self, tar: &[u8]) -> Result<Applied> {
        self.apply_to(&[bind(&self.path("root"))], tar).await
    }

    /// As a layer of an overlay above the ones before.
    async fn apply_layer(&mut self, tar: &[u8]) -> Result<Applied> {
        let dir = self.path(&format!("layer{}", self.layers.len()));
        std::fs::create_dir(&dir).unwrap();
        let mounts = match self.layers.len() {
            0 => vec![bind(&dir)],
            _ => vec![self.overlay(&dir)],
        };
        let applied = self.apply_to(&mounts, tar).await?;
        self.layers.push(dir);
        Ok(applied)
    }

    fn overlay(&self, upper: &Path) -> Mount {
        let lowers: Vec<String> = self.layers.iter().rev().map(|l| l.display().to_string()).collect();
        overlay(vec![
            "index=off".into(),
            format!("workdir={}", self.path("work").display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lowers.join(":")),
        ])
    }

    /// All layers as a container would see them.
    fn view(&self) -> TempMount {
        let empty = self.path("empty");
        let _ = std::fs::create_dir(&empty);
        let lowers: Vec<String> = self.layers.iter().rev().map(|l| l.display().to_string()).collect();
        let option = format!("lowerdir={}:{}", lowers.join(":"), empty.display());
        TempMount::new(&[overlay(vec![option])]).unwrap()
    }
}

fn bind(dir: &Path) -> Mount {
    Mount {
        kind: "bind".into(),
        source: dir.display().to_string(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    }
}

fn overlay(options: Vec<String>) -> Mount {
    Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }
}

/// Everything about a tree that a stray chmod, chown, write or utime would change.
#[derive(Debug, PartialEq)]
struct Canary(BTreeMap<PathBuf, (String, Vec<u8>, Vec<CString>)>);

impl Canary {
    fn of(dir: &Path) -> Self {
        let mut seen = BTreeMap::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let body = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
            let xattrs = sys::fs::list_xattrs(std::fs::File::open(&path).unwrap()).unwrap();
            let (mode, owner, links) = (meta.mode(), (meta.uid(), meta.gid()), meta.nlink());
            let times = (meta.mtime(), meta.mtime_nsec());
            let facts = (format!("{mode:o} {owner:?} {links} {times:?}"), body, xattrs);
            seen.insert(path, facts);
        }
        Self(seen)
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

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
    let error =
        applier.apply(&layer, &[bind(&place.path("root"))], ApplyOptions { sync: true }).await.unwrap_err();
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
    let error =
        place.apply_to(&[tmpfs], &Archive::default().file("big", vec![1; 1 << 20]).end()).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("big"), "{error}");
}
