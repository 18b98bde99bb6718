//! A registry that lies about content: each lie is an error that names the host and says what is wrong.

use std::time::Duration;

use registry::Registry;
use registry::fake::{Fake, Fault, Image, When};
use types::oci::image::{Descriptor, media};
use types::reference::Reference;
use types::{Class, Digest, Error};

use crate::setup::{client, drain, image};

async fn fetch_all(client: &Registry, image: &Image, reference: &Reference) -> Error {
    client.fetcher(reference).fetch_all(&image.manifest, 8 << 20).await.unwrap_err()
}

#[tokio::test]
async fn a_manifest_with_another_digest_or_size_is_refused() {
    for (fault, words) in [
        (Fault::Body("{}".into()), "sent 2 bytes for"),
        (Fault::Extra(1), "sent more than"),
        (Fault::Endless, "sent more than"),
        (
            Fault::Header("content-type", media::OCI_INDEX.into()),
            "which is \"application/vnd.oci.image.manifest.v1+json\"",
        ),
        (Fault::Encoding("gzip"), "which nobody asked for"),
    ] {
        let fake = Fake::start();
        let (image, reference) = image(&fake);
        fake.fault(When::path("/manifests/"), fault);
        let error = fetch_all(&client(), &image, &reference).await;
        assert!(error.to_string().contains(words) && error.to_string().contains(fake.origin()), "{error}");
        assert_eq!(error.class(), Class::DataLoss, "{error}");
    }
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let same_size = vec![b' '; usize::try_from(image.manifest.size).unwrap()];
    fake.fault(When::path("/manifests/"), Fault::Body(same_size.into()));
    let error = fetch_all(&client(), &image, &reference).await;
    assert!(error.to_string().contains("sent content with digest"), "{error}");
    fake.heal();
    client().fetcher(&reference).fetch_all(&image.manifest, 8 << 20).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_is_short_long_or_larger_than_said_is_refused() {
    for (fault, words) in [
        (Fault::Body("short".into()), "sent 5 bytes for"),
        (Fault::Extra(1), "sent more than the 3000000 bytes"),
        (Fault::Endless, "sent more than the 3000000 bytes"),
    ] {
        let fake = Fake::start();
        let (image, reference) = image(&fake);
        fake.fault(When::path("/blobs/"), fault);
        let error = match client().fetcher(&reference).open(&image.layers[0], 0).await {
            Ok(body) => drain(body).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(words) && error.to_string().contains(fake.origin()), "{error}");
        fake.heal();
        drain(client().fetcher(&reference).open(&image.layers[0], 0).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn ranges_that_lie_are_found_out() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    fake.fault(When::path("/blobs/"), Fault::WrongRange);
    let error = client().fetcher(&reference).open(&image.layers[0], 1000).await.err().unwrap();
    assert!(error.to_string().contains("sent the range"), "{error}");
    fake.heal();
    fake.fault(When::path("/blobs/"), Fault::RefuseRange);
    let tail =
        drain(client().fetcher(&reference).open(&image.layers[0], 2_999_000).await.unwrap()).await.unwrap();
    assert_eq!(tail.len(), 1000, "without a range it is read from the start");
}

#[tokio::test]
async fn a_name_with_a_digest_that_is_none_or_another_is_refused() {
    let fake = Fake::start();
    let (_, mut reference) = image(&fake);
    for bad in ["sha256:../../x", "sha256:00", "md5:x", "\u{fffd}"] {
        fake.heal();
        fake.fault(When::path("/manifests/"), Fault::Header("docker-content-digest", bad.into()));
        let error = client().resolve(&reference).await.unwrap_err();
        assert!(error.to_string().contains("not a valid digest"), "{error}");
    }
    fake.heal();
    let other = Digest::of(b"other");
    fake.fault(When::path("/manifests/"), Fault::Header("docker-content-digest", other.to_string()));
    reference.digest = Some(Digest::of(&fake.manifest("library/x", "1").unwrap().1));
    let error = client().resolve(&reference).await.unwrap_err();
    assert!(error.to_string().contains(other.as_str()), "{error}");
}

#[tokio::test]
async fn a_name_without_a_digest_is_resolved_by_its_content() {
    for name in ["docker-content-digest", "content-length", "content-type"] {
        let fake = Fake::start();
        let (image, reference) = image(&fake);
        fake.fault(When::path("/manifests/").method("HEAD"), Fault::NoHeader(name));
        let (_, found) = client().resolve(&reference).await.unwrap();
        assert_eq!(found, image.manifest, "{name}");
    }
}

#[tokio::test]
async fn a_head_that_is_not_allowed_becomes_a_get() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    fake.fault(When::path("/manifests/").method("HEAD"), Fault::Status(405));
    assert_eq!(client().resolve(&reference).await.unwrap().1, image.manifest);
}

#[tokio::test]
async fn schema_1_is_refused_by_name() {
    for kind in ["application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain; charset=utf-8"] {
        let fake = Fake::start();
        let (_, reference) = image(&fake);
        fake.fault(When::path("/manifests/"), Fault::Header("content-type", kind.into()));
        let error = client().resolve(&reference).await.unwrap_err();
        assert_eq!(error.class(), Class::Unimplemented, "{error}");
        assert!(error.to_string().contains("schema 1"), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_refused_before_it_is_read() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let large = Fault::Header("content-length", ((8 << 20) + 1).to_string());
    fake.fault(When::path("/manifests/").method("HEAD"), large);
    let error = client().resolve(&reference).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
    fake.heal();
    let error = client().fetcher(&reference).fetch_all(&image.manifest, 10).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn a_host_that_drips_is_given_up() {
    let fake = Fake::start();
    let (_, reference) = image(&fake);
    let blob = Descriptor::new(media::OCI_LAYER, fake.add_blob("library/x", vec![1; 200]), 200);
    fake.fault(When::path("/blobs/"), Fault::Slow(1, Duration::from_millis(50)));
    let body = client().fetcher(&reference).open(&blob, 0).await.unwrap();
    let error = drain(body).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn a_caller_that_takes_its_time_is_not_the_hosts_fault() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    let mut body = client().fetcher(&reference).open(&image.layers[0], 0).await.unwrap();
    let mut count = body.chunk().await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_millis(900)).await;
    while let Some(chunk) = body.chunk().await.unwrap() {
        count += chunk.len();
    }
    assert_eq!((count, fake.count("GET", "/blobs/")), (3_000_000, 1));
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_loses_no_bytes() {
    let fake = Fake::start();
    let (image, reference) = image(&fake);
    fake.fault(When::path("/blobs/").times(3), Fault::Reset(100_000));
    let mut body = client().fetcher(&reference).open(&image.layers[0], 0).await.unwrap();
    let mut all = Vec::new();
    loop {
        // Short enough to fall into waits and connections.
        match tokio::time::timeout(Duration::from_millis(25), body.chunk()).await {
            Ok(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => {}
        }
    }
    assert_eq!(Digest::of(&all), image.layers[0].digest);
}
