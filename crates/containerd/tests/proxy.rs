//! Plugins in other processes: a second daemon is the snapshotter, the content store and the differ of the first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use api::containerd::services::content::v1 as content;
use api::containerd::services::diff::v1 as diff;
use api::containerd::services::introspection::v1 as introspection;
use api::containerd::services::snapshots::v1 as snapshots;
use daemon::{Daemon, Home, request, run};
use grpc::content::content_client::ContentClient;
use grpc::diff::diff_client::DiffClient;
use grpc::introspection::introspection_client::IntrospectionClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use tonic::{Code, Status};
use types::Digest;

const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.native";
const CONTENT: &str = "io.containerd.content.v1.content";

/// Nothing refers to the snapshots and blobs of these tests, so nothing may be collected: neither here nor there.
const KEEP: &str =
    "[plugins.'io.containerd.gc.v1.scheduler']\nstartup_delay = '1h'\nmutation_threshold = 0\n";

/// A daemon whose plugin `name` of a kind is the daemon of `far`.
fn configure(home: &Home, far: &Home, kind: &str, name: &str, more: &str) {
    home.configure(&format!(
        "{more}\n[proxy_plugins.{name}]\ntype = '{kind}'\naddress = {:?}\ncapabilities = ['remote']\n\
         [proxy_plugins.{name}.exports]\nroot = '/far'",
        far.path("s")
    ));
    disable(home, if kind == "content" { CONTENT } else { SNAPSHOTTER });
}

/// Top-level keys come before the first section.
fn disable(home: &Home, uri: &str) {
    let text = std::fs::read_to_string(home.path("config.toml")).unwrap();
    std::fs::write(home.path("config.toml"), format!("disabled_plugins = ['{uri}']\n{text}")).unwrap();
}

async fn prepare(daemon: &Daemon, key: &str) -> Result<(), Status> {
    let request = request(snapshots::PrepareSnapshotRequest {
        snapshotter: "native".into(),
        key: key.into(),
        ..Default::default()
    });
    SnapshotsClient::new(daemon.channel().await).prepare(request).await.map(drop)
}

async fn keys(daemon: &Daemon) -> Vec<String> {
    let request =
        request(snapshots::ListSnapshotsRequest { snapshotter: "native".into(), filters: Vec::new() });
    let mut pages = SnapshotsClient::new(daemon.channel().await).list(request).await.unwrap().into_inner();
    let mut keys = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        keys.extend(page.info.into_iter().map(|info| info.name));
    }
    keys
}

#[tokio::test]
async fn a_snapshotter_in_another_process_is_used_once_it_is_there_and_unavailable_before_and_after() {
    let (near, far) = (Home::new(), Home::new());
    configure(&near, &far, "snapshot", "native", KEEP);
    far.configure(KEEP);
    let daemon = near.start().await;
    assert_eq!(prepare(&daemon, "k1").await.unwrap_err().code(), Code::Unavailable);

    let other = far.start().await;
    prepare(&daemon, "k1").await.unwrap();
    assert_eq!(keys(&daemon).await, ["k1"]);
    let theirs = keys(&other).await;
    let [key] = &theirs[..] else { panic!("{theirs:?}") };
    assert!(key.starts_with("test/") && key.ends_with("/k1"), "{key}");

    drop(other);
    assert_eq!(prepare(&daemon, "k2").await.unwrap_err().code(), Code::Unavailable);
    let other = far.start().await;
    prepare(&daemon, "k2").await.unwrap();
    let remove = snapshots::RemoveSnapshotRequest { snapshotter: "native".into(), key: "k1".into() };
    SnapshotsClient::new(daemon.channel().await).remove(request(remove)).await.unwrap();
    assert_eq!(keys(&daemon).await, ["k2"]);
    assert_eq!(keys(&other).await.len(), 1);
    // The next daemon knows what this one has made there.
    drop(daemon);
    assert_eq!(keys(&near.start().await).await, ["k2"]);
}

#[tokio::test]
async fn what_a_proxy_says_about_itself_is_listed() {
    let (near, far) = (Home::new(), Home::new());
    configure(&near, &far, "snapshot", "native", "");
    let daemon = near.start().await;
    let list = introspection::PluginsRequest { filters: vec!["id==native".into()] };
    let plugins = IntrospectionClient::new(daemon.channel().await).plugins(list).await.unwrap();
    let plugins = plugins.into_inner().plugins;
    let [plugin] = &plugins[..] else { panic!("{plugins:?}") };
    assert_eq!(plugin.r#type, "io.containerd.snapshotter.v1");
    assert_eq!(plugin.capabilities, ["remote"]);
    assert_eq!(plugin.exports["root"], "/far");
    assert_eq!(plugin.exports["address"], far.path("s").to_str().unwrap());
    assert_eq!(plugin.platforms.len(), 1);
}

fn write(data: &[u8]) -> Vec<content::WriteContentRequest> {
    vec![content::WriteContentRequest {
        action: content::WriteAction::Commit.into(),
        r#ref: "r".into(),
        total: data.len() as i64,
        expected: Digest::of(data).to_string(),
        data: data.to_vec().into(),
        ..Default::default()
    }]
}

async fn has(daemon: &Daemon, namespace: &str, digest: &Digest) -> bool {
    let info = content::InfoRequest { digest: digest.to_string() };
    let request = daemon::in_namespace(namespace, info);
    ContentClient::new(daemon.channel().await).info(request).await.is_ok()
}

#[tokio::test]
async fn a_content_store_in_another_process_has_the_blobs() {
    let (near, far) = (Home::new(), Home::new());
    configure(&near, &far, "content", "far", KEEP);
    far.configure(KEEP);
    let other = far.start().await;
    let daemon = near.start().await;
    let mut client = ContentClient::new(daemon.channel().await);
    let stream = tokio_stream::iter(write(b"blob"));
    let mut answers = client.write(request(stream)).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let digest = Digest::of(b"blob");
    assert!(has(&daemon, "test", &digest).await && has(&other, "default", &digest).await);
    assert!(!has(&daemon, "elsewhere", &digest).await);
    assert!(!near.path(&format!("root/{CONTENT}/blobs")).exists());
    drop(other);
    let read = content::ReadContentRequest { digest: digest.to_string(), ..Default::default() };
    let read = match client.read(request(read)).await {
        Ok(stream) => stream.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    let status = read.unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

async fn apply(daemon: &Daemon, media_type: &str) -> Status {
    let layer = api::containerd::types::Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(b"").to_string(),
        ..Default::default()
    };
    let apply = diff::ApplyRequest { diff: Some(layer), ..Default::default() };
    DiffClient::new(daemon.channel().await).apply(request(apply)).await.unwrap_err()
}

#[tokio::test]
async fn differs_are_asked_in_their_order_until_one_knows_the_media_type() {
    let (near, far) = (Home::new(), Home::new());
    let order = |first, second| {
        format!("[plugins.'io.containerd.service.v1.diff-service']\ndefault = ['{first}', '{second}']")
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    configure(&near, &far, "diff", "far", &order("far", "walking"));
    let daemon = near.start().await;
    assert_eq!(apply(&daemon, layer).await.code(), Code::Unavailable, "the far one is asked first");
    let _other = far.start().await;
    assert_eq!(apply(&daemon, layer).await.code(), Code::NotFound, "it has no such blob in this namespace");
    drop(daemon);
    configure(&near, &far, "diff", "far", &order("walking", "far"));
    let daemon = near.start().await;
    assert_eq!(apply(&daemon, layer).await.code(), Code::NotFound);
    assert_eq!(apply(&daemon, "x/unknown").await.code(), Code::Unimplemented, "both say so");
}

#[tokio::test]
async fn a_differ_that_is_not_there_closes_the_service_and_says_why() {
    let home = Home::new();
    home.configure("[plugins.'io.containerd.service.v1.diff-service']\ndefault = ['erofs']");
    let daemon = home.start().await;
    assert_eq!(apply(&daemon, "x/y").await.code(), Code::Unimplemented);
    assert!(home.log().contains("needed differ not loaded: erofs"), "{}", home.log());
}

#[test]
fn a_proxy_cannot_take_a_name_that_is_taken() {
    let (near, far) = (Home::new(), Home::new());
    for (kind, name, why) in [
        ("snapshot", "overlayfs", "io.containerd.snapshotter.v1.overlayfs: plugin: id already registered"),
        ("content", "far", "there can be one content store"),
    ] {
        near.configure(&format!("[proxy_plugins.{name}]\ntype = '{kind}'\naddress = {:?}", far.path("s")));
        let output = run(&["-c", near.path("config.toml").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(why), "{text}");
    }
}
