//! Pushing: an image of the store is in the registry afterwards, whole, and what the registry had already was not sent.

use containerd_tests::archive::{Image, Packing, base_layer, hex};
use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::{Daemon, Finished};
use registry::fake::{Auth, Fake, Fault, Setup, When};

/// The ways to push that the client under test has.
fn ways(daemon: &Daemon) -> Vec<Vec<&'static str>> {
    match binaries::suite() {
        Suite::Upstream if daemon.lacks_flag(&["images", "push"], "--local") => vec![vec![]],
        _ => vec![vec![], vec!["--local"]],
    }
}

fn push(daemon: &Daemon, way: &[&str], words: &[&str]) -> Finished {
    daemon.ctr(&[&["images", "push"], way, words].concat()).run()
}

/// A push that goes well.
#[track_caller]
fn pushes(daemon: &Daemon, way: &[&str], words: &[&str]) {
    daemon.ctr(&[&["images", "push"], way, words].concat()).ok();
}

fn daemon() -> (Daemon, &'static str) {
    let daemon = Daemon::start();
    let image = daemon.image();
    (daemon, image)
}

#[test]
fn what_was_pushed_can_be_pulled_and_runs() {
    let (daemon, image) = daemon();
    for way in ways(&daemon) {
        let registry = Fake::start();
        let name = registry.reference("team/app", "1");
        let pushed = push(&daemon, &way, &[&name, image]).expect_code(0);
        // 1.6 is sometimes done before it draws its layers.
        assert!(binaries::suite() == Suite::Upstream || pushed.stdout.contains("layer"), "{pushed}");
        assert!(registry.manifest("team/app", "1").is_some());
        // The manifest is the last that comes.
        let puts: Vec<String> =
            registry.requests().into_iter().filter(|r| r.method == "PUT").map(|r| r.target).collect();
        assert!(puts.last().unwrap().ends_with("/manifests/1"), "{puts:?}");
        let other = Daemon::start();
        other.ctr(&["images", "pull", &name]).ok();
        let id = other.id("pushed");
        assert_eq!(other.ctr(&["run", "--rm", &name, &id, "echo", "it runs"]).ok(), "it runs\n");
        // Nothing is sent a second time.
        registry.forget_requests();
        pushes(&daemon, &way, &[&name, image]);
        let sent = registry.requests().into_iter().filter(|r| r.method != "HEAD").count();
        assert_eq!(sent, 0, "{way:?}");
    }
}

#[test]
fn what_another_repository_of_the_host_has_is_mounted_from_there() {
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let registry = Fake::start();
        let image = Image::named("x").layer(&base_layer(), Packing::Gzip);
        let name = image.publish(&registry, "base/one", "1");
        daemon.ctr(&["images", "pull", &name]).ok();
        registry.forget_requests();
        pushes(&daemon, &way, &[&registry.reference("team/two", "1"), &name]);
        let mounts = registry.count("POST", "from=base%2Fone") + registry.count("POST", "from=base/one");
        assert_eq!((mounts, registry.count("PUT", "/blobs/")), (2, 0), "{way:?}");
        daemon.ctr(&["images", "rm", "--sync", &name]).ok();
    }
}

#[test]
fn an_index_comes_after_its_manifests_and_a_platform_alone_is_its_manifest() {
    let daemon = Daemon::start();
    let from = Fake::start();
    let platform = |os: &str, architecture: &str| serde_json::json!({"os": os, "architecture": architecture});
    let mut manifests = Vec::new();
    for (number, architecture) in ["amd64", "s390x"].into_iter().enumerate() {
        let image = Image::named("x").layer(&base_layer(), Packing::Gzip).config("Label", number.into());
        image.publish(&from, "x", architecture);
        let (media_type, bytes) = from.manifest("x", architecture).unwrap();
        manifests.push(serde_json::json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", hex(&bytes)),
            "size": bytes.len(),
            "platform": platform("linux", architecture),
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    from.add_manifest("x", Some("all"), kind, index.to_string());
    let name = from.reference("x", "all");
    daemon.ctr(&["content", "fetch", "--all-platforms", &name]).ok();
    for way in ways(&daemon) {
        let registry = Fake::start();
        pushes(&daemon, &way, &[&registry.reference("all", "1"), &name]);
        let (media_type, bytes) = registry.manifest("all", "1").unwrap();
        assert_eq!((media_type.as_str(), &bytes[..]), (kind, index.to_string().as_bytes()));
        let puts: Vec<String> = registry
            .requests()
            .into_iter()
            .filter(|r| r.method == "PUT" && r.target.contains("/manifests/"))
            .map(|r| r.target)
            .collect();
        assert!(puts.len() == 3 && puts[2].ends_with("/manifests/1"), "{puts:?}");
        if way.is_empty() && binaries::suite() == Suite::Ours {
            continue;
        }
        pushes(&daemon, &way, &["--platform", "linux/s390x", &registry.reference("one", "1"), &name]);
        let (media_type, _) = registry.manifest("one", "1").unwrap();
        assert_eq!(media_type, "application/vnd.oci.image.manifest.v1+json");
    }
}

#[test]
fn a_registry_that_refuses_or_lies_is_told_of() {
    let (daemon, image) = daemon();
    for way in ways(&daemon) {
        let registry =
            Fake::with(Setup { auth: Auth::Basic("me".into(), "secret".into()), ..Setup::default() });
        let name = registry.reference("x", "1");
        let refused = push(&daemon, &way, &[&name, image]);
        assert_eq!(refused.code, 1, "{refused}");
        assert!(registry.manifest("x", "1").is_none());
        pushes(&daemon, &way, &["--user", "me:secret", &name, image]);
        let broken = Fake::start();
        broken.fault(When::path("/manifests/").method("PUT"), Fault::Status(400));
        let failed = push(&daemon, &way, &[&broken.reference("x", "1"), image]);
        assert!(failed.code == 1 && failed.stderr.contains("400"), "{failed}");
    }
    let unknown = push(&daemon, &[], &["127.0.0.1:1/none:1"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("not found"), "{unknown}");
    assert!(
        daemon.ctr(&["images", "push"]).fails().stderr.contains("please provide a remote image reference")
    );
}

#[test]
fn single_objects_are_pushed() {
    let (daemon, _) = daemon();
    if daemon.lacks_flag(&["content"], "push-object") {
        return;
    }
    let registry = Fake::start();
    let list = daemon.ctr(&["content", "ls", "-q"]).ok();
    let digest = list.lines().next().unwrap();
    let pushed = daemon.ctr(&[
        "content",
        "push-object",
        &registry.reference("x", "1"),
        digest,
        "application/octet-stream",
    ]);
    assert_eq!(pushed.ok(), format!("Pushed {digest} application/octet-stream\n"));
    assert!(registry.blob("x", &digest.parse().unwrap()).is_some());
    let again = daemon.ctr(&[
        "content",
        "push-object",
        &registry.reference("x", "1"),
        digest,
        "application/octet-stream",
    ]);
    assert!(again.fails().stderr.contains("already exists"));
}

#[test]
fn flags_that_the_daemon_cannot_be_told_of_are_refused() {
    if beyond_upstream("1.6 pushes by itself and knows no other way") {
        return;
    }
    let (daemon, image) = daemon();
    for flag in [&["--manifest", "sha256:0"][..], &["--http-dump"], &["--allow-non-distributable-blobs"]] {
        let refused = push(&daemon, flag, &["127.0.0.1:1/x:1", image]);
        assert!(refused.stderr.contains(&format!("\"{}\" requires \"--local\" flag", flag[0])), "{refused}");
    }
}
