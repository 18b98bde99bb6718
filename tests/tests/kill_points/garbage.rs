//! A collection that is cut off: what is alive stays, what is dead goes with the next one.

use std::collections::BTreeSet;

use containerd_tests::binaries::{self, Suite};
use containerd_tests::rpc::{Blob, Labels};
use containerd_tests::{Daemon, Ledger, Rpc, eventually, eventually_within};

const ROOT: &str = "containerd.io/gc.root";

/// The blobs on the disk.
fn stored(daemon: &Daemon) -> BTreeSet<String> {
    let dir = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    names.map(|name| format!("sha256:{}", name.file_name().to_string_lossy())).collect()
}

/// An image whose blobs refer to each other, and a root among the snapshots with a child.
async fn make_live(rpc: &Rpc) -> BTreeSet<String> {
    rpc.create_lease("making").await.unwrap();
    let leased = rpc.leased("making");
    let layer = Blob::new("live layer");
    let manifest = Blob::new("live manifest").label("containerd.io/gc.ref.content.l.0", &layer.digest);
    for blob in [&layer, &manifest] {
        leased.write(&blob.digest, blob).await.unwrap();
    }
    rpc.create_image("live", &manifest.digest, manifest.data.len()).await.unwrap();
    let root = || Labels::from([(ROOT.to_owned(), "yes".to_owned())]);
    leased.prepare("extract", "", Labels::new()).await.unwrap();
    leased.commit("layer", "extract", Labels::new()).await.unwrap();
    rpc.prepare("live", "layer", root()).await.unwrap();
    [layer.digest, manifest.digest].into()
}

/// Blobs, snapshots and an unfinished write that only one lease holds.
async fn make_dead(rpc: &Rpc) {
    rpc.create_lease("dying").await.unwrap();
    let leased = rpc.leased("dying");
    for number in 0..10 {
        leased.write(&format!("dead {number}"), &Blob::new(format!("dead {number}"))).await.unwrap();
        leased.prepare(&format!("dead {number}"), "layer", Labels::new()).await.unwrap();
    }
    leased.write_part("unfinished", b"dead").await.unwrap();
}

/// A daemon that dies at `point` in the collection that the end of a lease asks for.
pub fn survive(point: &str) {
    let daemon = Daemon::prepare(binaries::debug(), Suite::Ours).with_own_sockets();
    daemon.launch();
    let before = Ledger::take(&daemon);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Each daemon has a client of its own: an old connection would tell of the death before.
    let connect = || runtime.block_on(async { Rpc::new(&daemon.address(), daemon.namespace()) });
    let rpc = connect();
    let live = runtime.block_on(async {
        let live = make_live(&rpc).await;
        rpc.delete_lease("making", true).await.unwrap();
        make_dead(&rpc).await;
        live
    });
    daemon.kill();
    daemon.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
    let rpc = connect();
    let died = runtime.block_on(rpc.delete_lease("dying", true));
    let what = format!("{point}: the daemon dies: {died:?}");
    eventually_within(std::time::Duration::from_secs(20), &what, || daemon.ended().is_some());
    daemon.launch();
    let rpc = connect();
    daemon.collect_garbage();
    runtime.block_on(async {
        assert_eq!(rpc.blobs().await.unwrap().into_iter().collect::<BTreeSet<_>>(), live, "{point}");
        assert_eq!(rpc.snapshots().await.unwrap(), ["layer", "live"], "{point}");
        assert_eq!(rpc.ingests().await.unwrap(), Vec::<String>::new(), "{point}");
        assert_eq!(rpc.leases().await.unwrap(), Vec::<String>::new(), "{point}");
        rpc.image("live").await.unwrap();
        rpc.mounts("live").await.unwrap();
    });
    eventually(&format!("{point}: dead blobs leave the disk"), || stored(&daemon) == live);
    runtime.block_on(async {
        rpc.delete_image("live", false).await.unwrap();
        rpc.remove_snapshot("live").await.unwrap();
    });
    Ledger::check(&before, &daemon);
    eventually(&format!("{point}: nothing is left"), || stored(&daemon).is_empty());
}
