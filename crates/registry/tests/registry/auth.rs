//! Challenges are answered a bounded number of times, and credentials go to nobody who was not configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use registry::fake::{Auth, Fake, Fault, Setup, When};
use registry::{Anonymous, Ask, Credential, Credentials, Fixed, Registry, Settings};
use types::{Class, Result};

use crate::setup::{client_with, drain, image};

fn password() -> Credential {
    Credential::Basic { user: "u".into(), secret: "sesame".into() }
}

fn knows(credential: Credential) -> Registry {
    client_with(Settings::default(), Arc::new(Fixed(credential)))
}

fn bearer(credentials: Option<(&str, &str)>) -> Setup {
    let credentials = credentials.map(|(user, secret)| (user.to_owned(), secret.to_owned()));
    Setup { auth: Auth::Bearer(credentials), ..Setup::default() }
}

#[tokio::test]
async fn basic_and_bearer_let_in_whoever_knows_the_password() {
    for setup in [
        Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() },
        bearer(Some(("u", "sesame"))),
    ] {
        let fake = Fake::with(setup);
        let (image, reference) = image(&fake);
        let client = knows(password());
        client.resolve(&reference).await.unwrap();
        drain(client.fetcher(&reference).open(&image.layers[0], 0).await.unwrap()).await.unwrap();

        let wrong = knows(Credential::Basic { user: "u".into(), secret: "wrong".into() });
        let error = wrong.resolve(&reference).await.unwrap_err();
        assert_eq!(error.class(), Class::Unauthenticated, "{error}");
        assert!(
            error.to_string().contains("pull access denied") && error.to_string().contains(&fake.host()),
            "{error}"
        );
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}

#[tokio::test]
async fn anybody_gets_a_token_where_tokens_are_for_all_and_one_serves_all_layers() {
    let fake = Fake::with(bearer(None));
    let (image, reference) = image(&fake);
    let client = client_with(Settings::default(), Arc::new(Anonymous));
    client.resolve(&reference).await.unwrap();
    let fetcher = client.fetcher(&reference);
    let (a, b) = tokio::join!(fetcher.open(&image.layers[0], 0), fetcher.open(&image.layers[1], 0));
    drain(a.unwrap()).await.unwrap();
    drain(b.unwrap()).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_refresh_token_is_exchanged() {
    let fake = Fake::with(bearer(Some(("u", "refresh"))));
    let (_, reference) = image(&fake);
    knows(Credential::RefreshToken("refresh".into())).resolve(&reference).await.unwrap();
    let post = fake.requests().into_iter().find(|r| r.method == "POST").unwrap();
    assert!(String::from_utf8_lossy(&post.body).contains("grant_type=refresh_token"));
}

#[tokio::test]
async fn a_token_server_without_post_is_asked_by_get() {
    let fake = Fake::with(bearer(Some(("u", "sesame"))));
    let (_, reference) = image(&fake);
    fake.fault(When::path("/token").method("POST"), Fault::Status(404));
    knows(password()).resolve(&reference).await.unwrap();
}

#[tokio::test]
async fn a_token_that_ran_out_between_layers_is_fetched_again() {
    let fake = Fake::with(bearer(None));
    let (image, reference) = image(&fake);
    let client = client_with(Settings::default(), Arc::new(Anonymous));
    client.resolve(&reference).await.unwrap();
    fake.revoke_tokens();
    drain(client.fetcher(&reference).open(&image.layers[0], 0).await.unwrap()).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_registry_that_never_lets_in_is_asked_a_few_times() {
    for challenge in [
        "Bearer realm=\"/token\",service=\"s\"",
        "Basic realm=\"x\"",
        "Digest realm=\"x\"",
        "",
        "Bearer",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"http://169.254.169.254/token\"",
        "Bearer realm=\"http://[fe80::1]/\"",
        "Bearer realm=\"::::\"",
    ] {
        let fake = Fake::with(Setup { auth: Auth::Never(challenge.into()), ..Setup::default() });
        let (_, reference) = image(&fake);
        let error = knows(password()).resolve(&reference).await.unwrap_err();
        assert!(error.to_string().contains(fake.origin()), "{error}");
        assert!(!error.to_string().contains("sesame"), "{error}");
        assert!(fake.requests().len() < 10, "{challenge}: {}", fake.requests().len());
    }
}

#[tokio::test]
async fn a_token_server_that_lies_is_an_error_that_says_so() {
    for (fault, words) in [
        (Fault::Body("{}".into()), "did not include a token"),
        (Fault::Body("<html>".into()), "not JSON"),
        (Fault::Endless, "larger than the limit"),
        (Fault::Status(500), "500 Internal Server Error"),
        (Fault::Stall(1, std::time::Duration::from_secs(60)), "nothing came"),
    ] {
        let fake = Fake::with(bearer(None));
        let (_, reference) = image(&fake);
        fake.fault(When::path("/token"), fault);
        let error =
            client_with(Settings::default(), Arc::new(Anonymous)).resolve(&reference).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(fake.origin()), "{error}");
    }
}

#[tokio::test]
async fn configured_headers_do_not_reach_a_token_server_elsewhere() {
    let tokens = Fake::with(bearer(None));
    let realm = Some(format!("{}/token", tokens.origin()));
    let fake = Fake::with(Setup { realm, ..bearer(None) });
    let (_, reference) = image(&fake);
    let mut headers = http::HeaderMap::new();
    headers.insert("x-secret", "1".parse().unwrap());
    headers.insert("cookie", "c".parse().unwrap());
    let client = client_with(Settings { headers, ..Settings::default() }, Arc::new(Fixed(password())));
    // The registry does not know the other's tokens: what counts is what was sent there.
    client.resolve(&reference).await.unwrap_err();
    let seen = tokens.requests();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|r| !r.headers.contains_key("x-secret") && !r.headers.contains_key("cookie")));
    assert!(fake.requests().iter().all(|r| r.headers.contains_key("x-secret")));
}

struct Second(AtomicUsize);

#[async_trait]
impl Credentials for Second {
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let secret = if ask.refused == 0 { "old" } else { "sesame" };
        assert!(ask.challenge.starts_with("Basic") && ask.reference.contains("library/x"));
        Ok(Some(Credential::Basic { user: "u".into(), secret: secret.into() }))
    }
}

#[tokio::test]
async fn whoever_knows_credentials_is_asked_again_when_they_are_refused() {
    let fake = Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() });
    let (_, reference) = image(&fake);
    let second = Arc::new(Second(AtomicUsize::new(0)));
    client_with(Settings::default(), second.clone()).resolve(&reference).await.unwrap();
    assert_eq!(second.0.load(Ordering::Relaxed), 2);
}
