//! An overlay's upper directory alone tells what two whole trees tell.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sys::mount::TempMount;
use types::mount::Mount;
use types::oci::image::media;

use crate::forest::{Rng, disturb};
use crate::{Place, bind, entries, is_root};

fn overlay(options: Vec<String>) -> Mount {
    Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }
}

fn active(place: &Place, upper: &Path, lowers: &str) -> Mount {
    overlay(vec![
        "index=off".into(),
        format!("workdir={}", place.path("work").display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={lowers}"),
    ])
}

/// The same two filesystems as nothing but directories.
async fn by_walking(place: &Place, lower: &[Mount], upper: &[Mount]) -> Vec<u8> {
    let lower = TempMount::new(&sys::mount::read_only(lower)).unwrap();
    let upper = TempMount::new(&sys::mount::read_only(upper)).unwrap();
    let tar = place.plain(&[bind(lower.path())], &[bind(upper.path())]).await;
    lower.close().unwrap();
    upper.close().unwrap();
    tar
}

#[tokio::test]
async fn the_upper_directory_alone_gives_the_layer_that_both_trees_give() {
    if !is_root() {
        return;
    }
    for seed in 100..107 {
        let place = Place::new();
        let mut rng = Rng::new(seed);
        let (base, middle, top) = (place.dir("base"), place.dir("middle"), place.dir("top"));
        place.dir("work");
        (0..30).for_each(|_| disturb(&base, &mut rng, true));
        let one = [bind(&base)];
        let two = [active(&place, &middle, &base.display().to_string())];
        let mount = TempMount::new(&two).unwrap();
        (0..15).for_each(|_| disturb(mount.path(), &mut rng, true));
        mount.close().unwrap();
        assert_same(&place, seed, &one, &two).await;
        let lowers = format!("{}:{}", middle.display(), base.display());
        let below = [overlay(vec![format!("lowerdir={lowers}")])];
        let three = [active(&place, &top, &lowers)];
        let mount = TempMount::new(&three).unwrap();
        (0..15).for_each(|_| disturb(mount.path(), &mut rng, true));
        mount.close().unwrap();
        assert_same(&place, seed, &below, &three).await;
        // A committed layer on the one below it, as `snapshots diff` of a committed snapshot asks for.
        let all = [overlay(vec![format!("lowerdir={}:{lowers}", top.display())])];
        assert_same(&place, seed, &below, &all).await;
        // More than one layer apart: no single directory tells.
        assert_same(&place, seed, &one, &all).await;
    }
}

async fn assert_same(place: &Place, seed: u64, lower: &[Mount], upper: &[Mount]) {
    let (guided, walked) = (place.plain(lower, upper).await, by_walking(place, lower, upper).await);
    assert!(guided == walked, "seed {seed}:\n{:?}\n{:?}", entries(&guided), entries(&walked));
}

#[tokio::test]
async fn what_is_opaque_hides_each_name_below() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let (base, top) = (place.dir("base"), place.dir("top"));
    place.dir("work");
    for dir in ["again/deep", "kept"] {
        std::fs::create_dir_all(base.join(dir)).unwrap();
    }
    for file in ["again/old", "again/deep/x", "kept/x"] {
        std::fs::write(base.join(file), "x").unwrap();
    }
    let lower = [bind(&base)];
    let upper = [active(&place, &top, &base.display().to_string())];
    let mount = TempMount::new(&upper).unwrap();
    std::fs::remove_dir_all(mount.path().join("again")).unwrap();
    std::fs::create_dir(mount.path().join("again")).unwrap();
    std::fs::write(mount.path().join("again/new"), "x").unwrap();
    mount.close().unwrap();
    std::fs::set_permissions(top.join("again"), PermissionsExt::from_mode(0o755)).unwrap();
    let tar = place.plain(&lower, &upper).await;
    let names: Vec<String> = entries(&tar).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["again/", "again/.wh.deep", "again/new", "again/.wh.old"]);
    assert_same(&place, 0, &lower, &upper).await;
}

#[tokio::test]
async fn nothing_is_mounted_afterwards() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let (base, top) = (place.dir("base"), place.dir("top"));
    place.dir("work");
    let upper = [active(&place, &top, &base.display().to_string())];
    place.compare(&[bind(&base)], &upper, media::OCI_LAYER_GZIP).await.unwrap();
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounted.contains(&place.path("").display().to_string()), "{mounted}");
}
