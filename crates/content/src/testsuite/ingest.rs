//! Writers before their commit.

use super::*;

pub(super) async fn a_writer_counts_and_hashes_what_it_is_given(store: &dyn Store, _: Features) {
    let since = SystemTime::now();
    let (bytes, digest) = blob(256);
    let mut writer = open_expecting(store, 256, &digest).await.unwrap();
    assert_eq!(writer.digest().await.unwrap(), Digest::of(b""));
    for (from, to) in [(0, 64), (64, 192), (192, 256)] {
        write(&mut *writer, &bytes[from..to]).await;
        let status = writer.status().await.unwrap();
        assert_eq!((status.reference, status.offset, status.total), (reference(&digest), to as u64, 256));
        assert!(around(since, status.started_at) && around(since, status.updated_at));
        assert_eq!(writer.digest().await.unwrap(), Digest::of(&bytes[..to]));
    }
    writer.commit(0, None, root_label()).await.unwrap();
    expect_blob(store, &digest, &bytes, since).await;
}

pub(super) async fn an_ingest_is_seen_while_it_is_written(store: &dyn Store, _: Features) {
    let since = SystemTime::now();
    let (bytes, digest) = blob(1000);
    let mut writer = open_expecting(store, 1000, &digest).await.unwrap();
    write(&mut *writer, &bytes[..500]).await;
    // What was digested is in the ingest, whatever a writer holds back.
    writer.digest().await.unwrap();
    let status = store.status(&reference(&digest)).await.unwrap();
    assert_eq!((&status.reference, status.offset, status.total), (&reference(&digest), 500, 1000));
    assert!(around(since, status.started_at) && around(since, status.updated_at));
    assert!(store.list_statuses(&[]).await.unwrap().iter().any(|s| s.reference == status.reference));
    drop(writer);
    store.abort(&reference(&digest)).await.unwrap();
}

pub(super) async fn an_ingest_resumes_where_it_ended(store: &dyn Store, _: Features) {
    let since = SystemTime::now();
    let (bytes, digest) = blob(256);
    let mut writer = open_expecting(store, 256, &digest).await.unwrap();
    write(&mut *writer, &bytes[..128]).await;
    let before = writer.status().await.unwrap();
    drop(writer);

    let mut writer = open_expecting(store, 256, &digest).await.unwrap();
    let status = writer.status().await.unwrap();
    assert_eq!((status.offset, status.total), (128, 256));
    let started = status.started_at.duration_since(before.started_at).unwrap_or_default();
    assert!(started < Duration::from_millis(1), "the start is kept");
    let updated = before.updated_at.duration_since(status.updated_at).unwrap_or_default();
    assert!(updated < Duration::from_micros(1), "the last change is kept");
    assert_eq!(writer.digest().await.unwrap(), Digest::of(&bytes[..128]));
    write(&mut *writer, &bytes[128..]).await;
    writer.commit(0, None, root_label()).await.unwrap();
    expect_blob(store, &digest, &bytes, since).await;
}

pub(super) async fn an_ingest_resumes_at_every_size_and_place(store: &dyn Store, _: Features) {
    for size in [500_usize, 5_000, 50_000, 600_000] {
        for part in [0, size / 10, size / 2, size / 10 * 9, size] {
            for again in [false, true] {
                let since = SystemTime::now();
                let (bytes, digest) = blob(size);
                let mut writer = open_expecting(store, size as u64, &digest).await.unwrap();
                write(&mut *writer, &bytes[..part]).await;
                drop(writer);
                let mut writer = open_expecting(store, size as u64, &digest).await.unwrap();
                assert_eq!(writer.status().await.unwrap().offset, part as u64);
                if again {
                    writer.truncate(0).await.unwrap();
                }
                for piece in bytes[if again { 0 } else { part }..].chunks(1024) {
                    write(&mut *writer, piece).await;
                }
                writer.commit(size as u64, Some(digest.clone()), root_label()).await.unwrap();
                expect_blob(store, &digest, &bytes, since).await;
            }
        }
    }
}

pub(super) async fn truncating_begins_anew(store: &dyn Store, _: Features) {
    let (bytes, digest) = blob(300);
    let mut writer = open(store, &reference(&digest)).await;
    write(&mut *writer, b"something else").await;
    writer.truncate(0).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 0);
    assert_eq!(writer.digest().await.unwrap(), Digest::of(b""));
    writer.truncate(1).await.unwrap_err();
    write(&mut *writer, &bytes).await;
    writer.commit(300, Some(digest), root_label()).await.unwrap();
}

pub(super) async fn another_writer_of_the_reference_is_refused(store: &dyn Store, _: Features) {
    let (_, digest) = blob(10);
    let first = open(store, &reference(&digest)).await;
    let options = WriterOptions { reference: reference(&digest), ..WriterOptions::default() };
    let error = store.writer(options).await.err().unwrap();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("locked"), "{error}");
    drop(first);
    drop(open(store, &reference(&digest)).await);
    store.abort(&reference(&digest)).await.unwrap();
}

pub(super) async fn an_aborted_ingest_is_gone(store: &dyn Store, _: Features) {
    let (bytes, digest) = blob(400);
    let mut writer = open(store, &reference(&digest)).await;
    write(&mut *writer, &bytes).await;
    drop(writer);
    store.abort(&reference(&digest)).await.unwrap();
    assert_eq!(class(store.status(&reference(&digest)).await), Class::NotFound);
    assert_eq!(class(store.abort(&reference(&digest)).await), Class::NotFound);
    let writer = open(store, &reference(&digest)).await;
    assert_eq!(writer.status().await.unwrap().offset, 0);
    drop(writer);
    store.abort(&reference(&digest)).await.unwrap();
}

pub(super) async fn an_empty_reference_is_refused(store: &dyn Store, _: Features) {
    assert_eq!(class(store.writer(WriterOptions::default()).await), Class::InvalidArgument);
}

pub(super) async fn ingests_are_filtered_by_reference(store: &dyn Store, _: Features) {
    let names: Vec<String> = (0..3).map(|_| reference(&blob(8).1)).collect();
    for name in &names {
        drop(open(store, name).await);
    }
    let list = async |filters: &[String]| {
        let mut found: Vec<String> =
            store.list_statuses(filters).await.unwrap().into_iter().map(|status| status.reference).collect();
        found.retain(|name| names.contains(name));
        found.len()
    };
    assert_eq!(list(&[]).await, 3);
    assert_eq!(list(&[format!("ref=={}", names[1])]).await, 1);
    assert_eq!(list(&[format!("ref~=^{}$", names[0]), format!("ref=={}", names[2])]).await, 2);
    assert_eq!(list(&["ref==nothing".to_owned()]).await, 0);
    assert_eq!(class(store.list_statuses(&["ref==".to_owned()]).await), Class::InvalidArgument);
    for name in &names {
        store.abort(name).await.unwrap();
    }
}
