//! No signal ends the daemon but those that are meant to, and one tells what it is doing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use api::containerd::services::events::v1::SubscribeRequest;
use api::containerd::services::namespaces::v1::ListNamespacesRequest;
use daemon::{Home, PATIENCE, request};
use grpc::events::events_client::EventsClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use rustix::process::Signal;

#[tokio::test]
async fn usr1_writes_the_calls_under_way_for_root_alone() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = EventsClient::new(daemon.channel().await);
    let _events = client.subscribe(request(SubscribeRequest::default())).await.unwrap();
    daemon.signal(Signal::USR1);
    let written = || {
        let entries = std::fs::read_dir(home.path("state")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().ends_with(".stacks.log"))
    };
    let begun = Instant::now();
    let path = loop {
        if let Some(path) = written() {
            break path;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", home.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("Events/Subscribe") && text.contains("namespace=test"), "{text}");
    let logged = || home.log().contains(path.to_str().unwrap());
    while !logged() {
        assert!(begun.elapsed() < PATIENCE, "{}", home.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_term_and_int_end_the_daemon() {
    for last in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let mut daemon = home.start().await;
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
            daemon.signal(signal);
        }
        let mut client = NamespacesClient::new(daemon.channel().await);
        client.list(ListNamespacesRequest::default()).await.unwrap();
        daemon.signal(last);
        assert_eq!(daemon.ended().await.code(), Some(0));
        assert!(!home.path("s").exists());
    }
}
