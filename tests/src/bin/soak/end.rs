//! When it is over: what must be there is there, nothing else is, and all of it can be removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::containerd::v1::types::Status as TaskStatus;
use containerd_tests::rpc::{Answer, Blob};
use containerd_tests::{Ledger, Rpc, eventually, proc};

use crate::arena::{Arena, resident};
use crate::model::Model;
use crate::raw::{EXPIRES, EXPIRY};

/// Compares the daemon with what the clients believe, then removes everything.
pub fn check(arena: &Arena, models: &[Model]) {
    // Leases that expire do so before the last collection.
    std::thread::sleep(EXPIRY + Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let namespaces: BTreeSet<&str> = models.iter().map(|model| model.namespace.as_str()).collect();
    for namespace in &namespaces {
        let models: Vec<&Model> = models.iter().filter(|model| model.namespace == *namespace).collect();
        let rpc = runtime.block_on(async { Rpc::new(&arena.daemon.address(), namespace) });
        for model in &models {
            println!("{namespace}: {}", model.size());
        }
        runtime.block_on(drop_strange_leases(&rpc, &models));
        collect(arena);
        runtime.block_on(compare(arena, &rpc, &models)).expect("the lists of what is there");
    }
    let connect =
        |model: &Model| runtime.block_on(async { Rpc::new(&arena.daemon.address(), &model.namespace) });
    for model in models {
        runtime.block_on(remove_holders(&connect(model), model)).expect("everything can be removed");
    }
    collect(arena);
    for model in models {
        runtime.block_on(remove_snapshots(&connect(model), model)).expect("snapshots can be removed");
    }
    collect(arena);
    Ledger::check(&arena.before, &arena.daemon);
    let blobs = arena.daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    eventually("no blob is left", || std::fs::read_dir(&blobs).is_ok_and(|entries| entries.count() == 0));
    idle(arena);
}

fn collect(arena: &Arena) {
    let begun = Instant::now();
    arena.daemon.collect_garbage();
    println!("a last collection took {:?}", begun.elapsed());
}

/// A client whose daemon died could not delete its lease; with Go's that is a day's.
async fn drop_strange_leases(rpc: &Rpc, models: &[&Model]) {
    let known: BTreeSet<&String> = models.iter().flat_map(|model| model.leases.keys()).collect();
    let strange = |id: &String| !known.contains(id) && !id.contains(EXPIRES);
    let strange: Vec<String> = rpc.leases().await.expect("leases").into_iter().filter(strange).collect();
    println!("leases that dead commands left: {}", strange.len());
    for lease in strange {
        rpc.delete_lease(&lease, false).await.expect("a lease is deleted");
    }
}

async fn compare(arena: &Arena, rpc: &Rpc, models: &[&Model]) -> Answer<()> {
    let all = |of: &dyn Fn(&Model) -> BTreeSet<String>| models.iter().flat_map(|model| of(model)).collect();
    same(arena, "image", rpc.images().await?, all(&|model| model.images.keys().cloned().collect()));
    same(arena, "lease", rpc.leases().await?, all(&|model| model.leases.keys().cloned().collect()));
    let containers = || all(&|model| model.containers.keys().cloned().collect());
    same(arena, "container", rpc.containers().await?, containers());
    same(arena, "task", rpc.tasks().await?, containers());
    same(arena, "snapshot", rpc.snapshots().await?, all(&Model::all_snapshots));
    same(arena, "ingest", rpc.ingests().await?, all(&Model::ingests));
    same(arena, "blob", rpc.blobs().await?, all(&Model::blobs));
    for digest in all(&Model::blobs) {
        if Blob::new(rpc.read(&digest).await?).digest != digest {
            arena.problem(format!("{digest} has other bytes"));
        }
    }
    for (id, container) in models.iter().flat_map(|model| &model.containers) {
        let process = rpc.task(id, "").await?;
        let pid = process.pid.cast_signed();
        if process.status() != TaskStatus::Running || container.pid != Some(pid) || !proc::alive(pid) {
            arena.problem(format!("{id} was {container:?} and is {process:?}"));
        }
    }
    Ok(())
}

fn same(arena: &Arena, what: &str, found: Vec<String>, wanted: BTreeSet<String>) {
    let found: BTreeSet<String> = found.into_iter().collect();
    for lost in wanted.difference(&found) {
        arena.problem(format!("a live {what} is lost: {lost}"));
    }
    for kept in found.difference(&wanted) {
        arena.problem(format!("a dead {what} is kept: {kept}"));
    }
    println!("{what}s: {} wanted, {} there", wanted.len(), found.len());
}

async fn remove_holders(rpc: &Rpc, model: &Model) -> Answer<()> {
    for id in model.containers.keys() {
        rpc.kill(id, "", 9).await?;
        rpc.wait(id, "").await?;
        rpc.delete_task(id).await?;
        rpc.delete_container(id).await?;
    }
    for name in model.images.keys() {
        rpc.delete_image(name, false).await?;
    }
    for lease in model.leases.keys() {
        rpc.delete_lease(lease, false).await?;
    }
    Ok(())
}

/// Children first: a root that is a parent is refused until they are gone.
async fn remove_snapshots(rpc: &Rpc, model: &Model) -> Answer<()> {
    let mut left: Vec<&String> = model.snapshots.keys().collect();
    while !left.is_empty() {
        let before = left.len();
        let mut refused = Vec::new();
        for key in left {
            match rpc.remove_snapshot(key).await {
                Ok(()) => {}
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    refused.push((key, status))
                }
                Err(status) => return Err(status),
            }
        }
        if refused.len() == before {
            return Err(refused.swap_remove(0).1);
        }
        left = refused.into_iter().map(|(key, _)| key).collect();
    }
    Ok(())
}

/// The daemon is as small as before, once clients and shims have gone.
fn idle(arena: &Arena) {
    let Some(pid) = arena.daemon.pid() else { return };
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let allowed = arena.descriptors_before + 5;
    eventually("the descriptors of shims and clients are closed", || descriptors() <= allowed);
    // Memory is given back two seconds after the last client.
    std::thread::sleep(Duration::from_secs(4));
    println!(
        "idle at the end: {} kB RSS, {} descriptors ({} at the beginning)",
        resident(pid),
        descriptors(),
        arena.descriptors_before
    );
}
