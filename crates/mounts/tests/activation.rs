//! Real mounts: activated, found again by another manager, taken back. They need root, and say so where they have not.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::path::{Path, PathBuf};

use mounts::{Activate, Manager};
use sys::mount::{UnmountFlags, is_mount_point, unmount_recursive};
use types::mount::Mount;
use types::{Class, Namespace, Scope};

/// A directory whose mounts go with it.
struct Area(tempfile::TempDir);

impl Area {
    fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("not run: mounts need root");
        }
        root.then(|| Self(tempfile::tempdir_in("/var/tmp").unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn manager(&self) -> Manager {
        Manager::open(self.path("state"), vec![self.0.path().to_owned()]).await.unwrap()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(unmount_recursive(self.0.path(), UnmountFlags::DETACH));
    }
}

fn scope() -> Scope {
    Scope::new("default".parse().unwrap())
}

fn namespace() -> Namespace {
    scope().namespace
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { kind: kind.to_owned(), source: source.to_owned(), target: String::new(), options }
}

fn request(name: &str, mounts: Vec<Mount>) -> Activate {
    Activate { name: name.to_owned(), mounts, ..Activate::default() }
}

/// Two filesystems, and an overlay of them that is left to the system.
fn layered() -> Vec<Mount> {
    vec![
        mount("tmpfs", "tmpfs", &["size=64k"]),
        mount("tmpfs", "tmpfs", &["size=64k"]),
        mount("format/overlay", "overlay", &["lowerdir={{ overlay 1 0 }}"]),
    ]
}

#[tokio::test]
async fn mounts_are_done_up_to_the_last_that_needs_it_and_the_rest_is_answered() {
    let Some(area) = Area::new() else { return };
    let manager = area.manager().await;
    let done = manager.activate(&scope(), request("a", layered())).await.unwrap();
    assert_eq!(done.active.len(), 2);
    let points: Vec<&str> = done.active.iter().map(|active| active.mount_point.as_str()).collect();
    assert!(points.iter().all(|point| is_mount_point(Path::new(point)).unwrap()));
    assert_eq!(
        done.system,
        [mount("overlay", "overlay", &[&format!("lowerdir={}:{}", points[1], points[0])])]
    );
    assert_eq!(manager.info(&namespace(), "a").unwrap(), done);
    assert_eq!(manager.list(&namespace()), std::slice::from_ref(&done));
    assert!(manager.list(&"other".parse().unwrap()).is_empty());
    let again = manager.activate(&scope(), request("a", layered())).await.unwrap_err();
    assert_eq!(
        (again.class(), again.to_string().as_str()),
        (Class::AlreadyExists, r#"mount "a": already exists"#)
    );

    manager.deactivate(&namespace(), "a").await.unwrap();
    assert!(!Path::new(points[0]).exists());
    let gone = manager.info(&namespace(), "a").unwrap_err();
    assert_eq!((gone.class(), gone.to_string().as_str()), (Class::NotFound, r#"mount "a" not found"#));
    assert_eq!(manager.deactivate(&namespace(), "a").await.unwrap_err().class(), Class::NotFound);
    assert_eq!(std::fs::read_dir(area.path("state/t")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(area.path("state/records")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_needs_nothing_of_us_is_not_implemented() {
    let Some(area) = Area::new() else { return };
    let manager = area.manager().await;
    let error =
        manager.activate(&scope(), request("a", vec![mount("tmpfs", "tmpfs", &[])])).await.unwrap_err();
    assert_eq!((error.class(), error.to_string().as_str()), (Class::Unimplemented, "not implemented"));
    assert!(manager.held().is_empty());
}

#[tokio::test]
async fn for_a_moments_use_everything_is_mounted_and_one_bind_is_left() {
    let Some(area) = Area::new() else { return };
    let manager = area.manager().await;
    let temporary =
        Activate { temporary: true, ..request("a", vec![mount("tmpfs", "tmpfs", &["size=64k"])]) };
    let done = manager.activate(&scope(), temporary).await.unwrap();
    assert_eq!(done.system, [mount("bind", &done.active[0].mount_point, &["rbind"])]);
    manager.deactivate(&namespace(), "a").await.unwrap();
}

#[tokio::test]
async fn a_mount_that_fails_takes_those_before_it_back() {
    let Some(area) = Area::new() else { return };
    let manager = area.manager().await;
    let mut mounts = layered();
    mounts.insert(1, mount("nosuchfs", "none", &[]));
    assert!(manager.activate(&scope(), request("a", mounts)).await.is_err());
    let mut mounts = layered();
    mounts[2].options = vec!["lowerdir={{ mount 7 }}".to_owned()];
    let error = manager.activate(&scope(), request("a", mounts)).await.unwrap_err();
    assert!(error.to_string().contains("index out of bounds: 7, has 2 active mounts"), "{error}");
    assert!(manager.held().is_empty());
    assert_eq!(std::fs::read_dir(area.path("state/t")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(area.path("state/records")).unwrap().count(), 0);
    // The name is free.
    manager.activate(&scope(), request("a", layered())).await.unwrap();
    manager.deactivate(&namespace(), "a").await.unwrap();
}

#[tokio::test]
async fn the_next_daemon_keeps_what_is_mounted_and_takes_back_what_is_not_complete() {
    let Some(area) = Area::new() else { return };
    let leased = scope().with_lease("l");
    let first = area.manager().await;
    let labels = [("containerd.io/gc.bref.container".to_owned(), "c1".to_owned())].into();
    let kept = first.activate(&leased, Activate { labels, ..request("kept", layered()) }).await.unwrap();
    let lost = first.activate(&scope(), request("lost", layered())).await.unwrap();
    let half = first.activate(&scope(), request("half", layered())).await.unwrap();
    drop(first);
    // One was unmounted by somebody, of one the record says that the daemon ended in the middle.
    sys::mount::unmount(Path::new(&lost.active[1].mount_point), UnmountFlags::empty()).unwrap();
    let record = area.path("state/records/3.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"complete\":true", "\"complete\":false")).unwrap();

    let second = area.manager().await;
    assert_eq!(second.list(&namespace()), std::slice::from_ref(&kept));
    let held = second.held().remove(0);
    assert_eq!((held.name.as_str(), held.lease.as_deref()), ("kept", Some("l")));
    assert_eq!(held.labels.get("containerd.io/gc.bref.container").map(String::as_str), Some("c1"));
    assert!(
        !Path::new(&half.active[0].mount_point).exists() && !Path::new(&lost.active[0].mount_point).exists()
    );
    // Ids are never used twice.
    let next = second.activate(&scope(), request("half", layered())).await.unwrap();
    assert_ne!(next.active[0].mount_point, half.active[0].mount_point);
    let ids: Vec<u64> = second.held().iter().map(|held| held.id).collect();
    second.collect(&ids).await.unwrap();
    assert!(second.held().is_empty());
    assert_eq!(std::fs::read_dir(area.path("state/t")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_busy_is_told_and_taken_back_by_a_later_collection() {
    let Some(area) = Area::new() else { return };
    let manager = area.manager().await;
    let done = manager.activate(&scope(), request("a", layered())).await.unwrap();
    let file = std::fs::File::create(Path::new(&done.active[0].mount_point).join("open")).unwrap();
    let error = manager.deactivate(&namespace(), "a").await.unwrap_err();
    assert!(error.to_string().starts_with(r#"deactivate mount "a": unmount"#), "{error}");
    drop(file);
    manager.collect(&[]).await.unwrap();
    assert_eq!(std::fs::read_dir(area.path("state/t")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_becomes_a_filesystem_on_a_device() {
    let Some(area) = Area::new() else { return };
    if !Path::new("/dev/loop-control").exists()
        || std::process::Command::new("mkfs.ext4").arg("-V").output().is_err()
    {
        eprintln!("not run: no loop devices or no mkfs.ext4 here");
        return;
    }
    let manager = area.manager().await;
    let image = area.path("fs.img");
    let mkdir = format!("X-containerd.mkdir.path={}", area.path("state/t").display());
    let mounts = vec![
        mount("mkfs/loop", &image.to_string_lossy(), &["X-containerd.mkfs.size=4MiB"]),
        mount("format/ext4", "{{ mount 0 }}", &[]),
        mount("format/mkdir/bind", "{{ mount 1 }}/inside", &[&format!("{mkdir}/1/1/inside:755"), "bind"]),
    ];
    let done = manager.activate(&scope(), request("a", mounts)).await.unwrap();
    let device = std::fs::read_link(&done.active[0].mount_point).unwrap();
    assert!(device.starts_with("/dev"), "{device:?}");
    let inside = format!("{}/inside", done.active[1].mount_point);
    assert_eq!(done.system, [mount("bind", &inside, &["bind"])]);
    std::fs::write(format!("{inside}/file"), "kept").unwrap();
    manager.deactivate(&namespace(), "a").await.unwrap();

    // The filesystem is not made anew. The option `loop` brings a device of its own.
    let again = Activate {
        temporary: true,
        ..request("b", vec![mount("ext4", &image.to_string_lossy(), &["loop", "ro"])])
    };
    let done = manager.activate(&scope(), again).await.unwrap();
    let file = format!("{}/inside/file", done.active[0].mount_point);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
    manager.deactivate(&namespace(), "b").await.unwrap();
}
