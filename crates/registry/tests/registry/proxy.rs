//! Proxies from the environment. The environment is the process's: each case is a process of its own.

use std::process::Command;
use std::sync::Arc;

use registry::fake::Fake;
use registry::{Anonymous, Scheme, Settings};
use types::reference::Reference;

use crate::setup::{client_with, image};

/// Resolves the reference in the environment; run by the tests below.
#[tokio::test]
#[ignore = "run by the tests of this file with an environment of its own"]
async fn child() {
    let Ok(reference) = std::env::var("TEST_REFERENCE") else { return };
    let settings = Settings { default_scheme: Some(Scheme::Http), ..Settings::default() };
    let reference = Reference::normalize(&reference).unwrap();
    client_with(settings, Arc::new(Anonymous)).resolve(&reference).await.unwrap();
}

fn resolve(reference: &str, environment: &[(&str, &str)]) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "proxy::child"]).env("TEST_REFERENCE", reference);
    for name in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY"]
    {
        child.env_remove(name);
    }
    child.envs(environment.iter().copied()).output().unwrap().status.success()
}

#[test]
fn a_registry_is_reached_through_the_proxy_unless_it_is_excepted() {
    let proxy = Fake::start();
    image(&proxy);
    let reference = "r.invalid/library/x:1";
    assert!(resolve(reference, &[("HTTP_PROXY", proxy.origin())]));
    assert!(proxy.requests().iter().any(|r| r.headers["host"] == "r.invalid"));
    assert!(!resolve(reference, &[("HTTP_PROXY", proxy.origin()), ("NO_PROXY", "r.invalid")]));
}

#[test]
fn this_machine_is_not_asked_for_through_a_proxy() {
    let (proxy, fake) = (Fake::start(), Fake::start());
    let (_, reference) = image(&fake);
    assert!(resolve(&reference.to_string(), &[("HTTP_PROXY", proxy.origin())]));
    assert!(proxy.requests().is_empty() && !fake.requests().is_empty());
}
