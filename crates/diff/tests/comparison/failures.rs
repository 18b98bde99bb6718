//! A comparison that does not come to its end leaves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use content::store::read_blob;
use content::{Reader, Store, Writer, WriterOptions};
use diff::{CompareOptions, Differ as _, WalkingDiffer};
use types::content::{Info, Status};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Digest, Error, Labels, Result};

use crate::{Place, bind};

/// A store whose disk is full after a while, or whose writes take their time.
struct Faulty {
    store: Arc<dyn Store>,
    /// Bytes that fit.
    room: u64,
    /// Bytes that have been written.
    written: Arc<AtomicU64>,
}

struct FaultyWriter {
    writer: Box<dyn Writer>,
    room: u64,
    written: Arc<AtomicU64>,
}

#[async_trait]
impl Store for Faulty {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.store.info(digest).await
    }
    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        self.store.update(info, fields).await
    }
    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        self.store.walk(filters, each).await
    }
    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.store.delete(digest).await
    }
    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        self.store.reader(digest).await
    }
    async fn status(&self, reference: &str) -> Result<Status> {
        self.store.status(reference).await
    }
    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        self.store.list_statuses(filters).await
    }
    async fn abort(&self, reference: &str) -> Result<()> {
        self.store.abort(reference).await
    }
    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        let writer = self.store.writer(options).await?;
        Ok(Box::new(FaultyWriter { writer, room: self.room, written: Arc::clone(&self.written) }))
    }
}

#[async_trait]
impl Writer for FaultyWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        let written = self.written.fetch_add(data.len() as u64, Ordering::SeqCst) + data.len() as u64;
        if written > self.room {
            // A caller that gives up does so while this one waits.
            if self.room == 0 {
                std::future::pending::<()>().await;
            }
            return Err(Error::exhausted("no space left on device"));
        }
        self.writer.write(data).await
    }
    async fn status(&self) -> Result<Status> {
        self.writer.status().await
    }
    async fn digest(&mut self) -> Result<Digest> {
        self.writer.digest().await
    }
    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.writer.truncate(size).await
    }
    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        self.writer.commit(size, expected, labels).await
    }
}

/// More than all buffers on the way hold.
fn large(place: &Place) -> std::path::PathBuf {
    let upper = place.dir("upper");
    let mut rng = crate::forest::Rng::new(3);
    let noise: Vec<u8> = (0..4_000_000).flat_map(|_| rng.below(u64::MAX).to_le_bytes()).collect();
    std::fs::write(upper.join("noise"), noise).unwrap();
    upper
}

fn faulty(place: &Place, room: u64) -> (WalkingDiffer, Arc<AtomicU64>) {
    let written = Arc::new(AtomicU64::new(0));
    let store = Faulty { store: Arc::clone(&place.store) as _, room, written: Arc::clone(&written) };
    (WalkingDiffer::new(Arc::new(store)), written)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_comparison_without_an_ingest() {
    let place = Place::new();
    let upper = large(&place);
    let (differ, _) = faulty(&place, 3_000_000);
    let failed = differ.compare(&[], &[bind(&upper)], CompareOptions::default()).await.unwrap_err();
    assert!(failed.to_string().contains("no space left on device"), "{failed}");
    place.check_no_ingests().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_cannot_be_read_ends_a_comparison_without_an_ingest() {
    let place = Place::new();
    let failed = place.compare(&[], &[bind(&place.path("is not there"))], "").await.unwrap_err();
    assert!(failed.is_not_found(), "{failed}");
    place.check_no_ingests().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_no_ingest() {
    let place = Place::new();
    let upper = large(&place);
    let (differ, written) = faulty(&place, 0);
    let mounts = [bind(&upper)];
    let comparison = differ.compare(&[], &mounts, CompareOptions::default());
    tokio::select! {
        _ = comparison => unreachable!("it waits for ever"),
        () = until("the first write", async || written.load(Ordering::SeqCst) > 0) => {}
    }
    until("the ingest is gone", async || place.store.list_statuses(&[]).await.unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_under_a_given_reference_is_thrown_away_first() {
    let place = Place::new();
    let upper = place.dir("upper");
    std::fs::write(upper.join("f"), "x").unwrap();
    let mut stale =
        place.store.writer(WriterOptions { reference: "mine".into(), ..Default::default() }).await.unwrap();
    stale.write(Bytes::from_static(b"stale")).await.unwrap();
    drop(stale);
    let differ = WalkingDiffer::new(Arc::clone(&place.store) as _);
    let options = CompareOptions { reference: "mine".into(), ..Default::default() };
    let layer = differ.compare(&[], &[bind(&upper)], options).await.unwrap();
    assert_eq!(Digest::of(&read_blob(&*place.store, &layer.digest, 1 << 20).await.unwrap()), layer.digest);
    place.check_no_ingests().await;
}
