//! Containers, images, leases and snapshots over the wire: masks, filters, error codes, and the events they cause.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::collections::BTreeMap;

use api::containerd::services::containers::v1 as containers;
use api::containerd::services::events::v1::SubscribeRequest;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::types::{Descriptor, Envelope};
use api::{FieldMask, ProtoAny};
use daemon::{Daemon, Home, KEEP, PATIENCE, in_namespace, request};
use grpc::containers::containers_client::ContainersClient;
use grpc::events::events_client::EventsClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use tonic::{Code, Streaming};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

fn container(id: &str, with: &[(&str, &str)]) -> containers::Container {
    containers::Container {
        id: id.to_owned(),
        labels: labels(with),
        runtime: Some(containers::container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(ProtoAny {
            type_url: "types.containerd.io/x".into(),
            value: b" { \"odd\": 1 } ".to_vec(),
        }),
        ..Default::default()
    }
}

fn image(name: &str, of: &[u8]) -> images::Image {
    let digest = types::Digest::of(of).into();
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let target = Descriptor { media_type, digest, size: 3, ..Default::default() };
    images::Image { name: name.to_owned(), target: Some(target), ..Default::default() }
}

async fn subscribe(daemon: &Daemon) -> Streaming<Envelope> {
    let mut client = EventsClient::new(daemon.channel().await);
    client.subscribe(SubscribeRequest::default()).await.unwrap().into_inner()
}

async fn topics(events: &mut Streaming<Envelope>, count: usize) -> Vec<String> {
    let mut topics = Vec::new();
    for _ in 0..count {
        let envelope = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(envelope.namespace, "test");
        topics.push(envelope.topic);
    }
    topics
}

#[tokio::test]
async fn containers_are_created_filtered_updated_and_deleted() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut events = subscribe(&daemon).await;
    let mut client = ContainersClient::new(daemon.channel().await);
    let create = |container| request(containers::CreateContainerRequest { container: Some(container) });
    let made =
        client.create(create(container("c1", &[("a", "b")]))).await.unwrap().into_inner().container.unwrap();
    assert_eq!(made.spec, container("c1", &[]).spec, "a spec is kept byte for byte");
    assert!(made.created_at.is_some());
    client.create(create(container("c2", &[]))).await.unwrap();
    let again = client.create(create(container("c1", &[]))).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let bad = client.create(create(container("no/id", &[]))).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);

    let list = |filter: &str| request(containers::ListContainersRequest { filters: vec![filter.to_owned()] });
    let found = client.list(list("labels.a==b")).await.unwrap().into_inner().containers;
    assert_eq!(found.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c1"]);
    assert_eq!(client.list(list("id==")).await.unwrap_err().code(), Code::InvalidArgument);
    let mut stream = client.list_stream(list("id~=^c")).await.unwrap().into_inner();
    let mut streamed = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        streamed.push(message.container.unwrap().id);
    }
    assert_eq!(streamed, ["c1", "c2"]);

    let update = |container, update_mask| {
        request(containers::UpdateContainerRequest { container: Some(container), update_mask })
    };
    let relabelled =
        client.update(update(container("c1", &[("x", "y")]), mask(&["labels.x"]))).await.unwrap();
    assert_eq!(relabelled.into_inner().container.unwrap().labels, labels(&[("a", "b"), ("x", "y")]));
    let immutable = client.update(update(container("c1", &[]), mask(&["id"]))).await.unwrap_err();
    assert_eq!(immutable.code(), Code::InvalidArgument);

    let delete = || request(containers::DeleteContainerRequest { id: "c1".into() });
    client.delete(delete()).await.unwrap();
    assert_eq!(client.delete(delete()).await.unwrap_err().code(), Code::NotFound);
    let expected = ["create", "create", "update", "delete"].map(|what| format!("/containers/{what}"));
    assert_eq!(topics(&mut events, 4).await, expected);
}

#[tokio::test]
async fn images_keep_their_target_until_it_is_the_one_to_be_deleted() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut events = subscribe(&daemon).await;
    let mut client = ImagesClient::new(daemon.channel().await);
    let create = |image| images::CreateImageRequest { image: Some(image), source_date_epoch: None };
    client.create(request(create(image("i:1", b"one")))).await.unwrap();
    let nameless = client.create(request(create(image("", b"one")))).await.unwrap_err();
    assert_eq!((nameless.code(), nameless.message()), (Code::InvalidArgument, "Image.Name required"));
    let elsewhere = in_namespace("other", images::GetImageRequest { name: "i:1".into() });
    assert_eq!(client.get(elsewhere).await.unwrap_err().code(), Code::NotFound);

    let dated = images::UpdateImageRequest {
        image: Some(image("i:1", b"two")),
        update_mask: mask(&["target"]),
        source_date_epoch: Some(api::Timestamp { seconds: 5, nanos: 0 }),
    };
    let updated = client.update(request(dated)).await.unwrap().into_inner().image.unwrap();
    assert_eq!(updated.updated_at.unwrap().seconds, 5);
    let label = |name: &str| images::UpdateImageRequest {
        image: Some(images::Image {
            name: name.to_owned(),
            labels: labels(&[("a", "b")]),
            target: Some(Descriptor::default()),
            ..Default::default()
        }),
        update_mask: mask(&["labels"]),
        source_date_epoch: None,
    };
    let labelled = client.update(request(label("i:1"))).await.unwrap().into_inner().image.unwrap();
    assert_eq!((labelled.labels, labelled.target), (labels(&[("a", "b")]), image("", b"two").target));
    let absent = client.update(request(label("i:2"))).await.unwrap_err();
    assert_eq!((absent.code(), absent.message()), (Code::NotFound, "image \"i:2\": not found"));
    let delete = |of: &[u8]| images::DeleteImageRequest {
        name: "i:1".into(),
        sync: true,
        target: image("", of).target,
    };
    assert_eq!(client.delete(request(delete(b"one"))).await.unwrap_err().code(), Code::NotFound);
    client.delete(request(delete(b"two"))).await.unwrap();
    let expected = ["create", "update", "update", "delete"].map(|what| format!("/images/{what}"));
    assert_eq!(topics(&mut events, 4).await, expected);
}

#[tokio::test]
async fn a_lease_holds_what_is_made_under_it() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = LeasesClient::new(daemon.channel().await);
    let random =
        client.create(request(leases::CreateRequest::default())).await.unwrap().into_inner().lease.unwrap();
    assert!(!random.id.is_empty());
    let mut prepare = request(snapshots::PrepareSnapshotRequest {
        snapshotter: "native".into(),
        key: "k".into(),
        ..Default::default()
    });
    prepare.metadata_mut().insert("containerd-lease", random.id.parse().unwrap());
    SnapshotsClient::new(daemon.channel().await).prepare(prepare).await.unwrap();
    let list = || request(leases::ListResourcesRequest { id: random.id.clone() });
    let held = client.list_resources(list()).await.unwrap().into_inner().resources;
    assert_eq!(held, [leases::Resource { id: "k".into(), r#type: "snapshots/native".into() }]);
    let resource = Some(held[0].clone());
    let drop_it = leases::DeleteResourceRequest { id: random.id.clone(), resource };
    client.delete_resource(request(drop_it)).await.unwrap();
    assert_eq!(client.list_resources(list()).await.unwrap().into_inner().resources, []);
    let delete = || request(leases::DeleteRequest { id: random.id.clone(), sync: true });
    client.delete(delete()).await.unwrap();
    assert_eq!(client.delete(delete()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn snapshots_are_prepared_labelled_committed_and_removed() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut events = subscribe(&daemon).await;
    let mut client = SnapshotsClient::new(daemon.channel().await);
    let prepare = |snapshotter: &str, key: &str, parent: &str| {
        let (snapshotter, key, parent) = (snapshotter.to_owned(), key.to_owned(), parent.to_owned());
        request(snapshots::PrepareSnapshotRequest { snapshotter, key, parent, labels: labels(&[]) })
    };
    for (snapshotter, why) in [("", "snapshotter argument missing"), ("zfs", "snapshotter not loaded: zfs")] {
        let status = client.prepare(prepare(snapshotter, "k", "")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
    let mounts = client.prepare(prepare("native", "k", "")).await.unwrap().into_inner().mounts;
    assert_eq!(mounts.len(), 1);
    assert_eq!(client.prepare(prepare("native", "k", "")).await.unwrap_err().code(), Code::AlreadyExists);

    // Go's clients leave the kind out when they change labels.
    let info = snapshots::Info { name: "k".into(), labels: labels(&[("a", "b")]), ..Default::default() };
    let update = snapshots::UpdateSnapshotRequest {
        snapshotter: "native".into(),
        info: Some(info),
        update_mask: mask(&["labels.a"]),
    };
    let updated = client.update(request(update)).await.unwrap().into_inner().info.unwrap();
    assert_eq!((updated.kind(), updated.labels), (snapshots::Kind::Active, labels(&[("a", "b")])));

    let (snapshotter, name, key) = ("native".to_owned(), "n".to_owned(), "k".to_owned());
    let commit = snapshots::CommitSnapshotRequest { snapshotter, name, key, ..Default::default() };
    client.commit(request(commit)).await.unwrap();
    client.prepare(prepare("native", "child", "n")).await.unwrap();
    let remove = |key: &str| {
        request(snapshots::RemoveSnapshotRequest { snapshotter: "native".into(), key: key.into() })
    };
    assert_eq!(client.remove(remove("n")).await.unwrap_err().code(), Code::FailedPrecondition);
    client.remove(remove("child")).await.unwrap();
    client.remove(remove("n")).await.unwrap();
    let list = snapshots::ListSnapshotsRequest { snapshotter: "native".into(), filters: Vec::new() };
    assert!(client.list(request(list)).await.unwrap().into_inner().message().await.unwrap().is_none());
    let expected =
        ["prepare", "commit", "prepare", "remove", "remove"].map(|what| format!("/snapshot/{what}"));
    assert_eq!(topics(&mut events, 5).await, expected);
}
