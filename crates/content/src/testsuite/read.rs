//! Committed blobs.

use types::filters::Filters;

use super::*;

pub(super) async fn any_part_of_a_blob_is_read(store: &dyn Store, _: Features) {
    let (bytes, digest) = committed(store, 3_000_000).await;
    let reader = store.reader(&digest).await.unwrap();
    assert_eq!(reader.size(), 3_000_000);
    for (offset, len) in [(0_usize, 10_usize), (1, 1), (2_999_999, 1), (1_234_567, 70_000)] {
        let mut read = Vec::new();
        while read.len() < len {
            let piece = reader.read_at((offset + read.len()) as u64, len - read.len()).await.unwrap();
            assert!(!piece.is_empty() && piece.len() <= len - read.len());
            read.extend_from_slice(&piece);
        }
        assert!(read == bytes[offset..offset + len]);
    }
    if let Some(mut file) = reader.file() {
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut read).unwrap();
        assert!(read == bytes);
    }
}

pub(super) async fn reading_past_the_end_gives_nothing(store: &dyn Store, _: Features) {
    let (bytes, digest) = committed(store, 6).await;
    let reader = store.reader(&digest).await.unwrap();
    assert_eq!(&reader.read_at(0, 1000).await.unwrap()[..], bytes);
    assert_eq!(&reader.read_at(5, 1000).await.unwrap()[..], &bytes[5..]);
    assert!(reader.read_at(6, 1000).await.unwrap().is_empty());
}

pub(super) async fn what_is_not_there_is_not_found(store: &dyn Store, _: Features) {
    let (_, digest) = blob(8);
    assert_eq!(class(store.info(&digest).await), Class::NotFound);
    assert_eq!(class(store.reader(&digest).await), Class::NotFound);
    assert_eq!(class(store.delete(&digest).await), Class::NotFound);
    assert_eq!(class(store.status(&reference(&digest)).await), Class::NotFound);
    assert_eq!(class(store.abort(&reference(&digest)).await), Class::NotFound);
}

pub(super) async fn a_deleted_blob_is_gone(store: &dyn Store, _: Features) {
    let (bytes, digest) = committed(store, 50).await;
    store.delete(&digest).await.unwrap();
    assert_eq!(class(store.info(&digest).await), Class::NotFound);
    assert_eq!(class(store.delete(&digest).await), Class::NotFound);
    let mut writer = open(store, &reference(&digest)).await;
    write(&mut *writer, &bytes).await;
    writer.commit(50, Some(digest.clone()), root_label()).await.unwrap();
    assert_eq!(store.info(&digest).await.unwrap().size, 50);
}

pub(super) async fn walking_is_ordered_and_filtered(store: &dyn Store, _: Features) {
    let mut digests = Vec::new();
    for _ in 0..10 {
        digests.push(committed(store, 30).await.1);
    }
    digests.sort();
    let walk = async |filters: &[String]| {
        let mut seen = Vec::new();
        let filters = Filters::parse(filters).unwrap();
        store
            .walk(&filters, &mut |info| {
                seen.push(info.digest);
                Ok(())
            })
            .await
            .unwrap();
        seen
    };
    let all = walk(&[]).await;
    assert!(all.is_sorted(), "a walk is ordered by digest");
    assert!(digests.iter().all(|digest| all.contains(digest)));
    assert_eq!(walk(&[format!("digest=={}", digests[3])]).await, digests[3..4]);
    let two = [format!("digest~=^{}$", digests[0]), format!("digest=={}", digests[9])];
    assert_eq!(walk(&two).await, [digests[0].clone(), digests[9].clone()]);
    assert!(walk(&["digest==nothing".to_owned()]).await.is_empty());
}

pub(super) async fn an_error_of_the_caller_ends_the_walk(store: &dyn Store, _: Features) {
    committed(store, 30).await;
    committed(store, 30).await;
    let mut calls = 0;
    let mut each = |_| {
        calls += 1;
        Err(types::Error::out_of_range("enough"))
    };
    assert_eq!(class(store.walk(&Filters::default(), &mut each).await), Class::OutOfRange);
    assert_eq!(calls, 1);
}
