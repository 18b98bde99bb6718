//! Commits, and what refuses them.

use types::digest::{Algorithm, Hasher};
use types::fields::FieldPaths;

use super::*;

pub(super) async fn a_commit_makes_the_blob_visible(store: &dyn Store, features: Features) {
    let since = SystemTime::now();
    let (bytes, digest) = blob(256);
    for (total, expected) in [(0, None), (256, None), (0, Some(digest.clone())), (256, Some(digest.clone()))]
    {
        let options = WriterOptions { reference: reference(&digest), total, expected };
        let mut writer = store.writer(options).await.unwrap();
        write(&mut *writer, &bytes).await;
        assert_eq!(class(store.info(&digest).await), Class::NotFound);
        writer.commit(0, None, root_label()).await.unwrap();
        let info = expect_blob(store, &digest, &bytes, since).await;
        if features.labels {
            assert_eq!(info.labels, root_label());
        }
        assert_eq!(class(store.status(&reference(&digest)).await), Class::NotFound);
        assert_eq!(class(writer.commit(0, None, root_label()).await), Class::FailedPrecondition);
        store.delete(&digest).await.unwrap();
    }
}

pub(super) async fn many_small_writes_make_one_blob(store: &dyn Store, _: Features) {
    let since = SystemTime::now();
    let (bytes, digest) = blob(1 << 20);
    let mut writer = open(store, &reference(&digest)).await;
    for piece in bytes.chunks(32) {
        write(&mut *writer, piece).await;
    }
    writer.commit(1 << 20, Some(digest.clone()), root_label()).await.unwrap();
    expect_blob(store, &digest, &bytes, since).await;
}

pub(super) async fn an_empty_blob_is_a_blob(store: &dyn Store, _: Features) {
    let (empty, since) = (Digest::of(b""), SystemTime::now());
    if store.info(&empty).await.is_ok() {
        store.delete(&empty).await.unwrap();
    }
    let mut writer = open(store, "testsuite-empty").await;
    writer.commit(0, Some(empty.clone()), root_label()).await.unwrap();
    expect_blob(store, &empty, b"", since).await;
    store.delete(&empty).await.unwrap();
}

pub(super) async fn a_blob_that_is_there_is_not_written_again(store: &dyn Store, _: Features) {
    let (bytes, digest) = committed(store, 256).await;
    assert_eq!(class(open_expecting(store, 256, &digest).await), Class::AlreadyExists);
    for expected in [Some(digest.clone()), None] {
        let mut writer = open(store, &reference(&digest)).await;
        write(&mut *writer, &bytes).await;
        assert_eq!(class(writer.commit(256, expected, root_label()).await), Class::AlreadyExists);
        drop(writer);
        assert_eq!(class(store.status(&reference(&digest)).await), Class::NotFound);
    }
}

pub(super) async fn a_wrong_size_or_digest_is_refused_and_the_ingest_kept(store: &dyn Store, _: Features) {
    let (bytes, digest) = blob(260);
    let other = blob(260).1;
    let name = reference(&digest);

    let mut writer = open(store, &name).await;
    write(&mut *writer, &bytes).await;
    let error = writer.commit(260, Some(other.clone()), root_label()).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(
        error.to_string().contains(&format!("unexpected commit digest {digest}, expected {other}")),
        "{error}"
    );
    drop(writer);

    let mut writer = open(store, &name).await;
    assert_eq!(writer.status().await.unwrap().offset, 260);
    let error = writer.commit(256, None, root_label()).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(error.to_string().contains("unexpected commit size 260, expected 256"), "{error}");
    drop(writer);
    for digest in [&digest, &other] {
        assert_eq!(class(store.info(digest).await), Class::NotFound);
    }

    let mut writer = open(store, &name).await;
    writer.commit(260, Some(digest.clone()), root_label()).await.unwrap();
    store.info(&digest).await.unwrap();
}

pub(super) async fn a_committed_reference_is_free_again(store: &dyn Store, _: Features) {
    let (bytes, digest) = committed(store, 100).await;
    let mut writer = open(store, &reference(&digest)).await;
    assert_eq!(writer.status().await.unwrap().offset, 0);
    write(&mut *writer, &bytes).await;
    // The failed commit, too, frees the reference at once, not when the writer is dropped.
    assert_eq!(class(writer.commit(100, Some(digest.clone()), root_label()).await), Class::AlreadyExists);
    let again = open(store, &reference(&digest)).await;
    assert_eq!(again.status().await.unwrap().offset, 0);
    drop((writer, again));
    store.abort(&reference(&digest)).await.unwrap();
}

pub(super) async fn other_digest_algorithms_are_computed(store: &dyn Store, _: Features) {
    for (algorithm, told) in
        [(Algorithm::Sha384, true), (Algorithm::Sha512, true), (Algorithm::Sha512, false)]
    {
        let since = SystemTime::now();
        let (bytes, sha256) = blob(1000);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let digest = hasher.finish();
        let expected = told.then(|| digest.clone());
        let options = WriterOptions { reference: reference(&digest), total: 1000, expected };
        let mut writer = store.writer(options).await.unwrap();
        write(&mut *writer, &bytes).await;
        writer.commit(1000, Some(digest.clone()), root_label()).await.unwrap();
        expect_blob(store, &digest, &bytes, since).await;
        assert_eq!(class(store.info(&sha256).await), Class::NotFound);
        store.delete(&digest).await.unwrap();
    }
}

pub(super) async fn writers_of_one_blob_commit_it_once(store: &dyn Store, _: Features) {
    let (bytes, digest) = blob(4096);
    let mut writers = Vec::new();
    for i in 0..4 {
        let mut writer = open(store, &format!("{}-{i}", reference(&digest))).await;
        write(&mut *writer, &bytes).await;
        writers.push(writer);
    }
    let [a, b, c, d] = &mut writers[..] else { unreachable!("four were made") };
    let results = tokio::join!(
        a.commit(4096, Some(digest.clone()), root_label()),
        b.commit(4096, Some(digest.clone()), root_label()),
        c.commit(4096, Some(digest.clone()), root_label()),
        d.commit(4096, Some(digest.clone()), root_label()),
    );
    let results: [_; 4] = results.into();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.class(), Class::AlreadyExists);
    }
    assert_eq!(store.info(&digest).await.unwrap().size, 4096);
}

pub(super) async fn labels_are_set_and_changed(store: &dyn Store, features: Features) {
    if !features.labels {
        return;
    }
    let (bytes, digest) = blob(64);
    let labels = |pairs: &[(&str, &str)]| {
        let mut labels = root_label();
        labels.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        labels
    };
    let mut writer = open(store, &reference(&digest)).await;
    write(&mut *writer, &bytes).await;
    writer.commit(0, None, labels(&[("k1", "v1"), ("k2", "v2")])).await.unwrap();
    let mut info = store.info(&digest).await.unwrap();
    assert_eq!(info.labels, labels(&[("k1", "v1"), ("k2", "v2")]));

    info.labels = labels(&[("k1", "new"), ("k3", "v3")]);
    let updated = store.update(info.clone(), &FieldPaths::default()).await.unwrap();
    assert_eq!((updated.labels, updated.size), (info.labels.clone(), 64));

    info.labels = labels(&[("k1", "v1")]);
    let paths = FieldPaths(vec!["labels.k3".to_owned(), "labels.k1".to_owned()]);
    store.update(info.clone(), &paths).await.unwrap();
    assert_eq!(store.info(&digest).await.unwrap().labels, labels(&[("k1", "v1")]));

    let paths = FieldPaths(vec!["size".to_owned()]);
    assert_eq!(class(store.update(info, &paths).await), Class::InvalidArgument);
}
