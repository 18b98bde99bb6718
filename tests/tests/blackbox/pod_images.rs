//! Images as a kubelet asks for them: what a registry has is there after a pull, under its tag, its digest and its id, whoever
//! pulled it; what is not all there is not there.

use std::time::Duration;

use api::cri;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries;
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, deadline};
use grpc::cri::image_service_client::ImageServiceClient;
use registry::fake::{Auth, Fake, Fault, Setup, When};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A kubelet's side of ImageService.
struct Kubelet {
    runtime: tokio::runtime::Runtime,
    images: ImageServiceClient<Channel>,
}

impl Kubelet {
    fn of(daemon: &Daemon) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", daemon.address().display())).unwrap();
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let kubelet = Self { runtime, images: ImageServiceClient::new(channel) };
        deadline::eventually("images are known", || kubelet.list().is_ok());
        kubelet
    }

    fn list(&self) -> Result<Vec<cri::Image>, Status> {
        let call = async { self.images.clone().list_images(cri::ListImagesRequest::default()).await };
        Ok(self.runtime.block_on(call)?.into_inner().images)
    }

    fn pull_as(&self, name: &str, auth: Option<cri::AuthConfig>) -> Result<String, Status> {
        let request = cri::PullImageRequest { image: Some(spec(name)), auth, sandbox_config: None };
        let call = async { self.images.clone().pull_image(request).await };
        Ok(self.runtime.block_on(call)?.into_inner().image_ref)
    }

    fn pull(&self, name: &str) -> Result<String, Status> {
        self.pull_as(name, None)
    }

    fn status(&self, name: &str) -> cri::ImageStatusResponse {
        let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: true };
        self.runtime.block_on(async { self.images.clone().image_status(request).await }).unwrap().into_inner()
    }

    fn image(&self, name: &str) -> Option<cri::Image> {
        self.status(name).image
    }

    fn remove(&self, name: &str) {
        let request = cri::RemoveImageRequest { image: Some(spec(name)) };
        self.runtime.block_on(async { self.images.clone().remove_image(request).await }).unwrap();
    }

    fn filesystems(&self) -> Vec<cri::FilesystemUsage> {
        let call = async { self.images.clone().image_fs_info(cri::ImageFsInfoRequest {}).await };
        self.runtime.block_on(call).unwrap().into_inner().image_filesystems
    }
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..cri::ImageSpec::default() }
}

/// A daemon that serves Kubernetes.
fn daemon() -> Daemon {
    daemon_with("")
}

/// The same with more in its configuration.
fn daemon_with(section: &str) -> Daemon {
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite()).configured(section);
    let path = daemon.dir().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let line =
        "\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\",";
    assert!(config.contains(line), "{config}");
    std::fs::write(&path, config.replace(line, "")).unwrap();
    daemon.launch();
    daemon
}

fn image() -> Image {
    Image::named("for pods")
        .layer(&base_layer(), Packing::Gzip)
        .layer(&[Entry::file("etc/greeting", "hello\n")], Packing::Zstd)
        .config("User", "1000:100".into())
}

fn names(daemon: &Daemon) -> Vec<String> {
    let list = daemon.ctr(&["-n", "k8s.io", "images", "ls", "-q"]).ok();
    list.lines().map(str::to_owned).collect()
}

#[test]
fn what_is_pulled_is_there_under_its_tag_its_digest_and_its_id_until_it_is_removed() {
    let (daemon, registry) = (daemon(), Fake::start());
    let kubelet = Kubelet::of(&daemon);
    let name = image().publish(&registry, "library/x", "v1");
    assert_eq!(kubelet.image(&name), None);
    let id = kubelet.pull(&name).unwrap();
    let there = kubelet.image(&name).unwrap();
    assert_eq!((there.id.as_str(), there.repo_tags.as_slice()), (id.as_str(), &[name.clone()][..]));
    assert_eq!(there.repo_digests.len(), 1);
    assert_eq!(there.uid.map(|uid| uid.value), Some(1000));
    assert!(there.size > 0 && !there.pinned);
    let short = &id["sha256:".len()..][..12];
    for other in [id.as_str(), short, there.repo_digests[0].as_str()] {
        assert_eq!(kubelet.image(other).unwrap().id, id, "{other}");
    }
    let info: serde_json::Value = serde_json::from_str(&kubelet.status(&name).info["info"]).unwrap();
    assert!(info["chainID"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(info["imageSpec"]["config"]["User"], "1000:100");
    let mut all = vec![id.clone(), name.clone(), there.repo_digests[0].clone()];
    all.sort();
    assert_eq!(names(&daemon), all);
    let labels = daemon.ctr(&["-n", "k8s.io", "images", "ls"]).ok();
    assert_eq!(labels.matches("io.cri-containerd.image=managed").count(), 3, "{labels}");
    kubelet.remove(short);
    kubelet.remove(&name);
    assert_eq!(names(&daemon), Vec::<String>::new());
    assert!(kubelet.list().unwrap().is_empty());
    assert_eq!(daemon.ctr(&["-n", "k8s.io", "content", "ls", "-q"]).ok(), "");
}

#[test]
fn what_others_do_with_images_is_seen_and_survives_the_daemon() {
    let (daemon, registry) = (daemon(), Fake::start());
    let kubelet = Kubelet::of(&daemon);
    let name = image().publish(&registry, "library/x", "v1");
    daemon.ctr(&["-n", "k8s.io", "images", "pull", &name]).ok();
    deadline::eventually("the image is known", || kubelet.image(&name).is_some());
    let id = kubelet.image(&name).unwrap().id;
    deadline::eventually("it has its id as a name", || names(&daemon).contains(&id));
    daemon.stop();
    daemon.launch();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.image(&name).unwrap().id, id);
    daemon.ctr(&["-n", "k8s.io", "images", "rm", &name, &id]).ok();
    deadline::eventually("the image is gone", || kubelet.list().unwrap().is_empty());
}

#[test]
fn an_image_of_which_a_blob_is_gone_is_not_there_until_it_is_pulled_again() {
    if binaries::beyond_upstream("an image is there only if all of it is") {
        return;
    }
    let (daemon, registry) = (daemon(), Fake::start());
    let kubelet = Kubelet::of(&daemon);
    let name = image().publish(&registry, "library/x", "v1");
    let id = kubelet.pull(&name).unwrap();
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let largest = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    daemon.stop();
    std::fs::remove_file(&largest).unwrap();
    daemon.launch();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.image(&name), None);
    assert!(kubelet.list().unwrap().is_empty());
    assert_eq!(kubelet.pull(&name).unwrap(), id);
    assert!(largest.exists() && kubelet.image(&name).is_some());
}

#[test]
fn who_we_are_is_said_in_three_ways_and_never_shown() {
    let daemon = daemon();
    let kubelet = Kubelet::of(&daemon);
    let auth = Auth::Basic("me".into(), "S3CRET".into());
    let registry = Fake::with(Setup { auth, ..Setup::default() });
    let name = image().publish(&registry, "x", "1");
    let nobody = kubelet.pull(&name).unwrap_err();
    assert!(nobody.message().contains("failed to pull and unpack image"), "{nobody}");
    let (username, password) = ("me".to_owned(), "S3CRET".to_owned());
    let basic = cri::AuthConfig { username, password, ..cri::AuthConfig::default() };
    let elsewhere = cri::AuthConfig { server_address: "https://elsewhere".into(), ..basic.clone() };
    assert!(kubelet.pull_as(&name, Some(elsewhere)).is_err());
    let wrong = cri::AuthConfig { password: "S3CRET-but-wrong".into(), ..basic.clone() };
    let refused = kubelet.pull_as(&name, Some(wrong)).unwrap_err();
    assert!(!refused.message().contains("S3CRET"), "{refused}");
    let here = cri::AuthConfig { server_address: format!("http://{}", registry.host()), ..basic.clone() };
    let encoded = cri::AuthConfig { auth: "bWU6UzNDUkVU".into(), ..cri::AuthConfig::default() };
    for auth in [basic, here, encoded] {
        kubelet.pull_as(&name, Some(auth)).unwrap();
        kubelet.remove(&name);
    }
    assert!(!daemon.log().contains("S3CRET"), "{}", daemon.log());
}

#[test]
fn a_pull_that_does_not_get_on_is_given_up_and_leaves_nothing() {
    if binaries::beyond_upstream("the key is of a configuration of today") {
        return;
    }
    let daemon =
        daemon_with("[plugins.'io.containerd.cri.v1.images']\nimage_pull_progress_timeout = \"1s\"\n");
    let (kubelet, registry) = (Kubelet::of(&daemon), Fake::start());
    let name = image().publish(&registry, "x", "1");
    registry.fault(When::path("/blobs/").method("GET"), Fault::Stall(1000, Duration::from_secs(60)));
    let failed = kubelet.pull(&name).unwrap_err();
    assert!(failed.message().contains("no progress"), "{failed}");
    registry.heal();
    kubelet.pull(&name).unwrap();
}

#[test]
fn what_images_take_is_told_by_the_filesystem() {
    if binaries::beyond_upstream("it is told at once, not after ten seconds") {
        return;
    }
    let (daemon, registry) = (daemon(), Fake::start());
    let kubelet = Kubelet::of(&daemon);
    let name = image().publish(&registry, "x", "1");
    kubelet.pull(&name).unwrap();
    let filesystems = kubelet.filesystems();
    let mountpoint = daemon.root().join("io.containerd.snapshotter.v1.overlayfs");
    assert_eq!(filesystems[0].fs_id.as_ref().unwrap().mountpoint, mountpoint.to_str().unwrap());
    assert!(filesystems[0].used_bytes.unwrap().value > 100_000);
    assert!(filesystems[0].inodes_used.unwrap().value > 3);
}

/// The table of registries.
const REGISTRY: &str = "plugins.'io.containerd.cri.v1.images'.registry";

#[test]
fn registries_are_reached_as_older_configurations_say() {
    if binaries::beyond_upstream("the tables are of a configuration of version 3") {
        return;
    }
    let login = || Auth::Basic("me".into(), "S3CRET".into());
    let [mirror, locked, by_url] =
        [Auth::Open, login(), login()].map(|auth| Fake::with(Setup { auth, ..Setup::default() }));
    let section = format!(
        "[{REGISTRY}.mirrors.'r.invalid']\nendpoint = ['http://127.0.0.1:1', {:?}]\n\
         [{REGISTRY}.configs.{:?}.auth]\nusername = 'me'\npassword = 'S3CRET'\n\
         [{REGISTRY}.auths.{:?}]\nauth = 'bWU6UzNDUkVU'\n\
         [{REGISTRY}.headers]\nX-Node = ['seven']\n",
        mirror.origin(),
        locked.host(),
        by_url.origin(),
    );
    let daemon = daemon_with(&section);
    let kubelet = Kubelet::of(&daemon);
    let mirrored = image().publish(&mirror, "library/x", "1").replace(&mirror.host(), "r.invalid");
    let names = [mirrored, image().publish(&locked, "x", "1"), image().publish(&by_url, "x", "1")];
    for name in &names {
        kubelet.pull(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kubelet.image(name).unwrap().repo_tags.contains(name), "{name}");
    }
    for registry in [&mirror, &locked, &by_url] {
        let seen = registry.requests();
        let told =
            |seen: &registry::fake::Seen| seen.headers.get("x-node").is_some_and(|value| value == "seven");
        assert!(!seen.is_empty() && seen.iter().all(told), "{seen:?}");
    }
    assert!(!daemon.log().contains("S3CRET"), "{}", daemon.log());
}

#[test]
fn a_token_of_identity_is_changed_for_one_that_opens_a_registry() {
    let daemon = daemon();
    let kubelet = Kubelet::of(&daemon);
    let auth = Auth::Bearer(Some(("nobody".into(), "T0KEN".into())));
    let registry = Fake::with(Setup { auth, ..Setup::default() });
    let name = image().publish(&registry, "x", "1");
    assert!(kubelet.pull(&name).is_err());
    let identity = |token: &str| {
        Some(cri::AuthConfig { identity_token: token.to_owned(), ..cri::AuthConfig::default() })
    };
    assert!(kubelet.pull_as(&name, identity("another")).is_err());
    kubelet.pull_as(&name, identity("T0KEN")).unwrap();
    assert!(!daemon.log().contains("T0KEN"), "{}", daemon.log());
}

#[test]
fn layers_that_are_unpacked_are_thrown_away_if_that_is_set_and_the_image_is_there() {
    if binaries::beyond_upstream("the table is of a configuration of version 3") {
        return;
    }
    let section = "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\nimage_pull_with_sync_fs = true\n";
    let (daemon, registry) = (daemon_with(section), Fake::start());
    let kubelet = Kubelet::of(&daemon);
    let name = image().publish(&registry, "x", "1");
    let id = kubelet.pull(&name).unwrap();
    let blobs = || daemon.ctr(&["-n", "k8s.io", "content", "ls", "-q"]).ok().lines().count();
    deadline::eventually("only manifest and configuration are left", || blobs() == 2);
    assert_eq!(kubelet.image(&name).unwrap().id, id);
    daemon.stop();
    daemon.launch();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.image(&name).unwrap().id, id);
    kubelet.remove(&name);
    assert_eq!(daemon.ctr(&["-n", "k8s.io", "snapshots", "ls"]).ok().lines().count(), 1);
}

#[test]
fn so_many_layers_are_fetched_at_once_as_is_set() {
    if binaries::beyond_upstream("the table is of a configuration of version 3") {
        return;
    }
    for most in [1, 2] {
        let section = format!("[plugins.'io.containerd.cri.v1.images']\nmax_concurrent_downloads = {most}\n");
        let (daemon, registry) = (daemon_with(&section), Fake::start());
        let kubelet = Kubelet::of(&daemon);
        let files = ["a", "b", "c", "d"];
        let layers = files.map(|name| [Entry::file(name, name.repeat(3000))]);
        let image = layers.iter().fold(image(), |image, layer| image.layer(layer, Packing::Plain));
        let name = image.publish(&registry, "x", "1");
        let blobs = || {
            registry
                .requests()
                .iter()
                .filter(|seen| seen.method == "GET" && seen.target.contains("/blobs/"))
                .count()
        };
        // The first one is the configuration.
        registry.fault(When::path("/blobs/").method("GET").after(1), Fault::Hang(Duration::from_secs(60)));
        let request = cri::PullImageRequest { image: Some(spec(&name)), auth: None, sandbox_config: None };
        let mut images = kubelet.images.clone();
        let pull = kubelet.runtime.spawn(async move { images.pull_image(request).await });
        let waited = |until: usize, most_time: Duration| {
            let begun = std::time::Instant::now();
            while blobs() < until && begun.elapsed() < most_time {
                kubelet.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
            }
            blobs()
        };
        assert_eq!(waited(1 + most, Duration::from_secs(20)), 1 + most);
        assert_eq!(
            waited(2 + most, Duration::from_millis(500)),
            1 + most,
            "no more as long as none has come"
        );
        registry.heal();
        pull.abort();
    }
}
