//! Clients that create and delete for all they are worth while collections follow each other without a pause: nothing is
//! lost that somebody may rely on; and when they have let go of everything, nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::{Rng, SeedableRng, rngs::StdRng};
use types::filters::Filters;
use types::{Digest, Labels, Result, Scope};

use super::NS;
use crate::Db;
use crate::fakes::{Bench, SNAPSHOTTER, container, image, labels, ns, put, scope};

/// How many clients there are, and what each of them does how often.
const CLIENTS: usize = 4;
const ROUNDS: usize = 25;
/// How many images there are to pull. They share layers.
const IMAGES: u64 = 4;

/// A client, which knows what it relies on.
struct Client {
    db: Db,
    number: usize,
    random: StdRng,
    /// Names of images that are ours, and what they are.
    images: Vec<(String, u64)>,
    containers: Vec<String>,
}

/// The layers of an image, from the bottom.
fn layers(what: u64) -> [String; 2] {
    ["base".to_owned(), format!("layer-{}", what / 2)]
}

fn chain(what: u64, depth: usize) -> String {
    layers(what)[..=depth].join("+")
}

fn manifest(what: u64) -> String {
    format!("manifest-{what}")
}

/// Puts a blob, or finds it.
async fn provide(
    db: &Db,
    scope: &Scope,
    reference: &str,
    bytes: &str,
    pairs: &[(&str, &str)],
) -> Result<Digest> {
    let store = db.content(scope.clone());
    let digest = match put(&*store, reference, bytes.as_bytes()).await {
        Ok(digest) => digest,
        Err(error) if error.is_already_exists() => Digest::of(bytes.as_bytes()),
        Err(error) => return Err(error),
    };
    let paths: Vec<String> = pairs.iter().map(|(key, _)| format!("labels.{key}")).collect();
    if !paths.is_empty() {
        let info = types::content::Info { labels: labels(pairs), ..store.info(&digest).await? };
        store.update(info, &types::fields::FieldPaths(paths)).await?;
    }
    Ok(digest)
}

impl Client {
    /// What a client does to pull and unpack: all of it under a lease, the image's name before the lease ends.
    async fn pull(&mut self, round: usize) -> Result<()> {
        let what = self.random.random_range(0..IMAGES);
        let lease = self.db.leases(&ns(NS)).create(None, Labels::new()).await?.id;
        let held = scope(NS).with_lease(&lease);
        let tag = format!("{}-{round}", self.number);
        let snapshots = self.db.snapshotter(held.clone(), SNAPSHOTTER)?;
        let mut digests = Vec::new();
        for (depth, layer) in layers(what).iter().enumerate() {
            digests.push(provide(&self.db, &held, &format!("{tag}-{depth}"), layer, &[]).await?);
            let parent = if depth == 0 { String::new() } else { chain(what, depth - 1) };
            self.unpack(&*snapshots, &chain(what, depth), &parent, &tag).await?;
        }
        let top = chain(what, 1);
        let config = provide(
            &self.db,
            &held,
            &tag,
            &format!("config-{what}"),
            &[("containerd.io/gc.ref.snapshot.memory", &top)],
        )
        .await?;
        let refers = [
            ("containerd.io/gc.ref.content.config", config.as_str()),
            ("containerd.io/gc.ref.content.l.0", digests[0].as_str()),
            ("containerd.io/gc.ref.content.l.1", digests[1].as_str()),
        ];
        let target = provide(&self.db, &held, &tag, &manifest(what), &refers).await?;
        self.db.images(&held).create(image(&tag, &target)).await?;
        self.images.push((tag, what));
        self.db.leases(&ns(NS)).delete(&lease).await
    }

    async fn unpack(
        &self,
        snapshots: &dyn ::snapshots::Snapshotter,
        name: &str,
        parent: &str,
        tag: &str,
    ) -> Result<()> {
        let key = format!("extract-{tag}-{name}");
        let reference = labels(&[("containerd.io/snapshot.ref", name)]);
        match snapshots.prepare(&key, parent, reference).await {
            Err(error) if error.is_already_exists() => return Ok(()),
            prepared => drop(prepared?),
        }
        match snapshots.commit(name, &key, None, Labels::new()).await {
            // Another client was quicker.
            Err(error) if error.is_already_exists() => snapshots.remove(&key).await,
            committed => committed,
        }
    }

    /// A container on one of our images, whose snapshot is prepared under a lease.
    async fn run(&mut self, round: usize) -> Result<()> {
        let Some((_, what)) = self.images.first().cloned() else { return Ok(()) };
        let lease = self.db.leases(&ns(NS)).create(None, Labels::new()).await?.id;
        let id = format!("c-{}-{round}", self.number);
        let snapshots = self.db.snapshotter(scope(NS).with_lease(&lease), SNAPSHOTTER)?;
        snapshots.prepare(&id, &chain(what, 1), Labels::new()).await?;
        let made = types::container::Container {
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.clone(),
            ..container(&id)
        };
        self.db.containers(&ns(NS)).create(made).await?;
        self.containers.push(id);
        self.db.leases(&ns(NS)).delete(&lease).await
    }

    async fn untag(&mut self) -> Result<()> {
        if self.images.is_empty() {
            return Ok(());
        }
        let at = self.random.random_range(0..self.images.len());
        let (name, _) = self.images.swap_remove(at);
        self.db.images(&scope(NS)).delete(&name, None).await
    }

    /// Sometimes with its snapshot, sometimes leaving that to the collection.
    async fn delete(&mut self) -> Result<()> {
        let Some(id) = self.containers.pop() else { return Ok(()) };
        self.db.containers(&ns(NS)).delete(&id).await?;
        if self.random.random_bool(0.5) {
            let removed = self.db.snapshotter(scope(NS), SNAPSHOTTER)?.remove(&id).await;
            // The collection may have been quicker.
            removed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    /// Everything that this client may rely on is there, down to the bytes.
    async fn check(&self) {
        let store = self.db.content(scope(NS));
        let snapshots = self.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
        for (name, what) in &self.images {
            self.db.images(&scope(NS)).get(name).unwrap();
            let [base, layer] = layers(*what);
            for bytes in [base, layer, format!("config-{what}"), manifest(*what)] {
                let reader = store.reader(&Digest::of(bytes.as_bytes())).await;
                let reader = reader.unwrap_or_else(|error| panic!("{name} has lost {bytes}: {error}"));
                assert_eq!(&reader.read_at(0, 100).await.unwrap()[..], bytes.as_bytes());
            }
            for depth in 0..2 {
                snapshots
                    .stat(&chain(*what, depth))
                    .await
                    .unwrap_or_else(|e| panic!("{name} is not unpacked: {e}"));
            }
        }
        for id in &self.containers {
            snapshots.mounts(id).await.unwrap_or_else(|e| panic!("{id} has lost its snapshot: {e}"));
        }
    }

    async fn live(mut self) -> Self {
        for round in 0..ROUNDS {
            match self.random.random_range(0..6) {
                0 | 1 => self.pull(round).await.unwrap(),
                2 | 3 => self.run(round).await.unwrap(),
                4 => self.untag().await.unwrap(),
                _ => self.delete().await.unwrap(),
            }
            self.check().await;
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_collections_loses_nothing_and_leaves_nothing() {
    let bench = Bench::new();
    let db = bench.open();
    let over = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (db, over) = (db.clone(), Arc::clone(&over));
        async move {
            let mut collected = 0;
            while !over.load(Ordering::Relaxed) {
                collected += db.collect(&|_, _| ()).await.unwrap().removed;
            }
            collected
        }
    });
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            let (db, images, containers) = (db.clone(), Vec::new(), Vec::new());
            tokio::spawn(Client { db, number, random, images, containers }.live())
        })
        .collect();
    let mut lived = Vec::new();
    for client in clients {
        lived.push(client.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    assert!(collector.await.unwrap() > 0);

    db.collect(&|_, _| ()).await.unwrap();
    expect(&bench, &db, &lived).await;
    for client in &mut lived {
        client.check().await;
        while !client.containers.is_empty() {
            client.delete().await.unwrap();
        }
        while !client.images.is_empty() {
            client.untag().await.unwrap();
        }
    }
    db.collect(&|_, _| ()).await.unwrap();
    expect(&bench, &db, &lived).await;
    assert_eq!(bench.files().await, (0, 0));
    assert!(bench.snapshotter.keys().is_empty());
    db.namespaces().delete(&ns(NS)).await.unwrap();
}

/// Rows and stores have what the clients rely on, and nothing else.
async fn expect(bench: &Bench, db: &Db, clients: &[Client]) {
    let mut blobs = std::collections::BTreeSet::new();
    let mut snapshots = std::collections::BTreeSet::new();
    for client in clients {
        for (_, what) in &client.images {
            let [base, layer] = layers(*what);
            blobs.extend([base, layer, format!("config-{what}"), manifest(*what)]);
            snapshots.extend([chain(*what, 0), chain(*what, 1)]);
        }
        for id in &client.containers {
            let info = db.snapshotter(scope(NS), SNAPSHOTTER).unwrap().stat(id).await.unwrap();
            let base = info.parent.split('+').next().unwrap().to_owned();
            snapshots.extend([id.clone(), info.parent, base]);
        }
    }
    let mut found = std::collections::BTreeSet::new();
    let mut each = |info: types::snapshot::Info| {
        found.insert(info.name);
        Ok(())
    };
    db.snapshotter(scope(NS), SNAPSHOTTER).unwrap().walk(&Filters::default(), &mut each).await.unwrap();
    assert_eq!(found, snapshots);
    assert_eq!(bench.snapshotter.keys().len(), snapshots.len());
    let mut digests = std::collections::BTreeSet::new();
    let mut each = |info: types::content::Info| {
        digests.insert(info.digest);
        Ok(())
    };
    db.content(scope(NS)).walk(&Filters::default(), &mut each).await.unwrap();
    assert_eq!(digests, blobs.iter().map(|bytes| Digest::of(bytes.as_bytes())).collect());
    assert_eq!(bench.files().await, (blobs.len(), 0));
}
