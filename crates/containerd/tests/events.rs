//! Events: what is published, forwarded and announced reaches those whose filters it matches, in order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::io::Write;
use std::process::Stdio;

use api::containerd::events::{NamespaceCreate, TaskExit};
use api::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use api::containerd::services::namespaces::v1 as namespaces;
use api::containerd::types::Envelope;
use daemon::{Daemon, Home, PATIENCE, containerd, in_namespace, request};
use grpc::events::events_client::EventsClient;
use prost::Message;
use tonic::{Code, Streaming};

async fn subscribe(daemon: &Daemon, filters: &[&str]) -> Streaming<Envelope> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let mut client = EventsClient::new(daemon.channel().await);
    client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner()
}

async fn next(events: &mut Streaming<Envelope>) -> Envelope {
    tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap()
}

fn exit(container: &str) -> api::ProtoAny {
    let event = TaskExit { container_id: container.into(), ..Default::default() };
    api::any::to_wire(api::any::pack(&event))
}

#[tokio::test]
async fn subscribers_see_what_their_filters_match_in_all_namespaces() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut all = subscribe(&daemon, &[]).await;
    let mut mine = subscribe(&daemon, &["namespace==a,topic~=|^/tasks/|", "event.container_id==c3"]).await;
    let mut client = EventsClient::new(daemon.channel().await);
    let sent =
        [("a", "/tasks/exit", "c1"), ("b", "/tasks/exit", "c2"), ("b", "/x", "c3"), ("a", "/images/x", "c4")];
    for (namespace, topic, container) in sent {
        let publish = PublishRequest { topic: topic.into(), event: Some(exit(container)) };
        client.publish(in_namespace(namespace, publish)).await.unwrap();
    }
    for (namespace, topic, container) in sent {
        let envelope = next(&mut all).await;
        assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), (namespace, topic));
        assert_eq!(envelope.event, Some(exit(container)));
        assert!(envelope.timestamp.is_some());
    }
    assert_eq!(next(&mut mine).await.event, Some(exit("c1")));
    assert_eq!(next(&mut mine).await.event, Some(exit("c3")));
}

#[tokio::test]
async fn a_forwarded_envelope_stays_as_it_is() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut all = subscribe(&daemon, &[]).await;
    let mut client = EventsClient::new(daemon.channel().await);
    let envelope = Envelope {
        timestamp: Some(api::Timestamp { seconds: 5, nanos: 6 }),
        namespace: "elsewhere".into(),
        topic: "/tasks/exit".into(),
        event: Some(exit("c1")),
    };
    client.forward(request(ForwardRequest { envelope: Some(envelope.clone()) })).await.unwrap();
    assert_eq!(next(&mut all).await, envelope);
    // As upstream: no time is the first of all.
    let undated = Envelope { timestamp: None, ..envelope };
    client.forward(request(ForwardRequest { envelope: Some(undated) })).await.unwrap();
    assert_eq!(next(&mut all).await.timestamp, Some(api::Timestamp::default()));
}

#[tokio::test]
async fn bad_topics_and_bad_filters_are_refused() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = EventsClient::new(daemon.channel().await);
    for topic in ["", "/", "x", "/a b"] {
        let publish = PublishRequest { topic: topic.into(), event: Some(exit("c1")) };
        assert_eq!(
            client.publish(request(publish)).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{topic}"
        );
    }
    let bad = SubscribeRequest { filters: vec!["topic==".into()] };
    let refused = client.subscribe(bad).await.unwrap_err();
    assert!(refused.message().contains("filters: parse error: [topic=="), "{refused}");
}

#[tokio::test]
async fn a_change_of_metadata_is_announced() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut all = subscribe(&daemon, &["topic==\"/namespaces/create\""]).await;
    let mut client = grpc::namespaces::namespaces_client::NamespacesClient::new(daemon.channel().await);
    let labels: std::collections::BTreeMap<_, _> = [("k".to_owned(), "v".to_owned())].into();
    let namespace = Some(namespaces::Namespace { name: "new".into(), labels: labels.clone() });
    client.create(namespaces::CreateNamespaceRequest { namespace }).await.unwrap();
    let envelope = next(&mut all).await;
    assert_eq!(envelope.namespace, "new");
    let event: NamespaceCreate = api::any::unpack(&api::any::from_wire(envelope.event.unwrap())).unwrap();
    assert_eq!((event.name.as_str(), event.labels), ("new", labels));
}

#[tokio::test]
async fn the_publish_command_reaches_subscribers_over_the_ttrpc_socket() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut all = subscribe(&daemon, &[]).await;
    let mut publish = containerd();
    publish.arg("-address").arg(daemon.address()).args([
        "publish",
        "-topic",
        "/tasks/exit",
        "-namespace",
        "ns",
    ]);
    let mut child = publish.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&exit("c9").encode_to_vec()).unwrap();
    let envelope = next(&mut all).await;
    assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("ns", "/tasks/exit"));
    assert_eq!(envelope.event, Some(exit("c9")));
    assert!(tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
}
