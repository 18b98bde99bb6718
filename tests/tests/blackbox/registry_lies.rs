//! A registry that lies: each lie is a clear error that names the host and says what is wrong, nothing is left of the pull, and
//! the next pull from the same registry, honest now, works. Through the daemon (transfer) and by the client itself (`--local`).

use std::time::Duration;

use containerd_tests::archive::gzip;
use containerd_tests::binaries::beyond_upstream;
use containerd_tests::tar::{self, Entry};
use containerd_tests::{Daemon, Finished, Ledger};
use registry::fake::{Auth, Fake, Fault, Image, Layer, Setup, When};
use types::Digest;
use types::oci::image::media;

/// Who pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The daemon.
    Transfer,
    /// The client.
    Local,
}

/// Both.
pub const WAYS: [Way; 2] = [Way::Transfer, Way::Local];

/// Where it is.
pub const REPOSITORY: &str = "library/lies";

/// A registry with an image, and a daemon without any.
pub struct Bench {
    /// The registry.
    pub fake: Fake,
    /// Its image.
    pub image: Image,
    /// The daemon.
    pub daemon: Daemon,
    way: Way,
}

impl Bench {
    /// A registry as `setup` has it.
    pub fn new(setup: Setup, way: Way) -> Self {
        Self::with(setup, way, Daemon::start())
    }

    /// The same with a daemon that was configured.
    pub fn with(setup: Setup, way: Way, daemon: Daemon) -> Self {
        let fake = Fake::with(setup);
        let image = fake.add_image(REPOSITORY, "1", &[layer("one", 300_000), layer("two", 20_000)]);
        Self { fake, image, daemon, way }
    }

    /// The image's name.
    pub fn reference(&self) -> String {
        self.fake.reference(REPOSITORY, "1")
    }

    /// Pulls the image.
    #[track_caller]
    pub fn pull(&self, flags: &[&str]) -> Finished {
        let reference = self.reference();
        let mut words = vec!["images", "pull"];
        words.extend(if self.way == Way::Local { Some("--local") } else { None });
        words.extend(flags);
        words.push(&reference);
        self.daemon.ctr(&words).run()
    }

    /// Pulls, which must end with an error that names the registry and says `words`, and leave nothing.
    #[track_caller]
    pub fn refused(&self, flags: &[&str], words: &str) {
        let before = Ledger::take(&self.daemon);
        let done = self.pull(flags);
        assert_ne!(done.code, 0, "{:?}: {done}", self.way);
        done.says(words);
        done.says(&self.fake.host());
        Ledger::check(&before, &self.daemon);
    }

    /// Pulls, which must work, and removes the image.
    #[track_caller]
    pub fn good(&self, flags: &[&str]) {
        let before = Ledger::take(&self.daemon);
        let done = self.pull(flags).expect_code(0);
        let listed = self.daemon.ctr(&["images", "list", "-q"]).ok();
        assert!(listed.contains(&self.reference()), "{listed}: {done}");
        self.daemon.ctr(&["images", "remove", "--sync", &self.reference()]).ok();
        Ledger::check(&before, &self.daemon);
    }

    /// Pulls while the registry tells a lie, and once more when it does not.
    #[track_caller]
    fn lie(&self, when: When, fault: Fault, words: &str) {
        self.fake.heal();
        self.fake.fault(when, fault);
        self.refused(&[], words);
        self.fake.heal();
        self.good(&[]);
    }
}

/// So many bytes that do not compress, others for each seed.
pub fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(size).collect()
}

/// A layer with a file of `size` bytes that do not compress.
fn layer(name: &str, size: usize) -> Layer {
    packed(&tar::archive(&[Entry::dir("data"), Entry::file(format!("data/{name}"), noise(7, size))]))
}

/// A layer of this archive.
pub fn packed(tar: &[u8]) -> Layer {
    Layer { bytes: gzip(tar).into(), media_type: media::OCI_LAYER_GZIP.into(), diff_id: Digest::of(tar) }
}

/// Other bytes of the same length.
fn forged(fake: &Fake, blob: &types::oci::image::Descriptor) -> Fault {
    let mut bytes = fake.blob(REPOSITORY, &blob.digest).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Fault::Body(bytes.into())
}

#[test]
fn lies_about_a_manifest() {
    if beyond_upstream("errors name the host, and nothing is left") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let get = || When::path("/manifests/").method("GET");
        let head = || When::path("/manifests/").method("HEAD");
        let mut same_size = bench.fake.manifest(REPOSITORY, "1").unwrap().1.to_vec();
        same_size[1] = b' ';
        bench.lie(get(), Fault::Body(same_size.into()), "digest");
        bench.lie(get(), Fault::Body("{}".into()), "sent 2 bytes for");
        bench.lie(get(), Fault::Extra(1), "sent more than");
        bench.lie(get(), Fault::Endless, "sent more than");
        bench.lie(get(), Fault::Header("content-type", media::OCI_INDEX.into()), "which is");
        bench.lie(get(), Fault::Encoding("gzip"), "which nobody asked for");
        bench.lie(get(), Fault::Truncate(20), "connection broke");
        bench.lie(
            head(),
            Fault::Header("docker-content-digest", "sha256:../../x".into()),
            "not a valid digest",
        );
        bench.lie(head(), Fault::Header("docker-content-digest", Digest::of(b"x").to_string()), "not found");
        bench.lie(head(), Fault::Header("content-length", "9000000".into()), "max_manifest_size");
        bench.lie(head(), Fault::Header("content-type", media::OCI_INDEX.into()), "which is");
        bench.lie(head(), Fault::Header("content-type", "text/plain".into()), "schema 1");
    }
}

#[test]
fn lies_about_a_layer() {
    if beyond_upstream("errors name the host, and nothing is left") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let layer = &bench.image.layers[0];
        let when = || When::path(format!("/blobs/{}", layer.digest));
        bench.lie(when(), forged(&bench.fake, layer), "digest");
        bench.lie(when(), Fault::Body("short".into()), "sent 5 bytes for");
        bench.lie(when(), Fault::Extra(1), "sent more than");
        bench.lie(when(), Fault::Endless, "sent more than");
        bench.lie(when(), Fault::Truncate(0), "connection broke");
        bench.lie(when(), Fault::Reset(0), "connection broke");
        bench.lie(when(), Fault::Status(404), "not found");
        bench.lie(when(), Fault::Redirect(302, "http://169.254.169.254/".into()), "not to be reached");
        let config = When::path(format!("/blobs/{}", bench.image.config.digest));
        bench.lie(config, forged(&bench.fake, &bench.image.config), "digest");
    }
}

#[test]
fn things_that_are_not_what_they_are_called() {
    if beyond_upstream("nothing is left") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let before = Ledger::take(&bench.daemon);
        let honest = bench.fake.manifest(REPOSITORY, "1").unwrap().1;
        let honest: serde_json::Value = serde_json::from_slice(&honest).unwrap();
        let mut config_as_layer = honest.clone();
        config_as_layer["layers"][0]["digest"] = honest["config"]["digest"].clone();
        config_as_layer["layers"][0]["size"] = honest["config"]["size"].clone();
        let mut layer_as_config = honest.clone();
        layer_as_config["config"]["digest"] = honest["layers"][0]["digest"].clone();
        layer_as_config["config"]["size"] = honest["layers"][0]["size"].clone();
        let mut too_few_layers = honest.clone();
        too_few_layers["layers"].as_array_mut().unwrap().pop();
        let mut swapped = honest.clone();
        swapped["layers"].as_array_mut().unwrap().swap(0, 1);
        for (what, manifest) in [
            ("a config as layer", config_as_layer),
            ("a layer as config", layer_as_config),
            ("fewer layers than the config has", too_few_layers),
            ("layers in another order than the config has", swapped),
        ] {
            let bytes = manifest.to_string();
            bench.fake.add_manifest(REPOSITORY, Some("1"), media::OCI_MANIFEST, bytes);
            let done = bench.pull(&[]);
            assert_ne!(done.code, 0, "{way:?}: {what}: {done}");
            Ledger::check(&before, &bench.daemon);
        }
        let bytes = honest.to_string();
        bench.fake.add_manifest(REPOSITORY, Some("1"), media::OCI_MANIFEST, bytes);
        bench.good(&[]);
    }
}

#[test]
fn whoever_does_not_let_us_in() {
    if beyond_upstream("errors name the host, and nothing is left") {
        return;
    }
    for way in WAYS {
        let bench =
            Bench::new(Setup { auth: Auth::Basic("u".into(), "sesame".into()), ..Setup::default() }, way);
        bench.refused(&[], "authorization failed");
        bench.refused(&["--user", "u:wrong"], "authorization failed");
        bench.good(&["--user", "u:sesame"]);

        let bench = Bench::new(
            Setup { auth: Auth::Bearer(Some(("u".into(), "sesame".into()))), ..Setup::default() },
            way,
        );
        bench.refused(&["--user", "u:wrong"], "authorization failed");
        bench.fake.fault(When::path("/token"), Fault::Body("{}".into()));
        bench.refused(&["--user", "u:sesame"], "did not include a token");
        bench.fake.heal();
        bench.good(&["--user", "u:sesame"]);

        let challenge = r#"Bearer realm="/token",service="s""#.to_owned();
        let bench = Bench::new(Setup { auth: Auth::Never(challenge), ..Setup::default() }, way);
        bench.refused(&["--user", "u:sesame"], "authorization failed");
        assert!(bench.fake.requests().len() < 20, "{}", bench.fake.requests().len());
    }
}

#[test]
fn whoever_is_busy_or_sends_us_around() {
    if beyond_upstream("errors name the host, and nothing is left") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let all = || When::path("/v2/");
        bench.lie(all(), Fault::Status(403), "403 Forbidden: fake: the fake registry says 403");
        bench.lie(all(), Fault::Answer(429, vec![("retry-after", "1".into())]), "429 Too Many Requests");
        bench.lie(all(), Fault::Status(503), "503 Service Unavailable");
        bench.lie(
            all(),
            Fault::Redirect(302, "/v2/library/lies/manifests/1".into()),
            "stopped after 10 redirects",
        );
        bench.lie(all(), Fault::Redirect(302, "file:///etc/passwd".into()), "neither http nor https");
        bench.lie(all(), Fault::Redirect(302, "http://[fe80::1]/".into()), "not to be reached");
    }
}

#[test]
fn what_passes_is_waited_for() {
    if beyond_upstream("a reset connection is taken up again") {
        return;
    }
    for way in WAYS {
        let bench = Bench::new(Setup::default(), way);
        let blobs = || When::path("/blobs/").method("GET");
        for fault in [
            Fault::Status(503),
            Fault::Status(429),
            Fault::Reset(0),
            Fault::Reset(10_000),
            Fault::Truncate(19_000),
            Fault::Slow(16_384, Duration::from_millis(20)),
            Fault::IgnoreRange,
        ] {
            bench.fake.heal();
            bench.fake.fault(blobs().times(2), fault);
            bench.good(&[]);
        }
        bench.fake.heal();
        bench.fake.fault(When::path("/manifests/").times(3), Fault::Status(500));
        bench.good(&[]);
    }
}
