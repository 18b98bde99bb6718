//! What is there is not sent, what can be taken over is taken over, and what breaks is begun again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use registry::fake::{Auth, Fake, Fault, Setup, When};
use registry::{Credential, Fixed, Offer, Pushed, Registry, Settings, Source};
use types::oci::image::{Descriptor, media};
use types::reference::Reference;
use types::{Class, Digest, Error, Result};

use crate::setup::{client, client_with};

fn blob(size: usize) -> (Descriptor, Source) {
    let bytes = Bytes::from(vec![7; size]);
    let descriptor = Descriptor::new(media::OCI_LAYER, Digest::of(&bytes), size as u64);
    let source: Source = Arc::new(move || {
        let chunks: Vec<Result<Bytes>> =
            bytes.chunks(10_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        stream::iter(chunks).boxed()
    });
    (descriptor, source)
}

fn reference(fake: &Fake) -> Reference {
    Reference::normalize(&fake.reference("library/new", "1")).unwrap()
}

async fn send(client: &Registry, fake: &Fake, blob: &Descriptor, source: Source) -> Result<()> {
    match client.pusher(&reference(fake)).blob(blob, &[]).await? {
        Offer::Wanted(upload) => upload.send(source).await,
        Offer::Exists | Offer::Mounted(_) => Err(Error::already_exists("there")),
    }
}

#[tokio::test]
async fn a_blob_and_its_manifest_are_sent_once() {
    let fake = Fake::start();
    let (blob, source) = blob(1_000_000);
    let client = client();
    send(&client, &fake, &blob, source).await.unwrap();
    assert_eq!(fake.blob("library/new", &blob.digest).unwrap().len(), 1_000_000);
    let put = fake.requests().into_iter().find(|r| r.method == "PUT").unwrap();
    assert_eq!(put.headers["content-length"], "1000000");
    let pusher = client.pusher(&reference(&fake));
    assert!(matches!(pusher.blob(&blob, &[]).await.unwrap(), Offer::Exists));

    let manifest = serde_json::json!({"schemaVersion": 2, "config": blob, "layers": []}).to_string();
    let manifest = Bytes::from(manifest);
    let descriptor = Descriptor::new(media::OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64);
    assert_eq!(pusher.manifest(&descriptor, manifest.clone(), Some("1")).await.unwrap(), Pushed::New);
    assert_eq!(pusher.manifest(&descriptor, manifest.clone(), Some("1")).await.unwrap(), Pushed::Exists);
    assert_eq!(pusher.manifest(&descriptor, manifest.clone(), None).await.unwrap(), Pushed::Exists);
    assert_eq!(fake.manifest("library/new", "1").unwrap(), (media::OCI_MANIFEST.to_owned(), manifest));
    assert!(pusher.manifest(&descriptor, Bytes::new(), Some("../x")).await.is_err());
}

#[tokio::test]
async fn a_blob_that_another_repository_has_is_taken_over() {
    let fake = Fake::with(Setup { auth: Auth::Bearer(None), ..Setup::default() });
    let (blob, _) = blob(10);
    fake.add_blob("library/old", vec![7; 10]);
    let pusher = client().pusher(&reference(&fake));
    let offer = pusher.blob(&blob, &["library/none".into(), "library/old".into()]).await.unwrap();
    // A registry that does not mount begins an upload instead; it is used, and no other repository is tried.
    assert!(matches!(offer, Offer::Wanted(_)));
    let offer = pusher.blob(&blob, &["library/old".into()]).await.unwrap();
    assert!(matches!(offer, Offer::Mounted(from) if from == "library/old"));
    let token = fake.requests().into_iter().rfind(|r| r.target.starts_with("/token")).unwrap();
    assert!(token.target.contains("library%2Fold") && token.target.contains("push"), "{}", token.target);
}

#[tokio::test]
async fn an_upload_that_breaks_is_begun_again() {
    for fault in [Fault::Status(500), Fault::Reset(0), Fault::Status(429)] {
        let fake = Fake::start();
        fake.fault(When::path("/uploads/upload").method("PUT").times(1), fault.clone());
        let (blob, source) = blob(300_000);
        send(&client(), &fake, &blob, source).await.unwrap();
        assert!(fake.blob("library/new", &blob.digest).is_some(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_registry_that_refuses_is_an_error_with_its_words() {
    for (fault, class) in
        [(Fault::Status(403), Class::PermissionDenied), (Fault::Status(500), Class::Unavailable)]
    {
        let fake = Fake::start();
        fake.fault(When::path("/uploads/").method("POST"), fault);
        let (blob, source) = blob(10);
        let error = send(&client(), &fake, &blob, source).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(
            error.to_string().contains("the fake registry says") && error.to_string().contains(fake.origin()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_the_registrys_fault() {
    let fake = Fake::start();
    let (blob, _) = blob(10);
    let source: Source = Arc::new(|| stream::iter([Err(Error::data_loss("blob is damaged"))]).boxed());
    let error = send(&client(), &fake, &blob, source).await.unwrap_err();
    assert_eq!(error.class(), Class::DataLoss, "{error}");
    assert!(error.to_string().contains("blob is damaged"), "{error}");
    assert!(fake.count("PUT", "") <= 1);
}

#[tokio::test]
async fn an_upload_elsewhere_gets_no_secret_and_forbidden_places_no_upload() {
    let fake = Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() });
    let elsewhere = Fake::start();
    let credential = Credential::Basic { user: "u".into(), secret: "sesame".into() };
    let mut headers = http::HeaderMap::new();
    headers.insert("x-secret", "1".parse().unwrap());
    let client = client_with(Settings { headers, ..Settings::default() }, Arc::new(Fixed(credential)));
    for location in
        [format!("{}/upload", elsewhere.origin()), "http://169.254.169.254/".into(), "file:///x".into()]
    {
        fake.heal();
        fake.fault(When::path("/uploads/").method("POST"), Fault::Header("location", location));
        let (blob, source) = blob(10);
        let error = send(&client, &fake, &blob, source).await.unwrap_err();
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
    let seen = elsewhere.requests();
    assert!(!seen.is_empty());
    assert!(
        seen.iter().all(|r| !r.headers.contains_key("authorization") && !r.headers.contains_key("x-secret"))
    );
}

#[tokio::test]
async fn whoever_may_not_push_is_told_so() {
    let fake = Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() });
    let (blob, source) = blob(10);
    let error = send(&client(), &fake, &blob, source).await.unwrap_err();
    assert_eq!(error.class(), Class::Unauthenticated, "{error}");
    assert!(error.to_string().contains("push access denied"), "{error}");
}
