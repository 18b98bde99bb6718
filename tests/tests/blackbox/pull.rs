//! Pulling: what a registry has becomes an image that runs, by the daemon's transfer service and by the client itself; what
//! goes wrong is told with its reason, and leaves nothing.

use std::time::Duration;

use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, Finished};
use registry::fake::{Auth, Certificate, Fake, Fault, Setup, When};

/// The ways to pull that the client under test has: 1.6 pulls by itself and has no flag for it.
fn ways(daemon: &Daemon) -> Vec<Vec<&'static str>> {
    match binaries::suite() {
        Suite::Upstream if daemon.lacks_flag(&["images", "pull"], "--local") => vec![vec![]],
        _ => vec![vec![], vec!["--local"]],
    }
}

fn pull(daemon: &Daemon, way: &[&str], words: &[&str]) -> Finished {
    daemon.ctr(&[&["images", "pull"], way, words].concat()).run()
}

/// A pull that goes well.
#[track_caller]
fn pulls(daemon: &Daemon, way: &[&str], words: &[&str]) {
    daemon.ctr(&[&["images", "pull"], way, words].concat()).ok();
}

fn image() -> Image {
    Image::named("in a registry")
        .layer(&base_layer(), Packing::Gzip)
        .layer(&[Entry::file("etc/greeting", "from the registry\n")], Packing::Zstd)
        .layer(&[Entry::file("data", vec![7; 300_000])], Packing::Plain)
}

/// What is left of a pull that must leave nothing.
#[track_caller]
fn nothing_is_left(daemon: &Daemon) {
    daemon.collect_garbage();
    for list in [&["images", "ls", "-q"][..], &["content", "ls", "-q"], &["leases", "ls", "-q"]] {
        assert_eq!(daemon.ctr(list).ok(), "", "{list:?}");
    }
    let snapshots = daemon.ctr(&["snapshots", "ls"]).ok();
    assert_eq!(snapshots.lines().count(), 1, "{snapshots}");
}

#[test]
fn an_image_is_pulled_named_and_runs() {
    let daemon = Daemon::start();
    for (number, way) in ways(&daemon).into_iter().enumerate() {
        let registry = Fake::start();
        let name = image().publish(&registry, "library/x", &format!("v{number}"));
        let pulled = pull(&daemon, &way, &[&name]).expect_code(0);
        assert!(pulled.stdout.contains(&name), "{pulled}");
        assert!(daemon.ctr(&["images", "ls", "-q"]).ok().lines().any(|line| line == name));
        let id = daemon.id("pulled");
        let said = daemon.ctr(&["run", "--rm", &name, &id, "cat", "/etc/greeting"]).ok();
        assert_eq!(said, "from the registry\n", "{way:?}");
        let source = "containerd.io/distribution.source.127.0.0.1=library/x";
        assert!(daemon.ctr(&["content", "ls"]).ok().contains(source));
        // What is there is not fetched again.
        registry.forget_requests();
        pulls(&daemon, &way, &[&name]);
        assert_eq!(registry.count("GET", "/blobs/"), 0, "{way:?}");
        daemon.ctr(&["images", "rm", "--sync", &name]).ok();
    }
}

#[test]
fn labels_and_platforms_are_as_asked_for() {
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let registry = Fake::start();
        let name = image().publish(&registry, "x", "1");
        pulls(&daemon, &way, &["--label", "mine=yes", &name]);
        assert!(daemon.ctr(&["images", "ls"]).ok().contains("mine=yes"), "{way:?}");
        daemon.ctr(&["images", "rm", "--sync", &name]).ok();
        // The image is for this machine, and there is no other.
        let other = if cfg!(target_arch = "x86_64") { "linux/s390x" } else { "linux/amd64" };
        let failed = pull(&daemon, &way, &["--platform", other, &name]);
        if way.is_empty() && binaries::suite() == Suite::Ours {
            // By its manifest alone nobody can tell: as by upstream it comes, and is not unpacked.
            assert_eq!(failed.code, 0, "{failed}");
            daemon.ctr(&["images", "rm", "--sync", &name]).ok();
        }
    }
}

#[test]
fn what_a_registry_has_not_or_nobody_can_reach_is_told_and_leaves_nothing() {
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let registry = Fake::start();
        let missing = pull(&daemon, &way, &[&registry.reference("x", "1")]);
        assert_eq!(missing.code, 1, "{missing}");
        assert!(missing.stderr.contains("not found"), "{missing}");
        let nobody = { Fake::start().reference("x", "1") };
        let refused = pull(&daemon, &way, &[&nobody]);
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("connection refused") || refused.stderr.contains("Connection refused"),
            "{refused}"
        );
        for bad in ["alpine", "docker://x/y:1", "127.0.0.1:1/x"] {
            assert_eq!(pull(&daemon, &way, &[bad]).code, 1, "{bad}");
        }
        nothing_is_left(&daemon);
    }
    assert!(
        daemon.ctr(&["images", "pull"]).fails().stderr.contains("please provide an image reference to pull")
    );
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused_and_the_next_pull_works() {
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let registry = Fake::start();
        let name = image().publish(&registry, "x", "1");
        registry.fault(When::path("/blobs/").method("GET"), Fault::Body("lies".into()));
        let failed = pull(&daemon, &way, &[&name]);
        assert_eq!(failed.code, 1, "{failed}");
        // The rest is promised beyond upstream, which may keep a lie for good and refuse every later pull.
        if binaries::suite() == Suite::Upstream {
            continue;
        }
        nothing_is_left(&daemon);
        registry.heal();
        pulls(&daemon, &way, &[&name]);
        daemon.ctr(&["images", "rm", "--sync", &name]).ok();
    }
}

#[test]
fn who_we_are_comes_from_the_command_line_or_from_docker() {
    let daemon = Daemon::start();
    let guarded = |auth| Fake::with(Setup { auth, ..Setup::default() });
    for way in ways(&daemon) {
        for auth in
            [Auth::Basic("me".into(), "secret".into()), Auth::Bearer(Some(("me".into(), "secret".into())))]
        {
            let registry = guarded(auth);
            let name = image().publish(&registry, "x", "1");
            let nobody = pull(&daemon, &way, &[&name]);
            assert_eq!(nobody.code, 1, "{nobody}");
            assert_eq!(pull(&daemon, &way, &["--user", "me:wrong", &name]).code, 1);
            pulls(&daemon, &way, &["--user", "me:secret", &name]);
            daemon.ctr(&["images", "rm", "--sync", &name]).ok();
            if binaries::suite() == Suite::Upstream {
                continue;
            }
            let docker = daemon.dir().join("docker");
            std::fs::create_dir_all(&docker).unwrap();
            let auths = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.host());
            std::fs::write(docker.join("config.json"), auths).unwrap();
            let words = [&["images", "pull"], &way[..], &[&name]].concat();
            daemon.ctr(&words).env("DOCKER_CONFIG", docker.to_str().unwrap()).ok();
            daemon.ctr(&["images", "rm", "--sync", &name]).ok();
        }
    }
}

#[test]
fn a_mirror_of_the_hosts_directory_is_asked_first() {
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let mirror = Fake::start();
        let name = "registry.invalid/library/x:1";
        image().publish(&mirror, "library/x", "1");
        let hosts = daemon.dir().join("hosts");
        std::fs::create_dir_all(hosts.join("registry.invalid")).unwrap();
        let toml = format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.origin());
        std::fs::write(hosts.join("registry.invalid/hosts.toml"), toml).unwrap();
        pulls(&daemon, &way, &["--hosts-dir", hosts.to_str().unwrap(), name]);
        assert!(mirror.requests().iter().all(|r| r.target.contains("ns=registry.invalid")));
        daemon.ctr(&["images", "rm", "--sync", name]).ok();
    }
}

#[test]
fn tls_is_believed_as_the_flags_say_which_only_the_client_itself_can_do() {
    if beyond_upstream("the flags about TLS hold for localhost, too, which 1.6 asks without") {
        return;
    }
    let daemon = Daemon::start();
    let local = ways(&daemon).pop().unwrap();
    let registry = Fake::with(Setup { tls: Some(Certificate::Good), ..Setup::default() });
    let name = image().publish(&registry, "x", "1");
    pulls(&daemon, &local, &["--skip-verify", &name]);
    let ca = daemon.dir().join("ca.pem");
    std::fs::write(&ca, registry.ca().unwrap()).unwrap();
    pulls(&daemon, &local, &["--tlscacert", ca.to_str().unwrap(), &name]);
    for flag in [&["--skip-verify"][..], &["--tlscacert", "/x"], &["--print-chainid"]] {
        let refused = pull(&daemon, flag, &[&name]);
        assert!(refused.stderr.contains(&format!("\"{}\" requires \"--local\" flag", flag[0])), "{refused}");
    }
}

#[test]
fn http_is_shown_without_its_secrets() {
    if beyond_upstream("a dump shows no credentials") {
        return;
    }
    let daemon = Daemon::start();
    for way in ways(&daemon) {
        let registry =
            Fake::with(Setup { auth: Auth::Basic("me".into(), "secret".into()), ..Setup::default() });
        let name = image().publish(&registry, "x", "1");
        let pulled = pull(&daemon, &way, &["--user", "me:secret", "--http-dump", &name]).expect_code(0);
        assert!(pulled.stderr.contains("/v2/x/manifests/1"), "{pulled}");
        assert!(!pulled.stderr.contains("bWU6c2VjcmV0"), "{pulled}");
        daemon.ctr(&["images", "rm", "--sync", &name]).ok();
    }
}

#[test]
fn a_client_that_goes_away_ends_its_pull_and_the_next_one_goes_on() {
    if beyond_upstream("what a pull that was ended had made is taken back") {
        return;
    }
    let daemon = Daemon::start();
    let registry = Fake::start();
    let name = image().publish(&registry, "x", "1");
    registry.fault(When::path("/blobs/").method("GET"), Fault::Stall(1000, Duration::from_secs(60)));
    let command = daemon.client(daemon.ctr_binary(), &["images", "pull", &name]);
    let mut client = { command }.stdout(std::process::Stdio::null()).spawn().unwrap();
    containerd_tests::eventually("the pull fetches", || registry.count("GET", "/blobs/") > 0);
    client.kill().unwrap();
    client.wait().unwrap();
    containerd_tests::eventually("the pull has ended", || daemon.log().contains("failed"));
    nothing_is_left(&daemon);
    registry.heal();
    pulls(&daemon, &[], &[&name]);
}

#[test]
fn a_verifier_may_veto_a_pull_and_only_that_of_the_daemon() {
    if beyond_upstream("1.6 has no image verifiers") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite());
    let bin = daemon.dir().join("verifiers");
    std::fs::create_dir(&bin).unwrap();
    let program = bin.join("policy");
    std::fs::write(&program, "#!/bin/sh\ncase $2 in *good*) exit 0;; esac\necho not signed\nexit 7\n")
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let section = format!("[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = {bin:?}\n");
    let daemon = daemon.configured(&section);
    daemon.launch();
    let registry = Fake::start();
    let (good, bad) = (image().publish(&registry, "good", "1"), image().publish(&registry, "bad", "1"));
    let vetoed = pull(&daemon, &[], &[&bad]);
    let wanted = "for reason: verifier policy rejected image (exit code 7): not signed";
    assert!(vetoed.code == 1 && vetoed.stderr.contains(wanted), "{vetoed}");
    assert_eq!(registry.count("GET", "/bad/blobs/"), 0);
    nothing_is_left(&daemon);
    pulls(&daemon, &[], &[&good]);
    let plugins = daemon.ctr(&["plugins", "ls"]).ok();
    let lists = |kind: &str, id: &str| {
        plugins.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[kind, id]) && words.last() == Some(&"ok")
        })
    };
    assert!(lists("io.containerd.image-verifier.v1", "bindir"), "{plugins}");
    assert!(lists("io.containerd.transfer.v1", "local"), "{plugins}");
}

#[test]
fn run_pulls_what_is_missing_if_it_is_told_to() {
    if beyond_upstream("upstream's run pulls nothing") {
        return;
    }
    let daemon = Daemon::start();
    let registry = Fake::start();
    let name = image().publish(&registry, "x", "1");
    let run = |pull: &[&str]| {
        let id = daemon.id("pulls");
        daemon.ctr(&[&["run", "--rm"], pull, &[&name, &id, "cat", "/etc/greeting"]].concat()).run()
    };
    for pull in [&[][..], &["--pull", "never"]] {
        assert!(run(pull).stderr.contains("not found"));
    }
    assert_eq!(run(&["--pull", "missing"]).expect_code(0).stdout, "from the registry\n");
    registry.forget_requests();
    assert_eq!(run(&["--pull", "missing"]).code, 0);
    assert!(registry.requests().is_empty());
    assert_eq!(run(&["--pull", "always"]).code, 0);
    assert!(!registry.requests().is_empty());
    assert!(run(&["--pull", "sometimes"]).stderr.contains("must be missing, always or never"));
}

#[test]
fn content_and_single_objects_are_fetched() {
    let daemon = Daemon::start();
    let registry = Fake::start();
    let name = image().publish(&registry, "x", "1");
    daemon.ctr(&["content", "fetch", &name]).ok();
    assert!(daemon.ctr(&["images", "ls", "-q"]).ok().contains(&name));
    assert_eq!(daemon.ctr(&["snapshots", "ls"]).ok().lines().count(), 1);
    let manifest = daemon.ctr(&["content", "fetch-object", &name]).ok();
    assert!(manifest.contains("\"schemaVersion\":2"), "{manifest}");
    if daemon.lacks_flag(&["content"], "fetch-blob") {
        return;
    }
    let (kind, bytes) = registry.manifest("x", "1").unwrap();
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config = document["config"]["digest"].as_str().unwrap();
    let blob = daemon.ctr(&["content", "fetch-blob", &name, config]).ok();
    assert!(blob.contains("rootfs"), "{blob}");
    let digest = format!("sha256:{}", containerd_tests::archive::hex(&bytes));
    let blob = daemon.ctr(&["content", "fetch-blob", "--media-type", &kind, &name, &digest]).ok();
    assert_eq!(blob, manifest);
    assert!(daemon.ctr(&["content", "fetch-blob", &name]).fails().stderr.contains("must specify digests"));
}

#[test]
fn only_the_metadata_comes_if_that_is_all_that_is_asked_for() {
    let daemon = Daemon::start();
    let registry = Fake::start();
    image().publish(&registry, "x", "1");
    let (_, bytes) = registry.manifest("x", "1").unwrap();
    let descriptor = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", containerd_tests::archive::hex(&bytes)),
        "size": bytes.len(),
        "platform": {"os": "linux", "architecture": "riscv64"},
    });
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    });
    registry.add_manifest("x", Some("2"), "application/vnd.oci.image.index.v1+json", index.to_string());
    daemon.ctr(&["content", "fetch", "--metadata-only", &registry.reference("x", "2")]).ok();
    // Index, manifest and config, and no layer.
    assert_eq!(daemon.ctr(&["content", "ls", "-q"]).ok().lines().count(), 3);
    assert_eq!(registry.count("GET", "/blobs/"), 1);
}

#[test]
fn what_would_be_asked_of_whom_is_explained_without_a_daemon() {
    if beyond_upstream("upstream explains nothing") {
        return;
    }
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite());
    let (mirror, registry) = (Fake::start(), Fake::start());
    let name = image().publish(&registry, "x", "1");
    let hosts = daemon.dir().join("hosts");
    let own = hosts.join(registry.host());
    std::fs::create_dir_all(&own).unwrap();
    let toml = format!("server = \"{}\"\n[host.\"{}\"]\n", registry.origin(), mirror.origin());
    std::fs::write(own.join("hosts.toml"), toml).unwrap();
    let told = daemon.ctr(&["registry", "explain", "--hosts-dir", hosts.to_str().unwrap(), &name]).ok();
    let place = |text: &str| told.find(text).unwrap_or_else(|| panic!("{text} is not in\n{told}"));
    assert!(place(&own.join("hosts.toml").display().to_string()) < place(mirror.origin()));
    assert!(place(mirror.origin()) < place(registry.origin()));
    assert!(place("not found") < place("200 OK, sha256:"), "{told}");
    assert!(
        daemon.ctr(&["registry", "explain"]).fails().stderr.contains("please provide an image reference")
    );
}
