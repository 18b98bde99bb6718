//! Many things. For figures:
//! `GC_OBJECTS=100000 cargo test --release -p containerd-metadata gc::tests::scale -- --nocapture`

use types::Digest;

use super::{NS, World};
use crate::content::BlobRecord;
use crate::fakes::{SNAPSHOTTER, container, image, labels};
use crate::schema::{BLOB_HOLDERS, BLOBS, CHILDREN, CONTAINERS, IMAGES, SNAPSHOTS};
use crate::snapshots::SnapshotRecord;
use crate::tx::Tx;

/// An image of three blobs, its layer's snapshot, and a container on it, for each number. The dead ones lack image and
/// container.
fn write(tx: &Tx<'_>, numbers: std::ops::Range<usize>, alive: bool) -> types::Result<()> {
    for n in numbers {
        let digest = |kind: &str| Digest::of(format!("{kind}-{n}").as_bytes());
        let (layer, config, manifest) = (digest("layer"), digest("config"), digest("manifest"));
        let refers = labels(&[
            ("containerd.io/gc.ref.content.config", config.as_str()),
            ("containerd.io/gc.ref.content.l.0", layer.as_str()),
        ]);
        let chain = format!("sha256:{n:064x}");
        let unpacked = labels(&[("containerd.io/gc.ref.snapshot.memory", &chain)]);
        let uncompressed = labels(&[("containerd.io/uncompressed", layer.as_str())]);
        for (blob, labels) in [(&layer, uncompressed), (&config, unpacked), (&manifest, refers)] {
            tx.put(BLOBS, (NS, blob.as_str()), BlobRecord::new(1, labels))?;
            tx.mark(BLOB_HOLDERS, (blob.as_str(), NS))?;
        }
        let rw = format!("container-{n}");
        for (key, parent) in [(&chain, ""), (&rw, chain.as_str())] {
            let backend_key = format!("{NS}/{n}/{key}");
            let row = SnapshotRecord { backend_key, parent: parent.to_owned(), ..SnapshotRecord::default() };
            tx.put(SNAPSHOTS, (NS, SNAPSHOTTER, key), row)?;
        }
        tx.mark(CHILDREN, (NS, SNAPSHOTTER, &chain, &rw))?;
        if alive {
            let name = format!("registry.example.com/team/image-{n}:latest");
            tx.put(IMAGES, (NS, &name), image(&name, &manifest).into())?;
            let container = types::container::Container {
                image: name,
                snapshotter: SNAPSHOTTER.to_owned(),
                snapshot_key: rw.clone(),
                spec: Some(types::Any { type_url: "spec".to_owned(), value: vec![b' '; 5000] }),
                ..container(&rw)
            };
            tx.put(CONTAINERS, (NS, &rw), container.into())?;
        }
    }
    Ok(())
}

/// Kilobytes of this process that are resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn many_things_are_marked_and_many_dead_ones_swept() {
    let world = World::new();
    let objects: usize = std::env::var("GC_OBJECTS").ok().map_or(1400, |count| count.parse().unwrap());
    // Seven rows each; a seventh of the images are dead, of five.
    let count = objects / 7;
    for from in (0..count).step_by(1000) {
        let until = count.min(from + 1000);
        world.db.mutate(move |tx| write(tx, from..until, true)).await.unwrap();
    }
    let before = resident();
    for _ in 0..2 {
        let statistics = world.db.collect(&|_, _| ()).await.unwrap();
        println!("{} rows, all alive: {:?}", statistics.rows, statistics.duration);
        assert_eq!((statistics.rows, statistics.removed), (count * 7, 0));
    }
    println!("most memory ever: {} KiB before, {} KiB after", before, resident());
    let dead = count / 7;
    for from in (0..dead).step_by(1000) {
        let (from, until) = (count + from, count + dead.min(from + 1000));
        world.db.mutate(move |tx| write(tx, from..until, false)).await.unwrap();
    }
    let commits = world.db.commits();
    let marked = world.marked().await;
    assert_eq!(marked.dead.len(), dead * 5);
    let begun = std::time::Instant::now();
    let (statistics, _) = marked.sweep(&|_, _| ()).await.unwrap();
    assert_eq!(statistics.removed, dead * 5);
    println!(
        "{} rows removed in {:?}, {} commits",
        statistics.removed,
        begun.elapsed(),
        world.db.commits() - commits
    );
}
