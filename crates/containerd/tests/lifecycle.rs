//! Signals, sockets and restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use api::containerd::services::containers::v1 as containers;
use api::containerd::services::namespaces::v1 as namespaces;
use daemon::{Home, PATIENCE, request};
use grpc::containers::containers_client::ContainersClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use rustix::process::Signal;

fn container(id: &str) -> containers::CreateContainerRequest {
    containers::CreateContainerRequest {
        container: Some(containers::Container {
            id: id.to_owned(),
            runtime: Some(containers::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(api::ProtoAny { type_url: "x/y".into(), value: b"{}".to_vec() }),
            ..Default::default()
        }),
    }
}

#[tokio::test]
async fn a_terminated_daemon_leaves_no_socket_and_a_restarted_one_finds_everything() {
    let home = Home::new();
    let mut daemon = home.start().await;
    for directory in ["root", "state"] {
        let mode = std::fs::metadata(home.path(directory)).unwrap().mode() & 0o777;
        assert_eq!(mode, if directory == "root" { 0o700 } else { 0o711 });
    }
    let mut client = ContainersClient::new(daemon.channel().await);
    client.create(request(container("c1"))).await.unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(!home.path("s").exists() && !home.path("s.ttrpc").exists());

    let daemon = home.start().await;
    let mut client = ContainersClient::new(daemon.channel().await);
    let get = containers::GetContainerRequest { id: "c1".into() };
    assert_eq!(client.get(request(get)).await.unwrap().into_inner().container.unwrap().id, "c1");
}

#[tokio::test]
async fn a_killed_daemon_is_replaced_over_its_stale_sockets() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = NamespacesClient::new(daemon.channel().await);
    let namespace = Some(namespaces::Namespace { name: "kept".into(), ..Default::default() });
    client.create(namespaces::CreateNamespaceRequest { namespace }).await.unwrap();
    drop(daemon);
    assert!(home.path("s").exists());
    let daemon = home.start().await;
    let mut client = NamespacesClient::new(daemon.channel().await);
    client.get(namespaces::GetNamespaceRequest { name: "kept".into() }).await.unwrap();
}

#[tokio::test]
async fn changes_under_way_are_finished_before_the_daemon_ends() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let channel = daemon.channel().await;
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let mut client = ContainersClient::new(channel.clone());
            tokio::spawn(
                async move { (n, client.create(request(container(&format!("c{n}")))).await.is_ok()) },
            )
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let mut acknowledged = Vec::new();
    for call in calls {
        let (n, created) = call.await.unwrap();
        if created {
            acknowledged.push(n);
        }
    }
    let daemon = home.start().await;
    let mut client = ContainersClient::new(daemon.channel().await);
    for n in acknowledged {
        client.get(request(containers::GetContainerRequest { id: format!("c{n}") })).await.unwrap();
    }
}

#[tokio::test]
async fn an_open_stream_does_not_keep_the_daemon_alive() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let mut client = grpc::events::events_client::EventsClient::new(daemon.channel().await);
    let mut events = client
        .subscribe(api::containerd::services::events::v1::SubscribeRequest::default())
        .await
        .unwrap()
        .into_inner();
    daemon.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(3), daemon.ended()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(!matches!(events.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn hangup_and_user_signals_do_not_kill() {
    let home = Home::new();
    let mut daemon = home.start().await;
    for signal in [Signal::HUP, Signal::USR1, Signal::PIPE] {
        daemon.signal(signal);
    }
    let mut client = NamespacesClient::new(daemon.channel().await);
    client.list(namespaces::ListNamespacesRequest::default()).await.unwrap();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test]
async fn systemd_is_told_of_readiness_and_of_the_end() {
    let home = Home::new();
    let path = home.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = home.command().env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let mut message = [0; 256];
    let told = |message: &mut [u8]| {
        let len = socket.recv(message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    assert!(told(&mut message).contains("READY=1"));
    assert!(home.path("s").exists() && home.path("s.ttrpc").exists());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(told(&mut message).contains("STOPPING=1"));
    assert!(child.wait().unwrap().success());
}
