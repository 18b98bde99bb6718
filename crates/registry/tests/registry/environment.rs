//! Proxies and credential helpers from the environment. The environment is the process's: each case is a process of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use registry::fake::{Auth, Fake, Setup};
use registry::{DockerConfig, Scheme, Settings};
use types::reference::Reference;

use crate::setup::{client_with, image};

/// Resolves the reference in the environment; run by the tests below.
#[tokio::test]
#[ignore = "run by the tests of this file with an environment of its own"]
async fn child() {
    let Ok(reference) = std::env::var("TEST_REFERENCE") else { return };
    let settings = Settings { default_scheme: Some(Scheme::Http), ..Settings::default() };
    let credentials = DockerConfig::read(&DockerConfig::default_path().unwrap()).unwrap();
    let reference = Reference::normalize(&reference).unwrap();
    client_with(settings, Arc::new(credentials)).resolve(&reference).await.unwrap();
}

fn resolve(reference: &str, environment: &[(&str, &str)]) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "environment::child"]).env("TEST_REFERENCE", reference);
    for name in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY"]
    {
        child.env_remove(name);
    }
    child.env("DOCKER_CONFIG", "/nonexistent").envs(environment.iter().copied());
    let output = child.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"), "{output:?}");
    output.status.success()
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

fn helper(directory: &Path, script: &str) {
    let program = directory.join("docker-credential-test");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
}

#[test]
fn a_credential_helper_is_asked_for_the_host() {
    let fake = Fake::with(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() });
    let (_, reference) = image(&fake);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let search = format!("{path}:/usr/bin:/bin");
    let environment = [("DOCKER_CONFIG", path), ("PATH", search.as_str())];
    let known = format!(
        r#"test "$1" = get && test "$(cat)" = {} && echo '{{"Username":"u","Secret":"sesame"}}'"#,
        fake.host()
    );
    helper(directory.path(), &known);
    assert!(resolve(&reference.to_string(), &environment));
    helper(directory.path(), "echo credentials not found in native keychain; exit 1");
    assert!(!resolve(&reference.to_string(), &environment));
}
