//! What any [`Store`] must do: run by the tests of every implementation.
//!
//! ```ignore
//! content::testsuite::all(&*store, Features { labels: true }).await;
//! ```
//!
//! Each case uses blobs and references of its own, so that all may run against one store, also one that is in use. A
//! failure panics. The cases follow upstream's `core/content/testsuite`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commit;
mod ingest;
mod read;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use types::content::Info;
use types::{Class, Digest, Labels, Result};

use crate::{Store, Writer, WriterOptions};

/// What not every store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Keeps labels and changes them.
    pub labels: bool,
}

type Case = for<'a> fn(&'a dyn Store, Features) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// The cases by name.
        pub const CASES: &[(&str, Case)] =
            &[$((stringify!($name), |store, features| Box::pin($module::$name(store, features)))),*];
    };
}

cases! {
    ingest::a_writer_counts_and_hashes_what_it_is_given,
    ingest::an_ingest_is_seen_while_it_is_written,
    ingest::an_ingest_resumes_where_it_ended,
    ingest::an_ingest_resumes_at_every_size_and_place,
    ingest::truncating_begins_anew,
    ingest::another_writer_of_the_reference_is_refused,
    ingest::an_aborted_ingest_is_gone,
    ingest::an_empty_reference_is_refused,
    ingest::ingests_are_filtered_by_reference,
    commit::a_commit_makes_the_blob_visible,
    commit::many_small_writes_make_one_blob,
    commit::an_empty_blob_is_a_blob,
    commit::a_blob_that_is_there_is_not_written_again,
    commit::a_wrong_size_or_digest_is_refused_and_the_ingest_kept,
    commit::a_committed_reference_is_free_again,
    commit::other_digest_algorithms_are_computed,
    commit::writers_of_one_blob_commit_it_once,
    commit::labels_are_set_and_changed,
    read::any_part_of_a_blob_is_read,
    read::reading_past_the_end_gives_nothing,
    read::what_is_not_there_is_not_found,
    read::a_deleted_blob_is_gone,
    read::walking_is_ordered_and_filtered,
    read::an_error_of_the_caller_ends_the_walk,
}

/// Runs every case.
pub async fn all(store: &dyn Store, features: Features) {
    for (name, case) in CASES {
        eprintln!("content store: {name}");
        case(store, features).await;
    }
}

/// Bytes that no other call gives, and their digest.
fn blob(len: usize) -> (Vec<u8>, Digest) {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Different in each process: the store may hold what an earlier one wrote.
    let mut state = seed ^ (u64::from(std::process::id()) << 32 | 1);
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

fn reference(digest: &Digest) -> String {
    format!("testsuite-{}", digest.hex())
}

async fn open(store: &dyn Store, reference: &str) -> Box<dyn Writer> {
    store.writer(WriterOptions { reference: reference.to_owned(), ..WriterOptions::default() }).await.unwrap()
}

async fn open_expecting(store: &dyn Store, total: u64, digest: &Digest) -> Result<Box<dyn Writer>> {
    let options = WriterOptions { reference: reference(digest), total, expected: Some(digest.clone()) };
    store.writer(options).await
}

async fn write(writer: &mut dyn Writer, bytes: &[u8]) {
    writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
}

/// A committed blob that nothing else refers to; the root label keeps it from being collected.
async fn committed(store: &dyn Store, len: usize) -> (Vec<u8>, Digest) {
    let (bytes, digest) = blob(len);
    let mut writer = open(store, &reference(&digest)).await;
    write(&mut *writer, &bytes).await;
    writer.commit(len as u64, Some(digest.clone()), root_label()).await.unwrap();
    (bytes, digest)
}

async fn expect_blob(store: &dyn Store, digest: &Digest, bytes: &[u8], since: SystemTime) -> Info {
    let info = store.info(digest).await.unwrap();
    assert_eq!((&info.digest, info.size), (digest, bytes.len() as u64));
    assert!(around(since, info.created_at) && around(since, info.updated_at), "{info:?} since {since:?}");
    let read = crate::store::read_blob(store, digest, bytes.len() as u64).await.unwrap();
    assert!(read == bytes, "the blob {digest} is not what was written");
    info
}

fn root_label() -> Labels {
    Labels::from([(types::labels::GC_ROOT.to_owned(), "testsuite".to_owned())])
}

/// Whether `time` is between `since` and now; clocks of filesystems lag some milliseconds behind.
fn around(since: SystemTime, time: SystemTime) -> bool {
    let slack = Duration::from_millis(50);
    time + slack >= since && time <= SystemTime::now() + slack
}

fn class<T>(result: Result<T>) -> Class {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.class(),
    }
}
