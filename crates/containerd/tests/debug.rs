//! The debug socket: who may open it, and what it tells about calls under way and memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;
#[allow(dead_code, reason = "only the fetching is used")]
mod scrape;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use api::containerd::services::events::v1::SubscribeRequest;
use daemon::{Daemon, Home, PATIENCE, in_namespace};
use grpc::events::events_client::EventsClient;
use rustix::process::Signal;
use tokio::net::UnixStream;

async fn start(home: &Home) -> Daemon {
    home.configure(&format!(
        "[plugins.'io.containerd.server.v1.debug']\naddress = {:?}\nuid = 0\ngid = 5\n",
        home.path("debug.sock")
    ));
    let daemon = home.start().await;
    let begun = Instant::now();
    // It is there soon after the main socket.
    while UnixStream::connect(home.path("debug.sock")).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "no debug socket: {}", home.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon
}

async fn get(home: &Home, path: &str) -> (String, String) {
    scrape::get(UnixStream::connect(home.path("debug.sock")).await.unwrap(), path).await
}

#[tokio::test]
async fn the_socket_is_for_its_group_and_gone_with_the_daemon() {
    let home = Home::new();
    let mut daemon = start(&home).await;
    let file = std::fs::metadata(home.path("debug.sock")).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o660, 0, 5));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(!home.path("debug.sock").exists());
}

#[tokio::test]
async fn a_call_under_way_is_listed_until_it_is_over() {
    let home = Home::new();
    let daemon = start(&home).await;
    let listed = async || {
        let (_, dump) = get(&home, "/debug/pprof/goroutine?debug=2").await;
        dump.contains("containerd.services.events.v1.Events/Subscribe  namespace=who")
    };
    assert!(!listed().await);
    let mut client = EventsClient::new(daemon.channel().await);
    let events = client.subscribe(in_namespace("who", SubscribeRequest::default())).await.unwrap();
    assert!(listed().await);
    drop((events, client));
    let begun = Instant::now();
    while listed().await {
        assert!(begun.elapsed() < PATIENCE, "a call whose client is gone stays listed");
    }
}

#[tokio::test]
async fn pages_tell_threads_memory_and_what_there_is_not() {
    let home = Home::new();
    let _daemon = start(&home).await;
    let (head, index) = get(&home, "/debug/pprof/").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && index.contains("goroutine"), "{head}");
    let (_, dump) = get(&home, "/debug/pprof/goroutine").await;
    for part in ["calls under way: 0", "changes under way: 0", "runtime: 2 workers", "tokio-rt-worker"] {
        assert!(dump.contains(part), "{part} is not in\n{dump}");
    }
    let (_, heap) = get(&home, "/debug/pprof/heap").await;
    assert!(heap.contains("pss ") && heap.contains(" bytes\n"), "{heap}");
    let (_, command) = get(&home, "/debug/pprof/cmdline").await;
    assert!(command.split('\0').any(|arg| arg == "-c"), "{command:?}");
    let (_, vars) = get(&home, "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(&vars).unwrap();
    assert!(vars["memory"]["rss"].as_u64().unwrap() > 1 << 20, "{vars}");
    for none in ["profile", "trace", "block"] {
        let (head, _) = get(&home, &format!("/debug/pprof/{none}?seconds=1")).await;
        assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
    }
    for missing in ["/", "/v1/metrics", "/debug/pprof/none"] {
        assert!(get(&home, missing).await.0.starts_with("HTTP/1.1 404 "), "{missing}");
    }
}
