//! What differs between a snapshot and its parent is, to the byte, the layer that upstream makes of it.

use std::path::Path;
use std::sync::Arc;

use content::local::LocalStore;
use content::store::read_blob;
use diff::tar::Reader;
use diff::{CompareOptions, Differ as _, WalkingDiffer};
use sys::mount::TempMount;
use types::mount::Mount;
use types::oci::image::{chain_id, media};
use types::{Digest, Result};

use crate::daemon::{Upstream, upstream_bin};
use crate::forest::{Rng, disturb};
use crate::layers::{base, image, second, third};

/// What `ctr snapshots mounts` prints for one mount.
fn parse(command: &str) -> Mount {
    let words: Vec<&str> = command.split_whitespace().collect();
    let ["mount", "-t", kind, source, _, "-o", options] = words[..] else { panic!("{command}") };
    let options = options.split(',').map(str::to_owned).collect();
    Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
}

/// Changes that the random ones do not make.
fn disturb_more(root: &Path) {
    std::fs::remove_dir_all(root.join("opaque")).unwrap();
    std::fs::create_dir_all(root.join("opaque/sub")).unwrap();
    std::fs::write(root.join("opaque/sub/newest"), "x").unwrap();
    std::fs::hard_link(root.join("hard"), root.join("etc/harder")).unwrap();
    std::fs::rename(root.join("etc/c"), root.join("usr/c")).unwrap();
    std::fs::write(root.join("caps"), "capabilities are lost with the content").unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    std::fs::create_dir(root.join("d".repeat(90))).unwrap();
    std::fs::write(root.join(&long), vec![b'x'; 1_000_000]).unwrap();
    std::fs::File::create(root.join("sparse-new")).unwrap().set_len(3_000_000).unwrap();
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar);
    std::iter::from_fn(|| reader.next_entry().unwrap())
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect()
}

async fn ours(top: &Path, lower: &[Mount], upper: &[Mount]) -> Result<Vec<u8>> {
    let store = LocalStore::open(top.join("ours")).unwrap();
    let options = CompareOptions { media_type: media::OCI_LAYER.into(), ..Default::default() };
    let made = WalkingDiffer::new(Arc::clone(&store) as _).compare(lower, upper, options).await?;
    read_blob(&*store, &made.digest, 1 << 30).await
}

#[tokio::test]
async fn a_snapshot_differs_from_its_parent_by_upstreams_very_bytes() {
    let Some(bin) = upstream_bin() else { return };
    let top = tempfile::tempdir().unwrap();
    let layers = [base(), second(), third()];
    let chain = chain_id(&layers.each_ref().map(|layer| Digest::of(layer))).unwrap();
    let archive = top.path().join("image.tar");
    std::fs::write(&archive, image(&layers)).unwrap();
    let upstream = Upstream::start(bin, top.path());
    let archive = archive.to_str().unwrap();
    for snapshotter in ["overlayfs", "native"] {
        upstream.ctr(&["images", "import", "--local", "--snapshotter", snapshotter, archive]);
        for seed in 0..6 {
            let (key, view) = (format!("key{seed}"), format!("view{seed}"));
            let sn =
                |args: &[&str]| upstream.ctr(&[&["snapshots", "--snapshotter", snapshotter], args].concat());
            sn(&["prepare", &key, chain.as_str()]);
            sn(&["view", &view, chain.as_str()]);
            let mounts = |key: &str| [parse(&sn(&["mounts", "/x", key]))];
            let (lower, upper) = (mounts(&view), mounts(&key));
            let mount = TempMount::new(&upper).unwrap();
            let mut rng = Rng::new(seed);
            (0..25).for_each(|_| disturb(mount.path(), &mut rng, true));
            if seed % 2 == 0 {
                disturb_more(mount.path());
            }
            mount.close().unwrap();
            let args =
                ["snapshots", "--snapshotter", snapshotter, "diff", "--media-type", media::OCI_LAYER, &key];
            let theirs = upstream.command(&args).stdout;
            let ours = ours(top.path(), &lower, &upper).await.unwrap();
            assert!(theirs.len() > 2000, "{snapshotter} {seed}");
            let at = ours.iter().zip(&theirs).position(|(one, two)| one != two);
            let same = at.is_none() && ours.len() == theirs.len();
            assert!(same, "{snapshotter}, seed {seed}, byte {at:?}: {:?}", names(&ours));
        }
    }
}
