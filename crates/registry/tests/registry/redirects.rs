//! Redirects are bounded, and carry nothing to another origin that is not for it.

use std::sync::Arc;

use registry::fake::{Auth, Certificate, Fake, Fault, Setup, When};
use registry::{Credential, Fixed, Registry, Settings};
use types::oci::image::Descriptor;
use types::{Class, Digest};

use crate::setup::{client, client_with, drain, image};

fn secrets() -> (Settings, Arc<Fixed>) {
    let mut headers = http::HeaderMap::new();
    for name in ["x-secret", "cookie", "proxy-authorization"] {
        headers.insert(name, "sesame".parse().unwrap());
    }
    let credential = Credential::Basic { user: "u".into(), secret: "sesame".into() };
    (Settings { headers, ..Settings::default() }, Arc::new(Fixed(credential)))
}

fn with_secrets() -> Registry {
    let (settings, credentials) = secrets();
    client_with(settings, credentials)
}

fn guarded() -> Fake {
    Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() })
}

fn assert_no_secrets(fake: &Fake) {
    for request in fake.requests() {
        for name in ["authorization", "x-secret", "cookie", "proxy-authorization"] {
            assert!(!request.headers.contains_key(name), "{name} of {request:?}");
        }
    }
}

#[tokio::test]
async fn a_layer_may_lie_elsewhere_and_no_secret_goes_along() {
    let (registry, elsewhere) = (guarded(), Fake::start());
    let (image, reference) = image(&registry);
    elsewhere.add_file("/away", registry.blob("library/x", &image.layers[0].digest).unwrap());
    let location = format!("{}/away?X-Amz-Signature=signed", elsewhere.origin());
    registry.fault(When::path("/blobs/"), Fault::Redirect(307, location));
    let body = with_secrets().fetcher(&reference).open(&image.layers[0], 1000).await.unwrap();
    assert_eq!(body.host(), elsewhere.origin());
    assert_eq!(drain(body).await.unwrap().len(), 2_999_000);
    assert_eq!(elsewhere.requests()[0].headers["range"], "bytes=1000-2999999");
    assert_no_secrets(&elsewhere);
}

#[tokio::test]
async fn a_request_that_left_gets_its_secrets_back_from_nobody() {
    let (registry, elsewhere) = (guarded(), Fake::start());
    let (image, reference) = image(&registry);
    registry.fault(When::path("/blobs/").times(2), Fault::Redirect(302, format!("{}/x", elsewhere.origin())));
    elsewhere.fault(When::path("/x"), Fault::Redirect(302, format!("{}/back", registry.origin())));
    with_secrets().fetcher(&reference).open(&image.layers[0], 0).await.err().unwrap();
    let back = registry.requests().into_iter().find(|r| r.target == "/back").unwrap();
    assert!(
        !back.headers.contains_key("authorization") && !back.headers.contains_key("x-secret"),
        "{back:?}"
    );
    assert_no_secrets(&elsewhere);
}

#[tokio::test]
async fn a_challenge_from_elsewhere_is_not_answered() {
    let (registry, elsewhere) = (guarded(), guarded());
    let (image, reference) = image(&registry);
    registry.fault(
        When::path("/blobs/"),
        Fault::Redirect(307, format!("{}/v2/library/x/blobs/x", elsewhere.origin())),
    );
    let error = with_secrets().fetcher(&reference).open(&image.layers[0], 0).await.err().unwrap();
    assert!(
        error.to_string().contains("401 Unauthorized") && error.to_string().contains(elsewhere.origin()),
        "{error}"
    );
    assert_no_secrets(&elsewhere);
}

#[tokio::test]
async fn loops_and_forbidden_places_end() {
    for (location, words) in [
        ("/v2/library/x/blobs/again", "stopped after 10 redirects"),
        ("file:///etc/passwd", "neither http nor https"),
        ("unix:///run/containerd/containerd.sock", "neither http nor https"),
        ("http://169.254.169.254/latest/meta-data", "not to be reached"),
        ("http://[::ffff:169.254.169.254]/", "not to be reached"),
        ("http://2852039166/", "not to be reached"),
        ("http://0.0.0.0:1/", "not to be reached"),
        ("http://", "invalid location"),
    ] {
        let registry = Fake::start();
        let (image, reference) = image(&registry);
        registry.fault(When::path("/blobs/"), Fault::Redirect(302, location.into()));
        let error = client().fetcher(&reference).open(&image.layers[0], 0).await.err().unwrap();
        assert!(
            error.to_string().contains(words) && error.to_string().contains(registry.origin()),
            "{error}"
        );
        assert_eq!(error.class(), Class::PermissionDenied, "{error}");
        assert!(registry.count("GET", "/blobs/") <= 11);
    }
}

#[tokio::test]
async fn https_does_not_lead_to_http() {
    let (registry, plain) =
        (Fake::with(Setup { tls: Some(Certificate::Good), ..Setup::default() }), Fake::start());
    let (image, reference) = image(&registry);
    registry.fault(When::path("/blobs/"), Fault::Redirect(302, format!("{}/x", plain.origin())));
    let error = client().fetcher(&reference).open(&image.layers[0], 0).await.err().unwrap();
    assert!(error.to_string().contains("leaves https"), "{error}");
    assert!(plain.requests().is_empty());
}

/// A layer that may not be distributed, at `url`.
fn foreign(content: &'static [u8], media_type: &str, url: String) -> Descriptor {
    let mut layer = Descriptor::new(media_type, Digest::of(content), content.len() as u64);
    layer.urls = vec![url];
    layer
}

const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

#[tokio::test]
async fn a_foreign_layer_comes_from_its_url_without_any_secret() {
    let (registry, elsewhere) = (guarded(), Fake::start());
    let (_, reference) = image(&registry);
    elsewhere.add_file("/layer", "foreign");
    let layer = foreign(b"foreign", FOREIGN, format!("{}/layer", elsewhere.origin()));
    let client = with_secrets();
    client.resolve(&reference).await.unwrap();
    assert_eq!(drain(client.fetcher(&reference).open(&layer, 0).await.unwrap()).await.unwrap(), b"foreign");
    assert_no_secrets(&elsewhere);

    let hostile = guarded();
    let layer = foreign(b"foreign", FOREIGN, format!("{}/v2/a/blobs/b", hostile.origin()));
    let error = client.fetcher(&reference).open(&layer, 0).await.err().unwrap();
    assert!(error.to_string().contains(hostile.origin()), "{error}");
    assert_no_secrets(&hostile);
}

#[tokio::test]
async fn urls_of_anything_else_are_not_followed() {
    let (registry, elsewhere) = (Fake::start(), Fake::start());
    let (_, reference) = image(&registry);
    elsewhere.add_file("/x", "foreign");
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
    ] {
        let thing = foreign(b"foreign", media_type, format!("{}/x", elsewhere.origin()));
        client().fetcher(&reference).open(&thing, 0).await.err().unwrap();
    }
    for url in ["file:///etc/passwd", "http://169.254.169.254/", "http://[::ffff:a9fe:a9fe]/", "gopher://h/"]
    {
        let layer = foreign(b"foreign", FOREIGN, url.into());
        let error = client().fetcher(&reference).open(&layer, 0).await.err().unwrap();
        assert!(
            error.to_string().contains("not to be reached") || error.to_string().contains("neither http"),
            "{error}"
        );
    }
    assert!(elsewhere.requests().is_empty());
}
