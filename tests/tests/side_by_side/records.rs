//! A pull leaves the same records in our daemon as in containerd 2.3, whoever pulls and in whatever way: all that the API
//! lists is read by a program and compared entry by entry. Both daemons pull from one registry.

use containerd_tests::archive::{gzip, hex};
use containerd_tests::binaries::{self, Binaries, Suite};
use containerd_tests::tar::{self, Entry};
use containerd_tests::{Daemon, Records};
use registry::fake::Fake;
use serde_json::{Value, json};

const REPOSITORY: &str = "library/records";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The layers of every platform's image, whose top one differs: implied directories, links, whiteouts, an opaque
/// directory; in each packing.
fn layers(architecture: &str) -> Vec<(Vec<Entry>, &'static str)> {
    vec![
        (
            vec![
                Entry::dir("etc").mode(0o750),
                Entry::file("etc/a", "1"),
                Entry::dir("old"),
                Entry::file("old/x", "2"),
            ],
            "+gzip",
        ),
        (vec![Entry::file("etc/b", vec![3; 70_000]), Entry::file("etc/.wh.a", "")], "+zstd"),
        // Not to a file of a layer below: 2.3 unpacks no such layer.
        (vec![Entry::file("c", "c"), Entry::hardlink("again", "c"), Entry::symlink("link", "etc")], ""),
        (
            vec![
                Entry::dir("old"),
                Entry::file("old/.wh..wh..opq", ""),
                Entry::file("old/new", architecture),
            ],
            "+gzip",
        ),
    ]
}

fn blob(registry: &Fake, media_type: &str, bytes: Vec<u8>) -> Value {
    let size = bytes.len();
    let digest = registry.add_blob(REPOSITORY, bytes);
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// An image for a platform, as an index names it.
fn image(registry: &Fake, architecture: &str) -> Value {
    let (mut diff_ids, mut blobs) = (Vec::new(), Vec::new());
    for (entries, packing) in layers(architecture) {
        let tar = tar::archive(&entries);
        diff_ids.push(format!("sha256:{}", hex(&tar)));
        let bytes = match packing {
            "+gzip" => gzip(&tar),
            "+zstd" => zstd::encode_all(&tar[..], 1).expect("writing to memory"),
            _ => tar,
        };
        blobs.push(blob(registry, &format!("{LAYER}{packing}"), bytes));
    }
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs});
    let config = blob(registry, CONFIG, config.to_string().into_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs});
    let manifest = manifest.to_string();
    let size = manifest.len();
    let digest = registry.add_manifest(REPOSITORY, None, MANIFEST, manifest).digest;
    let platform = json!({"os": "linux", "architecture": architecture});
    json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
}

/// An index of images for three platforms; its name.
fn publish(registry: &Fake) -> String {
    let manifests = ["amd64", "arm64", "s390x"].map(|architecture| image(registry, architecture));
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": {"org.opencontainers.image.version": "1"},
    });
    registry.add_manifest(REPOSITORY, Some("1"), INDEX, index.to_string());
    registry.reference(REPOSITORY, "1")
}

/// What a pull leaves; then it is removed, which must leave nothing.
fn pulled(daemon: &Daemon, client: &Binaries, flags: &[&str], name: &str) -> Records {
    let words = [&["images", "pull", "--plain-http", "--label", "mine=yes"], flags, &[name]].concat();
    daemon.ctr_of(client, &words).ok();
    let records = Records::take(daemon);
    daemon.ctr_of(client, &["images", "rm", "--sync", name]).ok();
    let left = Records::take(daemon);
    assert!(left.0.is_empty(), "{words:?} leaves {left:#?}");
    records
}

const FLAGS: [&[&str]; 6] = [
    &[],
    &["--platform", "linux/arm64"],
    &["--all-platforms"],
    &["--local"],
    &["--local", "--platform", "linux/arm64"],
    &["--local", "--all-platforms"],
];

#[test]
fn a_pull_leaves_the_same_records_whoever_pulls() {
    let Some(new) = binaries::reference() else { return };
    let registry = Fake::start();
    let name = publish(&registry);
    let ours = Daemon::start_of(binaries::tested(), Suite::Ours);
    let theirs = Daemon::start_of(new.clone(), Suite::Upstream);
    let mut wrong = String::new();
    let mut compare = |who: &str, flags: &[&str], found: &Records, wanted: &Records| {
        let differences = found.differences(wanted);
        if !differences.is_empty() {
            wrong += &format!("{who} {flags:?}, ours and theirs:\n{differences}\n");
        }
    };
    for flags in FLAGS {
        let wanted = pulled(&theirs, &new, flags, &name);
        let kinds = ["image", "blob", "snapshot", "ingest", "lease"].map(|kind| wanted.of(kind).len());
        assert!(kinds[0] == 1 && kinds[1] >= 7 && kinds[3..] == [0, 0], "{flags:?}: {kinds:?}");
        // All platforms through the daemon are not unpacked.
        assert!(kinds[2] >= 4 || flags == ["--all-platforms"], "{flags:?}: {kinds:?}");
        println!("{flags:?}: {} images, {} blobs, {} snapshots", kinds[0], kinds[1], kinds[2]);
        compare("Go ctr 2.3", flags, &pulled(&ours, &new, flags, &name), &wanted);
        let found = pulled(&ours, &binaries::tested(), flags, &name);
        // Go's client, unpacking by itself, leaves the labels of the daemon's unpacker out.
        let found = if flags.contains(&"--local") {
            found.without("snapshot", "label containerd.io/snapshot")
        } else {
            found
        };
        compare("our ctr", flags, &found, &wanted);
    }
    if let Some(old) = binaries::peer() {
        let wanted = pulled(&theirs, &old, &[], &name);
        compare("Go ctr 1.6", &[], &pulled(&ours, &old, &[], &name), &wanted);
    }
    assert!(wrong.is_empty(), "{wrong}");
}
