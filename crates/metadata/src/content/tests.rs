//! What a namespace sees of the content store, and what a crash leaves.

use std::sync::Arc;

use ::content::{Store, WriterOptions};
use bytes::Bytes;
use types::filters::Filters;
use types::lease::Resource;
use types::{Class, Digest, Labels};

use crate::Db;
use crate::fakes::{Bench, labels, ns, put, scope};

fn options(reference: &str, bytes: &[u8]) -> WriterOptions {
    WriterOptions {
        reference: reference.to_owned(),
        total: bytes.len() as u64,
        expected: Some(Digest::of(bytes)),
    }
}

fn view(db: &Db, namespace: &str) -> Arc<dyn Store> {
    db.content(scope(namespace))
}

async fn held(db: &Db, lease: &str) -> Vec<Resource> {
    db.leases(&ns("a")).list_resources(lease).unwrap()
}

#[tokio::test]
async fn it_is_a_content_store() {
    let bench = Bench::new();
    let db = bench.open();
    let features = ::content::testsuite::Features { labels: true };
    ::content::testsuite::all(&*view(&db, "a"), features).await;
    ::content::testsuite::all(&*view(&db, "b"), features).await;
}

#[tokio::test]
async fn namespaces_have_their_own_blobs_references_and_labels() {
    let bench = Bench::new();
    let db = bench.open();
    let (a, b) = (view(&db, "a"), view(&db, "b"));
    let digest = put(&*a, "r", b"blob").await.unwrap();
    assert!(b.info(&digest).await.unwrap_err().is_not_found());
    assert!(b.reader(&digest).await.err().unwrap().is_not_found());
    assert!(b.delete(&digest).await.unwrap_err().is_not_found());
    let other = WriterOptions { reference: "r".to_owned(), ..WriterOptions::default() };
    let writer = b.writer(other.clone()).await.unwrap();
    drop(a.writer(other).await.unwrap());
    assert_eq!(a.list_statuses(&[]).await.unwrap().len(), 1);
    a.abort("r").await.unwrap();
    assert_eq!(b.status("r").await.unwrap().reference, "r");
    drop(writer);
}

#[tokio::test]
async fn a_blob_of_another_namespace_need_not_be_sent() {
    let bench = Bench::new();
    let db = bench.open();
    let (a, b) = (view(&db, "a"), view(&db, "b"));
    let digest = put(&*a, "r", b"blob").await.unwrap();
    let mut writer = b.writer(options("r", b"blob")).await.unwrap();
    let status = writer.status().await.unwrap();
    assert_eq!((status.offset, status.total, status.expected), (4, 4, Some(digest.clone())));
    assert_eq!(writer.digest().await.unwrap(), digest);
    assert!(
        b.info(&digest).await.unwrap_err().is_not_found(),
        "it is not this namespace's before the commit"
    );
    writer.commit(4, Some(digest.clone()), labels(&[("k", "v")])).await.unwrap();
    assert_eq!(b.info(&digest).await.unwrap().labels, labels(&[("k", "v")]));
    assert_eq!(a.info(&digest).await.unwrap().labels, labels(&[]));
    assert_eq!(b.writer(options("r", b"blob")).await.err().unwrap().class(), Class::AlreadyExists);
    assert_eq!(bench.files().await, (1, 0));
    a.delete(&digest).await.unwrap();
    assert_eq!(bench.files().await, (1, 0), "b has it still");
    b.delete(&digest).await.unwrap();
    assert_eq!(bench.files().await, (0, 0));
}

#[tokio::test]
async fn a_shared_blob_stays_until_its_ingest_ends() {
    let bench = Bench::new();
    let db = bench.open();
    let (a, b) = (view(&db, "a"), view(&db, "b"));
    let digest = put(&*a, "r", b"blob").await.unwrap();
    let mut writer = b.writer(options("r", b"blob")).await.unwrap();
    a.delete(&digest).await.unwrap();
    writer.commit(0, None, Labels::new()).await.unwrap();
    assert_eq!(b.info(&digest).await.unwrap().size, 4);

    let writer = a.writer(options("r2", b"blob")).await.unwrap();
    b.delete(&digest).await.unwrap();
    assert_eq!(bench.files().await, (1, 0));
    drop(writer);
    a.abort("r2").await.unwrap();
    assert_eq!(bench.files().await, (0, 0), "the last to need it was an ingest");
}

#[tokio::test]
async fn a_shared_ingest_that_is_written_to_gets_data_of_its_own() {
    let bench = Bench::new();
    let db = bench.open();
    let (a, b) = (view(&db, "a"), view(&db, "b"));
    let shared = put(&*a, "r", b"blob").await.unwrap();
    let mut writer = b.writer(WriterOptions { total: 0, ..options("r", b"blob") }).await.unwrap();
    writer.write(Bytes::new()).await.unwrap();
    writer.write(Bytes::from_static(b" and more")).await.unwrap();
    let digest = Digest::of(b"blob and more");
    assert_eq!(writer.digest().await.unwrap(), digest);
    writer.commit(13, Some(digest.clone()), Labels::new()).await.unwrap();
    assert_eq!(b.info(&digest).await.unwrap().size, 13);

    let mut writer = b.writer(options("r", b"blob")).await.unwrap();
    writer.truncate(0).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
    writer.write(Bytes::from_static(b"else")).await.unwrap();
    writer.commit(4, None, Labels::new()).await.unwrap();
    assert!(b.info(&shared).await.is_err() && b.info(&Digest::of(b"else")).await.is_ok());
}

#[tokio::test]
async fn a_shared_commit_is_checked_like_any_other() {
    let bench = Bench::new();
    let db = bench.open();
    put(&*view(&db, "a"), "r", b"blob").await.unwrap();
    let b = view(&db, "b");
    for (size, expected) in [(5, None), (0, Some(Digest::of(b"else")))] {
        let mut writer = b.writer(options("r", b"blob")).await.unwrap();
        let error = writer.commit(size, expected, Labels::new()).await.unwrap_err();
        assert_eq!(error.class(), Class::FailedPrecondition);
    }
    let oversized = labels(&[("k", &"v".repeat(4096))]);
    let mut writer = b.writer(options("r", b"blob")).await.unwrap();
    let error = writer.commit(0, None, oversized).await.unwrap_err();
    assert!(error.to_string().starts_with("info.Labels: label key and value length"), "{error}");
    // Another size than the blob's is the writer's to find out: it is not shared.
    let writer = b.writer(WriterOptions { total: 9, ..options("r9", b"blob") }).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
}

#[tokio::test]
async fn a_lease_holds_the_ingest_and_then_the_blob() {
    let bench = Bench::new();
    let db = bench.open();
    let leases = db.leases(&ns("a"));
    for lease in ["l", "m"] {
        leases.create(Some(lease.to_owned()), labels(&[])).await.unwrap();
    }
    let store = db.content(scope("a").with_lease("l"));
    let mut writer = store.writer(options("r", b"blob")).await.unwrap();
    assert_eq!(held(&db, "l").await, [Resource { kind: "ingests".into(), id: "r".into() }]);
    writer.write(Bytes::from_static(b"blob")).await.unwrap();
    writer.commit(0, None, Labels::new()).await.unwrap();
    let blob = Resource { kind: "content".into(), id: Digest::of(b"blob").to_string() };
    assert_eq!(held(&db, "l").await, std::slice::from_ref(&blob));

    let other = db.content(scope("a").with_lease("m"));
    assert!(other.writer(options("r", b"blob")).await.err().unwrap().is_already_exists());
    assert_eq!(held(&db, "m").await, [blob], "what is there already is held as well");
    other.delete(&Digest::of(b"blob")).await.unwrap();
    assert!(held(&db, "m").await.is_empty());

    let nobody = db.content(scope("a").with_lease("nobody"));
    let error = nobody.writer(options("r", b"blob")).await.err().unwrap();
    assert_eq!(error.to_string(), "lease does not exist: not found");
    assert_eq!(bench.files().await, (0, 0));
}

#[tokio::test]
async fn a_lease_that_is_deleted_during_a_write_leaves_nothing_behind() {
    let bench = Bench::new();
    let db = bench.open();
    let leases = db.leases(&ns("a"));
    leases.create(Some("l".to_owned()), labels(&[])).await.unwrap();
    let store = db.content(scope("a").with_lease("l"));
    let mut writer = store.writer(options("r", b"blob")).await.unwrap();
    writer.write(Bytes::from_static(b"blob")).await.unwrap();
    leases.delete("l").await.unwrap();
    assert!(writer.commit(0, None, Labels::new()).await.unwrap_err().is_not_found());
    drop(writer);
    view(&db, "a").abort("r").await.unwrap();
    assert_eq!(bench.files().await, (0, 0));
}

#[tokio::test]
async fn a_crash_while_a_blob_is_committed_loses_and_leaks_nothing() {
    for (place, blobs, ingests) in [("before commit", 0, 1), ("after commit", 0, 0)] {
        for told in [true, false] {
            let bench = Bench::new();
            let db = bench.open();
            let store = view(&db, "a");
            let mut open = options("r", b"blob");
            if !told {
                open.expected = None;
            }
            let mut writer = store.writer(open).await.unwrap();
            writer.write(Bytes::from_static(b"blob")).await.unwrap();
            bench.crash(place, writer.commit(0, None, Labels::new())).await;
            drop((writer, store, db));
            let db = bench.recover().await;
            assert_eq!(bench.files().await, (blobs, ingests), "{place}, told: {told}");
            let store = view(&db, "a");
            assert_eq!(store.list_statuses(&[]).await.unwrap().len(), ingests);
            put(&*store, "r", b"blob").await.unwrap();
            assert_eq!(bench.files().await, (1, 0));
        }
    }
}

#[tokio::test]
async fn a_commit_whose_writer_went_away_leaves_nothing_once_its_ingest_is_dropped() {
    for told in [true, false] {
        for dropping in ["abort", "namespace"] {
            let bench = Bench::new();
            let db = bench.open();
            let store = view(&db, "a");
            let mut open = options("r", b"blob");
            if !told {
                open.expected = None;
            }
            let mut writer = store.writer(open).await.unwrap();
            writer.write(Bytes::from_static(b"blob")).await.unwrap();
            bench.crash("after commit", writer.commit(0, None, Labels::new())).await;
            drop(writer);
            assert_eq!(bench.files().await, (1, 0));
            match dropping {
                "abort" => store.abort("r").await.unwrap(),
                _ => db.namespaces().delete(&ns("a")).await.unwrap(),
            }
            assert_eq!(bench.files().await, (0, 0), "{dropping}, told: {told}");
        }
    }
}

#[tokio::test]
async fn a_crash_between_backend_and_row_does_not_take_what_another_namespace_has() {
    let bench = Bench::new();
    let db = bench.open();
    let mut writer = view(&db, "a").writer(options("r", b"blob")).await.unwrap();
    writer.write(Bytes::from_static(b"blob")).await.unwrap();
    bench.crash("after commit", writer.commit(0, None, Labels::new())).await;
    put(&*view(&db, "b"), "r", b"blob").await.unwrap();
    drop((writer, db));
    let db = bench.recover().await;
    assert!(view(&db, "b").info(&Digest::of(b"blob")).await.is_ok());
    assert_eq!(bench.files().await, (1, 0));
}

#[tokio::test]
async fn a_crash_while_a_blob_is_deleted_leaves_nothing() {
    for place in ["before delete", "after delete"] {
        let bench = Bench::new();
        let db = bench.open();
        let store = view(&db, "a");
        let digest = put(&*store, "r", b"blob").await.unwrap();
        bench.crash(place, store.delete(&digest)).await;
        drop((store, db));
        let db = bench.recover().await;
        assert_eq!(bench.files().await, (0, 0), "{place}");
        assert!(view(&db, "a").info(&digest).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn what_was_pulled_again_after_a_half_deletion_stays() {
    let bench = Bench::new();
    let db = bench.open();
    let store = view(&db, "a");
    let digest = put(&*store, "r", b"blob").await.unwrap();
    bench.crash("before delete", store.delete(&digest)).await;
    put(&*store, "r", b"blob").await.unwrap();
    drop((store, db));
    let db = bench.recover().await;
    assert_eq!(view(&db, "a").info(&digest).await.unwrap().size, 4);
    assert_eq!(bench.files().await, (1, 0));
}

#[tokio::test]
async fn a_crash_while_an_ingest_is_made_or_dropped_leaves_nothing() {
    for place in ["before writer", "after writer", "before abort", "after abort"] {
        let bench = Bench::new();
        let db = bench.open();
        let store = view(&db, "a");
        match place {
            "before writer" | "after writer" => bench.crash(place, store.writer(options("r", b"x"))).await,
            _ => {
                drop(store.writer(options("r", b"x")).await.unwrap());
                bench.crash(place, store.abort("r")).await;
            }
        }
        drop((store, db));
        let db = bench.recover().await;
        let store = view(&db, "a");
        let seen = store.list_statuses(&[]).await.unwrap().len();
        assert_eq!(bench.files().await, (0, seen), "{place}: what is there can be seen");
        if seen > 0 {
            store.abort("r").await.unwrap();
        }
        assert!(store.abort("r").await.unwrap_err().is_not_found(), "{place}");
    }
}

#[tokio::test]
async fn an_ingest_outlives_the_daemon_and_resumes() {
    let bench = Bench::new();
    let db = bench.open();
    let mut writer = view(&db, "a").writer(options("r", b"blob")).await.unwrap();
    writer.write(Bytes::from_static(b"bl")).await.unwrap();
    writer.digest().await.unwrap();
    drop((writer, db));
    let db = bench.recover().await;
    let mut writer = view(&db, "a").writer(options("r", b"blob")).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 2);
    writer.write(Bytes::from_static(b"ob")).await.unwrap();
    writer.commit(4, Some(Digest::of(b"blob")), Labels::new()).await.unwrap();
    assert_eq!(bench.files().await, (1, 0));
}

#[tokio::test]
async fn blobs_that_the_database_never_knew_are_left_alone() {
    let bench = Bench::new();
    drop(bench.open());
    let digest = put(&*bench.content.inner, "by-hand", b"by hand").await.unwrap();
    let db = bench.recover().await;
    assert_eq!(bench.files().await, (1, 0));
    let mut each = |_| panic!("no namespace has it");
    view(&db, "a").walk(&Filters::default(), &mut each).await.unwrap();
    assert!(view(&db, "a").info(&digest).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_deleters_of_one_blob_never_lose_it_for_each_other() {
    let bench = Bench::new();
    let db = bench.open();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let store = view(&db, &format!("n{task}"));
            tokio::spawn(async move {
                for round in 0..25 {
                    let digest = put(&*store, &format!("r{round}"), b"one blob for all").await.unwrap();
                    let reader = store.reader(&digest).await.unwrap();
                    assert_eq!(
                        reader.read_at(0, 100).await.unwrap(),
                        Bytes::from_static(b"one blob for all")
                    );
                    store.delete(&digest).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bench.files().await, (0, 0));
}

#[tokio::test]
async fn a_blob_whose_file_is_gone_or_short_is_written_again_and_keeps_its_labels() {
    let bench = Bench::new();
    let db = bench.open();
    let (a, b) = (view(&db, "a"), view(&db, "b"));
    let digest = put(&*a, "r", b"blob").await.unwrap();
    a.update(
        types::content::Info { labels: labels(&[("old", "1")]), ..a.info(&digest).await.unwrap() },
        &crate::fakes::paths(&["labels.old"]),
    )
    .await
    .unwrap();
    let file = bench.content.inner.path(&digest);
    for damage in ["gone", "short"] {
        std::fs::remove_file(&file).unwrap();
        if damage == "short" {
            std::fs::write(&file, b"bl").unwrap();
        }
        assert!(a.info(&digest).await.unwrap_err().is_not_found(), "{damage}");
        assert!(a.reader(&digest).await.err().unwrap().is_not_found(), "{damage}");
        // Nobody else is given the half of it either, whether the size is known or not.
        let unsized_options = WriterOptions { total: 0, ..options("elsewhere", b"blob") };
        let other = b.writer(unsized_options).await.unwrap();
        assert_eq!(other.status().await.unwrap().offset, 0, "{damage}");
        drop(other);
        b.abort("elsewhere").await.unwrap();

        let mut writer = a.writer(options("again", b"blob")).await.unwrap();
        writer.write(Bytes::from_static(b"blob")).await.unwrap();
        writer.commit(4, Some(digest.clone()), labels(&[("new", damage)])).await.unwrap();
        let info = a.info(&digest).await.unwrap();
        assert_eq!((info.size, info.labels), (4, labels(&[("new", damage), ("old", "1")])));
        assert_eq!(std::fs::read(&file).unwrap(), b"blob");
        assert_eq!(bench.files().await, (1, 0));
    }
    assert_eq!(a.writer(options("r", b"blob")).await.err().unwrap().class(), Class::AlreadyExists);
}

#[tokio::test]
async fn a_file_that_no_namespace_knows_is_taken_over_only_if_it_has_the_right_size() {
    let bench = Bench::new();
    let db = bench.open();
    let a = view(&db, "a");
    let digest = put(&*bench.content.inner, "r", b"blob").await.unwrap();
    std::fs::remove_file(bench.content.inner.path(&digest)).unwrap();
    std::fs::write(bench.content.inner.path(&digest), b"").unwrap();
    let mut writer = a.writer(options("r", b"blob")).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
    writer.write(Bytes::from_static(b"blob")).await.unwrap();
    writer.commit(4, Some(digest.clone()), Labels::new()).await.unwrap();
    assert_eq!(std::fs::read(bench.content.inner.path(&digest)).unwrap(), b"blob");
}
