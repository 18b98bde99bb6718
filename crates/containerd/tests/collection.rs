//! Garbage collection over the wire: `sync` waits for it, what nothing keeps is gone then, and subscribers are told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::time::{Duration, SystemTime};

use api::containerd::services::events::v1::SubscribeRequest;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::types::Descriptor;
use daemon::{Daemon, Home, PATIENCE, request};
use grpc::events::events_client::EventsClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use tonic::{Code, Request};

const SNAPSHOTTER: &str = "native";

/// A request whose creations the lease `lease` holds.
fn leased<T>(message: T) -> Request<T> {
    let mut request = request(message);
    request.metadata_mut().insert("containerd-lease", "lease".parse().unwrap());
    request
}

fn expiring(name: &str, after: Duration) -> images::CreateImageRequest {
    let end = types::time::rfc3339(SystemTime::now() + after);
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let digest = types::Digest::of(b"nothing").into();
    let image = images::Image {
        name: name.to_owned(),
        labels: [("containerd.io/gc.expire".to_owned(), end)].into(),
        target: Some(Descriptor { media_type, digest, size: 3, ..Default::default() }),
        ..Default::default()
    };
    images::CreateImageRequest { image: Some(image), source_date_epoch: None }
}

async fn lease(daemon: &Daemon) -> LeasesClient<tonic::transport::Channel> {
    let mut leases = LeasesClient::new(daemon.channel().await);
    let create = leases::CreateRequest { id: "lease".to_owned(), ..Default::default() };
    leases.create(request(create)).await.unwrap();
    leases
}

#[tokio::test]
async fn a_lease_that_is_deleted_with_sync_takes_along_what_it_held() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut events = EventsClient::new(daemon.channel().await);
    let mut events = events.subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
    let mut leases = lease(&daemon).await;
    let mut stored = SnapshotsClient::new(daemon.channel().await);
    let snapshotter = SNAPSHOTTER.to_owned();
    let prepare =
        snapshots::PrepareSnapshotRequest { snapshotter, key: "held".to_owned(), ..Default::default() };
    stored.prepare(leased(prepare)).await.unwrap();
    let mut names = ImagesClient::new(daemon.channel().await);
    let long_ago = expiring("over", Duration::ZERO);
    names.create(leased(long_ago)).await.unwrap();

    // A collection that somebody else waits for takes nothing of it.
    let other = leases::CreateRequest { id: "other".to_owned(), ..Default::default() };
    leases.create(request(other)).await.unwrap();
    let delete = |id: &str| leases::DeleteRequest { id: id.to_owned(), sync: true };
    leases.delete(request(delete("other"))).await.unwrap();
    let stat = snapshots::StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: "held".to_owned() };
    stored.stat(request(stat.clone())).await.unwrap();

    leases.delete(request(delete("lease"))).await.unwrap();
    assert_eq!(stored.stat(request(stat)).await.unwrap_err().code(), Code::NotFound);
    let get = images::GetImageRequest { name: "over".to_owned() };
    assert_eq!(names.get(request(get)).await.unwrap_err().code(), Code::NotFound);
    let mut told = Vec::new();
    while told.len() < 4 {
        let envelope = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        told.push(envelope.topic);
    }
    told[2..].sort();
    assert_eq!(told, ["/snapshot/prepare", "/images/create", "/images/delete", "/snapshot/remove"]);
}

#[tokio::test]
async fn an_image_that_expires_is_collected_though_nothing_else_happens() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut events = EventsClient::new(daemon.channel().await);
    let mut events = events.subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
    let mut names = ImagesClient::new(daemon.channel().await);
    names.create(request(expiring("soon", Duration::from_millis(200)))).await.unwrap();
    for topic in ["/images/create", "/images/delete"] {
        let envelope = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(envelope.topic, topic);
    }
}
