//! Mirrors come first, are told whose they are, and are left for the next host quickly.

use std::sync::Arc;

use registry::fake::{Fake, Fault, When};
use registry::{Anonymous, Registry, Settings};
use types::Class;
use types::reference::Reference;

use crate::setup::{client_with, drain, image};

/// A client whose file about `registry` is `text`.
fn with_file(registry: &str, text: &str) -> (tempfile::TempDir, Registry) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(registry)).unwrap();
    std::fs::write(root.path().join(registry).join("hosts.toml"), text).unwrap();
    let settings = Settings { config_path: vec![root.path().to_owned()], ..Settings::default() };
    let client = client_with(settings, Arc::new(Anonymous));
    (root, client)
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_for_whom() {
    let (mirror, server) = (Fake::start(), Fake::start());
    let text = format!(
        "server = {:?}\n[host.{:?}]\n[host.{:?}.header]\nx-m = \"1\"",
        server.origin(),
        mirror.origin(),
        mirror.origin()
    );
    let (_root, client) = with_file("r.example", &text);
    let (image, _) = image(&mirror);
    let reference = Reference::normalize("r.example/library/x:1").unwrap();
    let (_, found) = client.resolve(&reference).await.unwrap();
    drain(client.fetcher(&reference).open(&found, 0).await.unwrap()).await.unwrap();
    assert_eq!(found.digest, image.manifest.digest);
    assert!(mirror.requests().iter().all(|r| r.target.ends_with("?ns=r.example") && r.headers["x-m"] == "1"));
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_mirror_that_fails_is_left_for_the_server_at_once() {
    for fault in [
        Fault::Status(503),
        Fault::Status(404),
        Fault::Status(403),
        Fault::Reset(0),
        Fault::Hang(std::time::Duration::from_secs(9)),
    ] {
        let (mirror, server) = (Fake::start(), Fake::start());
        mirror.fault(When::path(""), fault.clone());
        let (_root, client) =
            with_file("r.example", &format!("server = {:?}\n[host.{:?}]", server.origin(), mirror.origin()));
        let (image, _) = image(&server);
        let reference = Reference::normalize("r.example/library/x:1").unwrap();
        client.resolve(&reference).await.unwrap();
        drain(client.fetcher(&reference).open(&image.layers[0], 0).await.unwrap()).await.unwrap();
        assert!(mirror.requests().len() <= 4, "{fault:?}: {}", mirror.requests().len());
    }
}

#[tokio::test]
async fn a_layer_that_breaks_at_a_mirror_goes_on_at_the_server() {
    let (mirror, server) = (Fake::start(), Fake::start());
    let (image, _) = image(&mirror);
    crate::setup::image(&server);
    mirror.fault(When::path("/blobs/").times(1), Fault::Reset(1_000_000));
    mirror.fault(When::path("/blobs/").after(1), Fault::Status(503));
    let (_root, client) =
        with_file("r.example", &format!("server = {:?}\n[host.{:?}]", server.origin(), mirror.origin()));
    let reference = Reference::normalize("r.example/library/x:1").unwrap();
    let bytes = drain(client.fetcher(&reference).open(&image.layers[0], 0).await.unwrap()).await.unwrap();
    assert_eq!(types::Digest::of(&bytes), image.layers[0].digest);
    let range = server.requests().pop().unwrap().headers["range"].clone();
    assert!(!range.to_str().unwrap().starts_with("bytes=0-"), "{range:?}");
}

#[tokio::test]
async fn a_host_without_the_capability_is_not_asked() {
    let (mirror, server) = (Fake::start(), Fake::start());
    image(&mirror);
    image(&server);
    let text =
        format!("server = {:?}\n[host.{:?}]\ncapabilities = [\"pull\"]", server.origin(), mirror.origin());
    let (_root, client) = with_file("r.example", &text);
    let reference = Reference::normalize("r.example/library/x:1").unwrap();
    client.resolve(&reference).await.unwrap();
    assert!(mirror.requests().is_empty(), "a tag is for those who resolve");

    let (_root, client) =
        with_file("r.example", &format!("server = {:?}\ncapabilities = [\"push\"]", server.origin()));
    let error = client.resolve(&reference).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
}

#[tokio::test]
async fn all_hosts_stand_in_the_error_with_their_reasons() {
    let (mirror, server) = (Fake::start(), Fake::start());
    mirror.fault(When::path(""), Fault::Status(403));
    let (_root, client) =
        with_file("r.example", &format!("server = {:?}\n[host.{:?}]", server.origin(), mirror.origin()));
    let reference = Reference::normalize("r.example/library/x:1").unwrap();
    let error = client.resolve(&reference).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(mirror.origin()) && text.contains("403 Forbidden: fake: "), "{text}");
    assert!(text.contains(server.origin()) && text.contains("not found"), "{text}");
    assert_eq!(error.class(), Class::PermissionDenied);
}

#[tokio::test]
async fn a_mistake_in_a_file_is_an_error_and_not_a_pull_from_elsewhere() {
    let fake = Fake::start();
    let (_, reference) = image(&fake);
    let (_root, client) = with_file(&fake.host(), "server = 1");
    let error = client.resolve(&reference).await.unwrap_err();
    assert!(error.to_string().contains("hosts.toml:1: server must be a string"), "{error}");
    assert!(fake.requests().is_empty());
}
