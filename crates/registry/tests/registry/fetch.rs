//! Names become descriptors, descriptors become bytes, and what breaks on the way is taken up again.

use std::time::Duration;

use registry::fake::{Fake, Fault, When};
use types::oci::image::media;
use types::{Class, Digest};

use crate::setup::{client, drain, image};

#[tokio::test]
async fn a_tag_becomes_a_descriptor_and_the_descriptor_its_content() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let client = client();
    let (name, found) = client.resolve(&reference).await.unwrap();
    assert_eq!(name, reference.to_string());
    assert_eq!((&found.digest, found.size), (&image.manifest.digest, image.manifest.size));
    assert_eq!(found.media_type, media::OCI_MANIFEST);

    let fetcher = client.fetcher(&reference);
    let manifest = fetcher.fetch_all(&found, 1 << 20).await.unwrap();
    assert_eq!(Digest::of(&manifest), found.digest);
    let body = fetcher.open(&image.layers[0], 0).await.unwrap();
    assert_eq!(body.size(), Some(3_000_000));
    assert_eq!(body.host(), fake.origin());
    assert_eq!(Digest::of(&drain(body).await.unwrap()), image.layers[0].digest);
    let tail = drain(fetcher.open(&image.layers[0], 2_999_990).await.unwrap()).await.unwrap();
    assert_eq!(tail.len(), 10);
    assert!(drain(fetcher.open(&image.layers[0], 3_000_000).await.unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_again_where_it_ended() {
    for (at, fault) in [
        (0, Fault::Reset(0)),
        (1, Fault::Reset(1)),
        (1_500_000, Fault::Reset(1_500_000)),
        (2_999_999, Fault::Truncate(2_999_999)),
        (1_000, Fault::Stall(1_000, Duration::from_secs(60))),
    ] {
        let fake = Fake::start();
        let (image, reference) = image(&fake);
        fake.fault(When::path("/blobs/").times(1), fault.clone());
        let body = client().fetcher(&reference).open(&image.layers[0], 0).await;
        let bytes = drain(body.unwrap()).await.unwrap();
        assert_eq!(Digest::of(&bytes), image.layers[0].digest, "{fault:?}");
        let last = fake.requests().pop().unwrap();
        let range = last.headers.get("range").map(|v| v.to_str().unwrap().to_owned());
        if at > 1_000 {
            assert!(range.unwrap().ends_with("-2999999"), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_for_ever_is_an_error_with_host_and_reason() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    fake.fault(When::path("/blobs/"), Fault::Reset(0));
    let body = client().fetcher(&reference).open(&image.layers[0], 0).await;
    let error = match body {
        Ok(body) => drain(body).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains(fake.origin()), "{error}");
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(fake.count("GET", "/blobs/") < 50);
}

#[tokio::test]
async fn a_host_that_ignores_ranges_is_read_from_the_start() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    fake.fault(When::path("/blobs/"), Fault::IgnoreRange);
    let client = client();
    let fetcher = client.fetcher(&reference);
    let tail = drain(fetcher.open(&image.layers[0], 2_000_000).await.unwrap()).await.unwrap();
    assert_eq!(tail.len(), 1_000_000);
    let error = fetcher.open_range(&image.layers[0], 5..10).await.err().unwrap();
    assert_eq!(error.class(), Class::Unimplemented, "{error}");
}

#[tokio::test]
async fn a_bounded_range_is_fetched_alone() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let body = client().fetcher(&reference).open_range(&image.layers[0], 256..300).await.unwrap();
    assert_eq!(body.size(), Some(44));
    assert_eq!(drain(body).await.unwrap(), (0..44).collect::<Vec<u8>>());
    assert_eq!(fake.requests().pop().unwrap().headers["range"], "bytes=256-299");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let fake = Fake::start();
    let (mut image, mut reference) = image(&fake);
    image.layers[0].digest = Digest::of(b"other");
    let client = client();
    let error = client.fetcher(&reference).open(&image.layers[0], 0).await.err().unwrap();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    reference.tag = Some("2".into());
    let error = client.resolve(&reference).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
}

#[tokio::test]
async fn a_digest_alone_is_found_among_blobs_and_manifests() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let fetcher = client().fetcher(&reference);
    for wanted in [&image.layers[0], &image.manifest] {
        let found = fetcher.describe(&wanted.digest).await.unwrap();
        assert_eq!(found.size, wanted.size);
        assert_eq!(Digest::of(&drain(fetcher.open(&found, 0).await.unwrap()).await.unwrap()), wanted.digest);
    }
    let error = fetcher.describe(&Digest::of(b"nothing")).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
}
