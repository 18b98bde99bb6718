//! The same three layers unpacked by upstream's containerd and by us are the same tree, entry by entry.
//!
//! `CONTAINERD_UPSTREAM_BIN` names the directory of upstream's `containerd` and `ctr` (2.3.4); without it, and without
//! root, nothing is compared and the test says so.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

#[path = "../archive/mod.rs"]
mod archive;
mod daemon;
mod diffs;
#[path = "../comparison/forest.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod forest;
mod layers;
mod tree;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::local::LocalStore;
use diff::{Applier as _, ApplyOptions, WalkingApplier};
use sys::mount::TempMount;
use types::mount::Mount;
use types::oci::image::{chain_id, media};
use types::{Digest, Result};

use archive::{gzip, store_layer};
use daemon::{Upstream, upstream_bin};
use layers::{base, image, odd_base, odd_layers, second, third};
use tree::{Facts, compare, differences, walk};

fn mount(kind: &str, source: &Path, options: Vec<String>) -> Mount {
    Mount { kind: kind.into(), source: source.display().to_string(), target: String::new(), options }
}

/// The tree that we make of the layers, as an overlay.
async fn ours_as_overlay(top: &Path, layers: &[Vec<u8>]) -> Result<BTreeMap<PathBuf, Facts>> {
    let (store, work) = (LocalStore::open(top.join("content")).unwrap(), top.join("work"));
    std::fs::create_dir(&work).unwrap();
    let applier = WalkingApplier::new(Arc::clone(&store) as _);
    let mut dirs: Vec<String> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let dir = top.join(format!("layer{at}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        let lowers = dirs.iter().rev().cloned().collect::<Vec<_>>().join(":");
        let mounts = if dirs.is_empty() {
            mount("bind", &dir, vec!["rw".into(), "rbind".into()])
        } else {
            let (work, upper) =
                (format!("workdir={}", work.display()), format!("upperdir={}", dir.display()));
            mount("overlay", Path::new("overlay"), vec![work, upper, format!("lowerdir={lowers}")])
        };
        let blob = store_layer(&store, media::OCI_LAYER_GZIP, &gzip(layer)).await;
        let applied = applier.apply(&blob, &[mounts], ApplyOptions::default()).await?;
        assert_eq!(applied.uncompressed.digest, Digest::of(layer));
        dirs.push(dir.display().to_string());
    }
    dirs.reverse();
    let view = vec![mount("overlay", Path::new("overlay"), vec![format!("lowerdir={}", dirs.join(":"))])];
    let view = TempMount::new(&view).unwrap();
    let tree = walk(view.path());
    view.close().unwrap();
    Ok(tree)
}

/// The same in one directory, layer onto layer.
async fn ours_in_place(top: &Path, layers: &[Vec<u8>]) -> Result<BTreeMap<PathBuf, Facts>> {
    let (store, dir) = (LocalStore::open(top.join("content")).unwrap(), top.join("flat"));
    std::fs::create_dir(&dir).unwrap();
    let applier = WalkingApplier::new(Arc::clone(&store) as _);
    for layer in layers {
        let blob = store_layer(&store, media::OCI_LAYER, layer).await;
        let bind = mount("bind", &dir, vec!["rw".into(), "rbind".into()]);
        applier.apply(&blob, &[bind], ApplyOptions { sync: true, ..ApplyOptions::default() }).await?;
    }
    Ok(walk(&dir))
}

#[tokio::test]
async fn three_layers_are_unpacked_as_upstream_does() {
    let Some(bin) = upstream_bin() else { return };
    let top = tempfile::tempdir().unwrap();
    let layers = [base(), second(), third()];
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let chain = chain_id(&diff_ids).unwrap();
    let archive = top.path().join("image.tar");
    std::fs::write(&archive, image(&layers)).unwrap();
    let upstream = Upstream::start(bin, top.path());
    let theirs = upstream.unpack(&archive, "overlayfs", &chain);
    assert!(theirs.len() > 40, "{theirs:?}");
    let overlay = tempfile::tempdir().unwrap();
    compare(&ours_as_overlay(overlay.path(), &layers).await.unwrap(), &theirs, "overlayfs");
    let theirs = upstream.unpack(&archive, "native", &chain);
    let flat = tempfile::tempdir().unwrap();
    // Upstream's native snapshotter copies a symbolic link once for each of its names.
    let apart = |mut tree: BTreeMap<PathBuf, Facts>| {
        tree.iter_mut().filter(|(_, f)| f.link.is_some()).for_each(|(path, f)| f.same_as.clone_from(path));
        tree
    };
    compare(&apart(ours_in_place(flat.path(), &layers).await.unwrap()), &apart(theirs), "native");
}

/// SEC-087, 118: of every odd layer we make what upstream's applier makes of it on a whole filesystem (its native
/// snapshotter), or refuse it, and the same whether an overlay or a directory is written.
#[tokio::test]
async fn odd_layers_make_upstreams_tree_or_are_refused() {
    let Some(bin) = upstream_bin() else { return };
    let top = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(bin, top.path());
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for (what, layer) in odd_layers() {
        let layers = [odd_base(), layer.end()];
        let chain = chain_id(&[Digest::of(&layers[0]), Digest::of(&layers[1])]).unwrap();
        let archive = top.path().join("image.tar");
        std::fs::write(&archive, image(&layers)).unwrap();
        let theirs = upstream.try_unpack(&archive, &chain);
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = [
            ("overlay", ours_as_overlay(one.path(), &layers).await),
            ("in place", ours_in_place(two.path(), &layers).await),
        ];
        for (how, ours) in ours {
            match (ours, &theirs) {
                (Ok(ours), Some(theirs)) => match differences(&ours, theirs) {
                    none if none.is_empty() => equal += 1,
                    some => wrong.push(format!("{what} ({how}):\n  {}", some.join("\n  "))),
                },
                (Err(error), Some(_)) => eprintln!("stricter: {what} ({how}): {error}"),
                (Ok(_), None) => eprintln!("more lenient: {what} ({how})"),
                (Err(_), None) => {}
            }
        }
    }
    eprintln!("{equal} equal trees");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
