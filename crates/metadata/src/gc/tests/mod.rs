//! What is kept and what goes, sentence by sentence.

mod crash;
mod interleaving;
mod keeping;
mod model;
mod scale;
mod storm;

use std::time::{Duration, SystemTime};

use types::time::rfc3339;
use types::{Digest, Labels};

use super::{Begun, Marked};
use crate::Db;
use crate::fakes::{Bench, SNAPSHOTTER, image, labels, ns, put, scope};

/// A database with one namespace, and words for what is done to it.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) db: Db,
}

pub(super) const NS: &str = "a";

pub(super) fn ago(seconds: u64) -> String {
    rfc3339(SystemTime::now() - Duration::from_secs(seconds))
}

pub(super) fn hence(seconds: u64) -> String {
    rfc3339(SystemTime::now() + Duration::from_secs(seconds))
}

impl World {
    pub(super) fn new() -> Self {
        let bench = Bench::new();
        let db = bench.open();
        Self { bench, db }
    }

    pub(super) async fn blob(&self, name: &str, pairs: &[(&str, &str)]) -> Digest {
        let store = self.db.content(scope(NS));
        let digest = put(&*store, name, name.as_bytes()).await.unwrap();
        let info = types::content::Info { labels: labels(pairs), ..store.info(&digest).await.unwrap() };
        store.update(info, &crate::fakes::paths(&["labels"])).await.unwrap();
        digest
    }

    /// What is known of the blob with this content.
    pub(super) async fn info(&self, name: &str) -> types::content::Info {
        self.db.content(scope(NS)).info(&Digest::of(name.as_bytes())).await.unwrap()
    }

    pub(super) async fn blob_label(&self, digest: &Digest, key: &str, value: &str) {
        let store = self.db.content(scope(NS));
        let info =
            types::content::Info { labels: labels(&[(key, value)]), ..store.info(digest).await.unwrap() };
        store.update(info, &crate::fakes::paths(&[&format!("labels.{key}")])).await.unwrap();
    }

    pub(super) async fn image(&self, name: &str, target: &Digest, pairs: &[(&str, &str)]) {
        let image = types::image::Image { labels: labels(pairs), ..image(name, target) };
        self.db.images(&scope(NS)).create(image).await.unwrap();
    }

    pub(super) async fn snapshot(&self, key: &str, parent: &str, pairs: &[(&str, &str)]) {
        let snapshots = self.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
        snapshots.prepare(&format!("{key}-active"), parent, Labels::new()).await.unwrap();
        snapshots.commit(key, &format!("{key}-active"), None, labels(pairs)).await.unwrap();
    }

    pub(super) async fn lease(&self, id: &str, pairs: &[(&str, &str)], holds: &[(&str, &str)]) {
        let leases = self.db.leases(&ns(NS));
        leases.create(Some(id.to_owned()), labels(pairs)).await.unwrap();
        for (kind, id_held) in holds {
            let held = types::lease::Resource { kind: (*kind).to_owned(), id: (*id_held).to_owned() };
            leases.add_resource(id, held).await.unwrap();
        }
    }

    /// Collects, and says what is left.
    pub(super) async fn left(&self) -> Vec<String> {
        self.db.collect(&|_, _| ()).await.unwrap();
        self.seen().await
    }

    /// A collection that has marked.
    pub(super) async fn marked(&self) -> Marked {
        Begun::new(&self.db, &[]).await.unwrap().mark().await.unwrap()
    }

    /// Sweeps what was marked, and says what is left.
    pub(super) async fn swept(&self, marked: Marked) -> Vec<String> {
        marked.sweep(&|_, _| ()).await.unwrap();
        self.db.bury_all().await;
        self.seen().await
    }

    /// Collects, and says what is left, whatever the stores still have.
    pub(super) async fn left_rows(&self) -> Vec<String> {
        self.db.collect(&|_, _| ()).await.unwrap();
        self.rows().await.0
    }

    /// The same root after a crash.
    pub(super) async fn restarted(self) -> Self {
        let Self { bench, db } = self;
        let old = db.downgrade();
        drop(db);
        // Tasks that were killed are dropped when the runtime comes to them.
        while old.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        let db = bench.recover().await;
        Self { bench, db }
    }

    /// What is left; the stores have just that.
    pub(super) async fn seen(&self) -> Vec<String> {
        let (left, blobs, snapshots) = self.rows().await;
        assert_eq!(self.bench.snapshotter.keys().len(), snapshots, "the backend has what the rows say");
        assert_eq!(self.bench.files().await.0, blobs, "the store has what the rows say");
        left
    }

    /// Names of images, contents of blobs, keys of snapshots, ids of leases; how many blobs and snapshots.
    async fn rows(&self) -> (Vec<String>, usize, usize) {
        let mut left = Vec::new();
        let all = types::filters::Filters::default();
        self.db
            .images(&scope(NS))
            .list(&all, &mut |image| {
                left.push(image.name.to_owned());
                Ok(())
            })
            .unwrap();
        self.db
            .leases(&ns(NS))
            .list(&all, &mut |lease| {
                left.push(lease.id);
                Ok(())
            })
            .unwrap();
        let store = self.db.content(scope(NS));
        let mut digests = Vec::new();
        store
            .walk(&all, &mut |info| {
                digests.push(info.digest);
                Ok(())
            })
            .await
            .unwrap();
        let blobs = digests.len();
        for digest in digests {
            let bytes = store.reader(&digest).await.unwrap().read_at(0, 100).await.unwrap();
            left.push(String::from_utf8(bytes.to_vec()).unwrap());
        }
        let snapshots = self.db.snapshotter(scope(NS), SNAPSHOTTER).unwrap();
        let before = left.len();
        snapshots
            .walk(&all, &mut |info| {
                left.push(info.name);
                Ok(())
            })
            .await
            .unwrap();
        let snapshots = left.len() - before;
        left.sort();
        (left, blobs, snapshots)
    }
}

/// Empties every table that a collection knows, and the indexes.
pub(super) fn clear(tx: &crate::tx::Tx<'_>) -> types::Result<()> {
    use crate::schema;
    tx.clear(schema::IMAGES.table)?;
    tx.clear(schema::BLOBS.table)?;
    tx.clear(schema::BLOB_HOLDERS)?;
    tx.clear(schema::SNAPSHOTS.table)?;
    tx.clear(schema::CHILDREN)?;
    tx.clear(schema::CONTAINERS.table)?;
    tx.clear(schema::INGESTS.table)?;
    tx.clear(schema::LEASES.table)?;
    tx.clear(schema::LEASE_RESOURCES)?;
    tx.clear(schema::DEAD)
}
