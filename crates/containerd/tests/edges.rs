//! Edge cases of the services whose codes and words clients of upstream's daemon know. Each was compared with 2.3.4.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::process::Stdio;

use api::ProtoAny;
use api::containerd::services::containers::v1 as containers;
use api::containerd::services::content::v1 as content;
use api::containerd::services::images::v1 as images;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::services::tasks::v1 as tasks;
use api::containerd::types::Descriptor;
use daemon::{Home, KEEP, request};
use grpc::containers::containers_client::ContainersClient;
use grpc::content::content_client::ContentClient;
use grpc::images::images_client::ImagesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use grpc::tasks::tasks_client::TasksClient;
use tonic::{Code, Status};

fn told<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

fn container(id: &str, spec: Option<Vec<u8>>) -> containers::CreateContainerRequest {
    let runtime = containers::container::Runtime { name: "io.containerd.nosuch.v9".into(), options: None };
    let spec = spec.map(|value| ProtoAny { type_url: "x".into(), value });
    let container =
        containers::Container { id: id.into(), runtime: Some(runtime), spec, ..Default::default() };
    containers::CreateContainerRequest { container: Some(container) }
}

#[tokio::test]
async fn a_list_that_does_not_fit_is_exhausted_and_its_stream_goes_on() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let limit = 64 << 20;
    let mut client = ContainersClient::new(daemon.channel().await).max_decoding_message_size(limit);
    for id in ["c1", "c2"] {
        client.create(request(container(id, Some(vec![7; 9 << 20])))).await.unwrap();
    }
    let (code, words) = told(client.list(request(Default::default())).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(words.starts_with("grpc: trying to send message larger than max (18"), "{words}");
    let mut stream = client.list_stream(request(Default::default())).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        let container = message.container.unwrap();
        // What nobody here understands stays as it was, to the byte.
        assert_eq!(container.spec.unwrap().value, vec![7; 9 << 20]);
        ids.push(container.id);
    }
    assert_eq!(ids, ["c1", "c2"]);
}

#[tokio::test]
async fn a_container_may_be_without_a_spec_and_filters_may_name_digits() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = ContainersClient::new(daemon.channel().await);
    client.create(request(container("c1", None))).await.unwrap();
    let list = containers::ListContainersRequest { filters: vec!["labels.2nd".into(), "id==c1".into()] };
    assert_eq!(client.list(request(list)).await.unwrap().into_inner().containers.len(), 1);
}

#[tokio::test]
async fn tasks_of_containers_that_cannot_exist_are_not_found() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = TasksClient::new(daemon.channel().await);
    for id in ["", "a b", "none"] {
        let missing = (Code::NotFound, format!("container {id:?} in namespace \"test\": not found"));
        let of = || id.to_owned();
        let get = tasks::GetRequest { container_id: of(), ..Default::default() };
        assert_eq!(told(client.get(request(get)).await), missing);
        let pause = tasks::PauseTaskRequest { container_id: of() };
        assert_eq!(told(client.pause(request(pause)).await), missing);
        let checkpoint = tasks::CheckpointTaskRequest { container_id: of(), ..Default::default() };
        assert_eq!(told(client.checkpoint(request(checkpoint)).await), missing);
        let create = tasks::CreateTaskRequest { container_id: of(), ..Default::default() };
        assert_eq!(told(client.create(request(create)).await), missing);
    }
    let exec = tasks::ExecProcessRequest { container_id: "none".into(), ..Default::default() };
    let wanted = (Code::InvalidArgument, "exec id cannot be empty".to_owned());
    assert_eq!(told(client.exec(request(exec)).await), wanted);
}

#[tokio::test]
async fn bad_digests_are_told_in_the_words_of_each_call() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = ContentClient::new(daemon.channel().await);
    let info = client.info(request(content::InfoRequest { digest: "x".into() })).await;
    assert_eq!(told(info), (Code::InvalidArgument, "\"x\" failed validation".into()));
    let delete = client.delete(request(content::DeleteContentRequest { digest: "x".into() })).await;
    assert_eq!(told(delete), (Code::InvalidArgument, "invalid checksum digest format".into()));
    let read = content::ReadContentRequest { digest: "x".into(), ..Default::default() };
    let read = client.read(request(read)).await;
    assert_eq!(told(read.map(drop)), (Code::InvalidArgument, "x: invalid checksum digest format".into()));
}

#[tokio::test]
async fn images_are_refused_by_what_is_wrong_with_their_target() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = ImagesClient::new(daemon.channel().await);
    let good = Descriptor {
        media_type: "m".into(),
        digest: format!("sha256:{:064}", 1),
        size: 3,
        ..Default::default()
    };
    let image = |target| images::Image { name: "i".into(), target, ..Default::default() };
    let create = |target| images::CreateImageRequest { image: Some(image(target)), ..Default::default() };
    for (target, words) in [
        (None, "image target is required: invalid argument"),
        (
            Some(Descriptor { digest: "x".into(), ..good.clone() }),
            "target.Digest \"x\" invalid: invalid checksum digest format: invalid argument",
        ),
        (
            Some(Descriptor { size: -1, ..good.clone() }),
            "target.Size must be greater than zero: invalid argument",
        ),
    ] {
        let refused = told(client.create(request(create(target))).await);
        assert_eq!(refused, (Code::InvalidArgument, words.to_owned()));
    }
    client.create(request(create(Some(good.clone())))).await.unwrap();
    let delete = |digest: &str| images::DeleteImageRequest {
        name: "i".into(),
        target: Some(Descriptor { digest: digest.into(), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(told(client.delete(request(delete("x"))).await).0, Code::NotFound);
    // No digest: whatever it is.
    client.delete(request(delete(""))).await.unwrap();
}

#[tokio::test]
async fn snapshots_need_a_key_and_a_name() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = SnapshotsClient::new(daemon.channel().await);
    let snapshotter = || "native".to_owned();
    let prepare = snapshots::PrepareSnapshotRequest { snapshotter: snapshotter(), ..Default::default() };
    let empty =
        |what| (Code::InvalidArgument, format!("snapshot {what} must not be empty: invalid argument"));
    assert_eq!(told(client.prepare(request(prepare.clone())).await), empty("key"));
    let view = snapshots::ViewSnapshotRequest { snapshotter: snapshotter(), ..Default::default() };
    assert_eq!(told(client.view(request(view)).await), empty("key"));
    client.prepare(request(snapshots::PrepareSnapshotRequest { key: "k".into(), ..prepare })).await.unwrap();
    let commit = snapshots::CommitSnapshotRequest {
        snapshotter: snapshotter(),
        key: "k".into(),
        ..Default::default()
    };
    assert_eq!(told(client.commit(request(commit)).await), empty("name"));
    let mounts = snapshots::MountsRequest { snapshotter: snapshotter(), key: String::new() };
    assert_eq!(told(client.mounts(request(mounts)).await).0, Code::NotFound);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_restored_leaves_no_files() {
    let home = Home::new();
    home.configure(KEEP);
    let scratch = home.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let daemon = home.launch(home.command().env("XDG_RUNTIME_DIR", &scratch).stderr(Stdio::null())).await;
    ContainersClient::new(daemon.channel().await).create(request(container("c1", None))).await.unwrap();
    // An empty tar, stored as a checkpoint is.
    let tar = vec![0; 1024];
    let digest = types::Digest::of(&tar).to_string();
    let write = content::WriteContentRequest {
        action: content::WriteAction::Commit.into(),
        r#ref: "checkpoint".into(),
        data: tar.into(),
        ..Default::default()
    };
    let mut store = ContentClient::new(daemon.channel().await);
    let mut written = store.write(request(tokio_stream::iter([write]))).await.unwrap().into_inner();
    written.message().await.unwrap().unwrap();

    let mut client = TasksClient::new(daemon.channel().await);
    let create = |media_type: &str, digest: &str| tasks::CreateTaskRequest {
        container_id: "c1".into(),
        checkpoint: Some(Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            size: 1024,
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = told(client.create(request(create("foo", &digest))).await);
    assert_eq!(refused, (Code::Unknown, "unsupported checkpoint type \"foo\"".into()));
    let criu = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
    let absent = told(client.create(request(create(criu, &format!("sha256:{:064}", 1)))).await);
    assert_eq!(absent.0, Code::NotFound, "{absent:?}");
    // Here it was unpacked, and then there was no runtime.
    let failed = told(client.create(request(create(criu, &digest))).await);
    assert!(failed.1.contains("containerd-shim-nosuch-v9"), "{failed:?}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}
