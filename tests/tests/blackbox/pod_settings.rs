//! What an administrator may set about pods, and what it does: snapshotters of handlers, the streaming server's certificate, limits of
//! time, what is turned off; and that nobody is answered before all is known.

use std::fs;
use std::time::{Duration, Instant};

use api::cri as wire;
use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::cri::{IMAGES, RUNTIME};
use containerd_tests::tar::Entry;
use containerd_tests::{Cri, Kubelet, binaries, eventually, proc};
use registry::fake::Fake;
use tonic::Code;

/// A handler of pods with more keys.
fn handler(cri: &Cri, name: &str, keys: &str) {
    let keys = format!("runtime_type = 'io.containerd.runc.v2'\n{keys}");
    cri.set(&format!("{RUNTIME}.containerd.runtimes.{name}"), &keys);
}

/// The names of the snapshots of a snapshotter.
fn snapshots(cri: &Cri, snapshotter: &str) -> Vec<String> {
    let listed = cri.daemon.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", snapshotter, "list"]).ok();
    let names = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn a_handler_may_have_another_snapshotter_for_images_containers_and_volumes() {
    for way in ["of the runtime", "of images"] {
        let Some(cri) = Cri::prepare("") else { return };
        handler(&cri, "runc", "");
        handler(&cri, "copies", if way == "of images" { "" } else { "snapshotter = 'native'" });
        if way == "of images" {
            cri.set(&format!("{IMAGES}.runtime_platforms.copies"), "snapshotter = 'native'");
        }
        cri.launch();
        another_snapshotter(cri, way == "of images");
    }
}

/// Images, containers and volumes of the handler `copies` are on the native snapshotter; `annotated` kubelets name the handler of a
/// pull in the pod's annotations.
fn another_snapshotter(cri: Cri, annotated: bool) {
    const VOLUME: &str = "docker.io/library/files:1";
    let kubelet = Kubelet::with(cri);
    let files = Image::named(VOLUME).layer(&[Entry::file("file", "of the volume\n")], Packing::Gzip);
    kubelet.import(VOLUME, &files);
    let cri = &kubelet.cri;
    let registry = Fake::start();
    let image = Image::named("x").layer(&base_layer(), Packing::Gzip);
    let image = image.layer(&[Entry::file("file", "of the image\n")], Packing::Gzip);
    let name = image.publish(&registry, "library/x", "1");
    let runtime_handler = if annotated { String::new() } else { "copies".to_owned() };
    let mut of_pod = cri.pod_config("copies");
    if annotated {
        of_pod.annotations.insert("io.containerd.cri.runtime-handler".to_owned(), "copies".to_owned());
    }
    let request = wire::PullImageRequest {
        image: Some(wire::ImageSpec { image: name.clone(), runtime_handler, ..Default::default() }),
        sandbox_config: Some(of_pod),
        ..Default::default()
    };
    assert_eq!(snapshots(cri, "native"), [""; 0]);
    cri.call(cri.images().pull_image(request)).unwrap();
    assert_eq!(snapshots(cri, "native").len(), 2, "both layers are unpacked where the handler has them");
    let pod = kubelet.pod(cri.pod_config("copies"), "copies").unwrap();
    let mut config =
        pod.config("c", "cat /file /vol/file; grep -c ' / overlay' /proc/mounts; exec sleep 1000");
    config.image.as_mut().unwrap().image.clone_from(&name);
    config.mounts = vec![wire::Mount {
        container_path: "/vol".to_owned(),
        image: Some(wire::ImageSpec { image: VOLUME.to_owned(), ..Default::default() }),
        readonly: true,
        ..Default::default()
    }];
    let id = pod.run_config(config);
    eventually("it has said so", || pod.log("c").ends_with(" F 0\n"));
    assert!(pod.log("c").contains(" F of the image\n") && pod.log("c").contains(" F of the volume\n"));
    assert_eq!(pod.verbose(&id).unwrap().1["snapshotter"], "native");
    assert!(snapshots(cri, "native").contains(&id) && !snapshots(cri, "overlayfs").contains(&id));
    let usage = cri.call(cri.images().image_fs_info(wire::ImageFsInfoRequest {})).unwrap();
    for filesystems in [usage.image_filesystems, usage.container_filesystems] {
        let places: Vec<_> =
            filesystems.iter().map(|of| of.fs_id.as_ref().unwrap().mountpoint.clone()).collect();
        let place = |name: &str| cri.daemon.root().join(format!("io.containerd.snapshotter.v1.{name}"));
        assert_eq!(places, ["overlayfs", "native"].map(|name| place(name).to_string_lossy().into_owned()));
        assert!(filesystems.iter().all(|of| of.used_bytes.unwrap().value > 100_000), "{filesystems:?}");
    }
    cri.remove_pod(&pod.pod).unwrap();
    eventually("only layers are left", || {
        snapshots(cri, "native").iter().all(|name| name.starts_with("sha256:"))
    });
}

#[test]
fn pods_live_on_another_snapshotter_than_overlayfs() {
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(IMAGES, "snapshotter = 'native'");
    cri.launch();
    cri.image();
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let mut config =
        kubelet.config("c", "cat /etc/greeting; echo x > /written; grep -c overlay /proc/mounts || true");
    config.labels.clear();
    assert_eq!(kubelet.says(config), ["from the second layer", "0"]);
    let id = kubelet.run("d", "test ! -e /written && exec sleep 1000");
    kubelet.restart();
    assert!(proc::alive(kubelet.pid(&id)));
    let request = wire::ContainerStatsRequest { container_id: id.clone() };
    let stats = kubelet.cri.call(kubelet.cri.client().container_stats(request)).unwrap().stats.unwrap();
    assert!(stats.writable_layer.unwrap().fs_id.unwrap().mountpoint.contains("snapshotter.v1.native"));
    assert!(
        snapshots(&kubelet.cri, "native").contains(&id)
            && !snapshots(&kubelet.cri, "overlayfs").contains(&id)
    );
    kubelet.cri.remove_pod(&kubelet.pod).unwrap();
    kubelet.cri.check_ledger(&before);
}

#[test]
fn who_holds_the_output_of_an_exec_open_is_waited_for_as_long_as_is_set_and_then_told() {
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(RUNTIME, "drain_exec_sync_io_timeout = '1s'");
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let id = kubelet.run("c", "exec sleep 1000");
    assert_eq!(kubelet.sync(&id, "(sleep 0.3; echo late) & exit 5", 0).unwrap().stdout, b"late\n");
    let start = Instant::now();
    let held = kubelet.sync(&id, "sleep 1003 & echo done", 0).unwrap_err();
    assert!(held.message().contains("io in 1s because io is still held by other processes"), "{held}");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn nothing_is_checkpointed_where_that_is_turned_off() {
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(RUNTIME, "enable_criu = false\nenable_experimental_restore_via_create = true");
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let id = kubelet.run("c", "exec sleep 1000");
    let location = kubelet.cri.daemon.dir().join("checkpoint.tar");
    let request = wire::CheckpointContainerRequest {
        container_id: id,
        location: location.to_string_lossy().into_owned(),
        timeout: 0,
    };
    let refused = kubelet.cri.call(kubelet.cri.client().checkpoint_container(request)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().ends_with("criu support is disabled by configuration"), "{refused}");
    fs::write(&location, "whatever it is").unwrap();
    let mut config = kubelet.config("again", "true");
    config.image.as_mut().unwrap().image = location.to_string_lossy().into_owned();
    let refused = kubelet.try_create(config).unwrap_err();
    assert!(refused.message().ends_with("criu support is disabled by configuration"), "{refused}");
}

#[test]
fn a_kubelet_is_told_that_systemd_keeps_the_groups_where_a_handler_says_so() {
    let Some(cri) = Cri::prepare("") else { return };
    handler(&cri, "runc", "");
    cri.set(&format!("{RUNTIME}.containerd.runtimes.runc.options"), "SystemdCgroup = true");
    cri.launch();
    let answer = cri.call(cri.client().runtime_config(wire::RuntimeConfigRequest {})).unwrap();
    assert_eq!(answer.linux.unwrap().cgroup_driver(), wire::CgroupDriver::Systemd);
}

#[test]
fn a_pause_image_that_is_configured_and_absent_is_pulled() {
    let registry = Fake::start();
    let image = Image::named("x").layer(&base_layer(), Packing::Gzip);
    let image = image.config("Entrypoint", serde_json::json!(["busybox", "sleep", "12345"]));
    let name = image.config("Cmd", serde_json::json!([])).publish(&registry, "test/pause", "1");
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(&format!("{IMAGES}.pinned_images"), &format!("sandbox = {name:?}"));
    cri.launch();
    let id = cri.pod("web");
    let command = || fs::read(format!("/proc/{}/cmdline", cri.pod_pid(&id))).unwrap();
    eventually("the sandbox runs it", || command() == b"busybox\0sleep\x0012345\0");
    let listed = cri.call(cri.images().list_images(wire::ListImagesRequest::default())).unwrap().images;
    assert!(listed[0].pinned && listed[0].repo_tags == [name], "{listed:?}");
}

#[test]
fn nobody_is_answered_before_all_is_known() {
    let Some(cri) = Cri::start() else { return };
    let id = cri.pod("web");
    let hung = rustix::process::Pid::from_raw(proc::shim("k8s.io", &id).unwrap().pid).unwrap();
    cri.daemon.kill();
    rustix::process::kill_process(hung, rustix::process::Signal::STOP).unwrap();
    cri.daemon.launch();
    let refused = [
        cri.pods().map(drop),
        cri.run_pod(cri.pod_config("other")).map(drop),
        cri.call(cri.client().get_container_events(wire::GetEventsRequest {})).map(drop),
        cri.call(cri.images().list_images(wire::ListImagesRequest::default())).map(drop),
    ];
    rustix::process::kill_process(hung, rustix::process::Signal::CONT).unwrap();
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "server is not initialized yet"));
    }
    eventually("all is known", || cri.pods().is_ok());
    assert_eq!(cri.pods().unwrap().len(), 1, "and nothing was made meanwhile");
}

/// Whoever it is, is believed; what he has shown is kept.
#[derive(Debug, Default)]
struct Shown(std::sync::Mutex<Vec<u8>>);

impl rustls::client::danger::ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        certificate: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = certificate.to_vec();
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_streaming_server_without_a_certificate_makes_one_of_its_own() {
    use std::io::{Read, Write};
    use std::sync::Arc;
    let Some(cri) = Cri::prepare("") else { return };
    cri.set("plugins.'io.containerd.grpc.v1.cri'", "enable_tls_streaming = true");
    cri.launch();
    let kubelet = Kubelet::with(cri);
    let container_id = kubelet.run("c", "exec sleep 1000");
    let request =
        wire::ExecRequest { container_id, cmd: vec!["true".to_owned()], stdout: true, ..Default::default() };
    let url = kubelet.cri.call(kubelet.cri.client().exec(request)).unwrap().url;
    let (address, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let shown = Arc::new(Shown::default());
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<_>)
            .with_no_client_auth();
    let server = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), server).unwrap();
    let socket = std::net::TcpStream::connect(address).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    // The names that it is for are in it as they are.
    let certificate = shown.0.lock().unwrap().clone();
    let host = rustix::system::uname().nodename().to_bytes().to_vec();
    for name in [host.as_slice(), b"localhost", &[127, 0, 0, 1]] {
        assert!(certificate.windows(name.len()).any(|part| part == name), "{name:?}");
    }
}

#[test]
fn what_images_take_is_measured_as_often_as_is_set() {
    if binaries::beyond_upstream("it is measured when somebody asks") {
        return;
    }
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(IMAGES, "stats_collect_period = 1");
    cri.launch();
    let at = || {
        let usage = cri.call(cri.images().image_fs_info(wire::ImageFsInfoRequest {})).unwrap();
        usage.image_filesystems[0].timestamp
    };
    let start = Instant::now();
    let (first, second) = (at(), at());
    assert!(first == second || start.elapsed() >= Duration::from_secs(1));
    eventually("it is measured again", || at() > first);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}
