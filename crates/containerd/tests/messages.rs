//! What holds for every service: sizes of messages, the namespace header, unknown services, health.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use daemon::{Home, request};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// A message whose only field nobody knows, so that its size is all that matters about it.
#[derive(Clone, PartialEq, prost::Message)]
struct Large {
    #[prost(bytes = "vec", tag = "999")]
    padding: Vec<u8>,
}

/// One unary method of each service, and whether it needs a namespace.
const METHODS: [(&str, bool); 15] = [
    ("containerd.services.containers.v1.Containers/Get", true),
    ("containerd.services.content.v1.Content/Info", true),
    ("containerd.services.content.v1.Content/Abort", true),
    ("containerd.services.diff.v1.Diff/Apply", true),
    ("containerd.services.events.v1.Events/Publish", true),
    ("containerd.services.images.v1.Images/List", true),
    ("containerd.services.introspection.v1.Introspection/Server", false),
    ("containerd.services.introspection.v1.Introspection/Plugins", false),
    ("containerd.services.leases.v1.Leases/List", true),
    ("containerd.services.mounts.v1.Mounts/Info", true),
    ("containerd.services.namespaces.v1.Namespaces/List", false),
    ("containerd.services.snapshots.v1.Snapshots/Stat", true),
    ("containerd.services.tasks.v1.Tasks/List", true),
    ("containerd.services.version.v1.Version/Version", false),
    ("grpc.health.v1.Health/Check", false),
];

async fn call(channel: &Channel, method: &str, request: Request<Large>) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path: PathAndQuery = format!("/{method}").parse().unwrap();
    client.unary::<_, Large, _>(request, path, tonic_prost::ProstCodec::default()).await.map(drop)
}

#[tokio::test]
async fn every_service_takes_messages_of_fifteen_mebibytes() {
    let home = Home::new();
    let daemon = home.start().await;
    let channel = daemon.channel().await;
    for (method, _) in METHODS {
        for (size, fits) in [(15 << 20, true), (17 << 20, false)] {
            let answer = call(&channel, method, request(Large { padding: vec![0; size] })).await;
            // grpc-go's code and words.
            let too_large = matches!(&answer, Err(status) if status.code() == Code::ResourceExhausted
                && status.message().starts_with("grpc: received message larger than max ("));
            assert_eq!(too_large, !fits, "{method} with {size} bytes: {answer:?}");
        }
    }
}

#[tokio::test]
async fn namespaced_calls_without_a_namespace_are_refused() {
    let home = Home::new();
    let daemon = home.start().await;
    let channel = daemon.channel().await;
    for (method, needs) in METHODS {
        let answer = call(&channel, method, Request::new(Large::default())).await;
        let refused = matches!(&answer, Err(status)
            if status.code() == Code::FailedPrecondition && status.message().contains("namespace is required"));
        assert_eq!(refused, needs, "{method}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let home = Home::new();
    home.configure("[other]\n");
    let text = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let disabled = format!("disabled_plugins = ['io.containerd.grpc.v1.leases']\n{text}");
    std::fs::write(home.path("config.toml"), disabled).unwrap();
    let daemon = home.start().await;
    let channel = daemon.channel().await;
    for (method, words) in [
        ("no.such.Service/Version", "unknown service no.such.Service"),
        ("containerd.services.leases.v1.Leases/List", "unknown service containerd.services.leases.v1.Leases"),
        (
            "containerd.services.version.v1.Version/Other",
            "unknown method Other for service containerd.services.version.v1.Version",
        ),
    ] {
        let status = call(&channel, method, request(Large::default())).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, words));
    }
}

#[tokio::test]
async fn the_daemon_and_its_services_are_serving() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = HealthClient::new(daemon.channel().await);
    for service in ["", "containerd.services.containers.v1.Containers"] {
        let answer = client.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(HealthCheckRequest { service: "nosuch".into() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn running_out_of_descriptors_does_not_end_the_listening() {
    let home = Home::new();
    let daemon = home.start().await;
    drop(daemon.channel().await);
    let before = daemon.limit_descriptors(Some(0));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(tokio::net::UnixStream::connect(daemon.address()).await.unwrap());
    }
    let begun = std::time::Instant::now();
    while !home.log().contains("accept failed") {
        assert!(begun.elapsed() < daemon::PATIENCE, "{}", home.log());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    daemon.limit_descriptors(before);
    drop(waiting);
    let channel = daemon.channel().await;
    call(&channel, "containerd.services.version.v1.Version/Version", request(Large::default()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_that_cancels_many_calls_keeps_its_connection() {
    let home = Home::new();
    let daemon = home.start().await;
    let channel = daemon.channel().await;
    for _ in 0..5_000 {
        let mut client = grpc::tasks::tasks_client::TasksClient::new(channel.clone());
        let mut call = Box::pin(client.list(request(Default::default())));
        // Sent, and given up before the answer is there.
        let _ready: bool =
            std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        tokio::task::yield_now().await;
    }
    call(&channel, "containerd.services.version.v1.Version/Version", request(Large::default()))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_limits_of_messages_can_be_configured() {
    let home = Home::new();
    // Behind the section of the gRPC server.
    home.configure("max_recv_message_size = 1048576\n");
    let daemon = home.start().await;
    let channel = daemon.channel().await;
    let method = "containerd.services.version.v1.Version/Version";
    call(&channel, method, request(Large { padding: vec![0; 1 << 19] })).await.unwrap();
    let status = call(&channel, method, request(Large { padding: vec![0; 1 << 20] })).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().ends_with(" vs. 1048576)"), "{status}");
}
