//! Certificates: which are believed, and what is said about those that are not.

use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use registry::fake::{Certificate, Fake, Setup};
use registry::{Anonymous, Registry, Scheme, Settings};
use types::reference::Reference;

use crate::setup::{client, client_with, image};

fn with_tls(kind: Certificate) -> (Fake, Reference) {
    let fake = Fake::with(Setup { tls: Some(kind), ..Setup::default() });
    let (_, reference) = image(&fake);
    (fake, reference)
}

/// A client that believes in the registry's authority, by its file, and is asked to verify.
fn believing(fake: &Fake, root: &Path) -> Registry {
    let directory = root.join(fake.host());
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.pem"), fake.ca().unwrap()).unwrap();
    let text = format!("server = {:?}\nca = \"ca.pem\"\nskip_verify = false", fake.origin());
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
    client_with(Settings { config_path: vec![root.to_owned()], ..Settings::default() }, Arc::new(Anonymous))
}

#[tokio::test]
async fn a_certificate_of_a_configured_authority_is_believed_and_so_is_one_that_is_configured_itself() {
    for kind in [Certificate::Good, Certificate::SelfSigned] {
        let (fake, reference) = with_tls(kind);
        let root = tempfile::tempdir().unwrap();
        believing(&fake, root.path()).resolve(&reference).await.unwrap();
    }
}

#[tokio::test]
async fn a_bad_certificate_is_an_error_that_says_what_is_bad() {
    for (kind, words) in [
        (Certificate::Expired, "expired"),
        (Certificate::WrongName, "not valid for name"),
        (Certificate::UnknownAuthority, "unknown authority"),
    ] {
        let (fake, reference) = with_tls(kind);
        let root = tempfile::tempdir().unwrap();
        let error = believing(&fake, root.path()).resolve(&reference).await.unwrap_err();
        assert!(error.to_string().contains(words) && error.to_string().contains(fake.origin()), "{error}");
        assert!(fake.requests().is_empty(), "nothing was sent, least of all in the clear");
    }
}

#[tokio::test]
async fn this_machine_and_whoever_skips_are_not_verified() {
    let (_fake, reference) = with_tls(Certificate::Expired);
    client().resolve(&reference).await.unwrap();
    let https = Settings { default_scheme: Some(Scheme::Https), ..Settings::default() };
    client_with(https.clone(), Arc::new(Anonymous)).resolve(&reference).await.unwrap_err();
    let skip = Settings { skip_verify: true, ..https };
    client_with(skip, Arc::new(Anonymous)).resolve(&reference).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_host_and_to_nobody_it_redirects_to() {
    let (fake, reference) = with_tls(Certificate::WantsClient);
    let (certificate, key) = fake.client().unwrap();
    let root = tempfile::tempdir().unwrap();
    let (c, k) = (root.path().join("c.pem"), root.path().join("k.pem"));
    std::fs::write(&c, certificate).unwrap();
    std::fs::write(&k, key).unwrap();
    let settings = Settings { client: Some((c, k)), skip_verify: true, ..Settings::default() };
    client_with(settings.clone(), Arc::new(Anonymous)).resolve(&reference).await.unwrap();
    let error = client().resolve(&reference).await.unwrap_err();
    assert!(error.to_string().contains("ertificate"), "{error}");

    let (other, reference) = with_tls(Certificate::Good);
    other.fault(
        registry::fake::When::path(""),
        registry::fake::Fault::Redirect(307, format!("{}/gone", fake.origin())),
    );
    client_with(settings, Arc::new(Anonymous)).resolve(&reference).await.unwrap_err();
    assert_eq!(fake.count("HEAD", "/gone"), 0, "without the certificate there is no connection");
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let (fake, reference) = with_tls(Certificate::Good);
    let root = tempfile::tempdir().unwrap();
    let client = believing(&fake, root.path());
    std::fs::write(root.path().join(fake.host()).join("ca.pem"), "nothing").unwrap();
    let error = client.resolve(&reference).await.unwrap_err();
    assert!(
        error.to_string().contains("no certificates in") && error.to_string().contains("ca.pem"),
        "{error}"
    );
}

/// How somebody who does not speak TLS ends a connection that begins with it.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Having read what came.
    Close,
    /// Without reading.
    Reset,
}

/// Stands before a registry without TLS, and ends what begins with it without a word; its address.
fn without_tls(fake: &Fake, end: End) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, registry) = (listener.local_addr().unwrap().to_string(), fake.host());
    let pass = move |mut stream: TcpStream, registry: String| {
        let mut first = [0; 4096];
        let length = stream.peek(&mut first).unwrap_or(0);
        if length == 0 || first[0] == 0x16 {
            if let End::Close = end {
                let _ = stream.read(&mut first);
            }
            return;
        }
        let server = TcpStream::connect(registry).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut &stream, &mut &server);
                let _ = server.shutdown(Shutdown::Write);
            });
            let _ = std::io::copy(&mut &server, &mut &stream);
            let _ = stream.shutdown(Shutdown::Both);
        });
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let registry = registry.clone();
            std::thread::spawn(move || pass(stream, registry));
        }
    });
    address
}

#[tokio::test]
async fn this_machine_is_asked_in_the_clear_if_it_ends_what_begins_with_tls() {
    for end in [End::Close, End::Reset] {
        let fake = Fake::start();
        image(&fake);
        let reference = format!("{}/library/x:1", without_tls(&fake, end));
        let reference = Reference::normalize(&reference).unwrap();
        client().resolve(&reference).await.unwrap_or_else(|error| panic!("{end:?}: {error}"));
        fake.forget_requests();
        // Not if TLS is what was asked for.
        let https = Settings { default_scheme: Some(Scheme::Https), ..Settings::default() };
        client_with(https, Arc::new(Anonymous)).resolve(&reference).await.unwrap_err();
        assert!(fake.requests().is_empty(), "{end:?}");
    }
}
