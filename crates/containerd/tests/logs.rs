//! Logs: one line for a finished change, in upstream's forms, and never a secret.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use api::containerd::services::containers::v1 as containers;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::namespaces::v1 as namespaces;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::services::tasks::v1 as tasks;
use api::containerd::types::Descriptor;
use daemon::{Daemon, Home, request};
use grpc::containers::containers_client::ContainersClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use grpc::tasks::tasks_client::TasksClient;

const SECRET: &str = "S3CRET";

fn container(id: &str) -> containers::CreateContainerRequest {
    let spec = format!("{{\"process\":{{\"env\":[\"TOKEN={SECRET}\"]}}}}");
    containers::CreateContainerRequest {
        container: Some(containers::Container {
            id: id.to_owned(),
            labels: [("password".to_owned(), SECRET.to_owned())].into(),
            runtime: Some(containers::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: Some(api::ProtoAny { type_url: "x/y".into(), value: SECRET.into() }),
            }),
            spec: Some(api::ProtoAny { type_url: "x/y".into(), value: spec.into_bytes() }),
            ..Default::default()
        }),
    }
}

fn image(name: &str) -> images::CreateImageRequest {
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: types::Digest::of(b"x").into(),
        size: 3,
        annotations: [("auth".to_owned(), SECRET.to_owned())].into(),
    };
    images::CreateImageRequest {
        image: Some(images::Image { name: name.to_owned(), target: Some(target), ..Default::default() }),
        ..Default::default()
    }
}

/// One change of each kind that needs no process; the second container fails.
async fn changes(daemon: &Daemon) {
    let channel = daemon.channel().await;
    let mut namespaces = NamespacesClient::new(channel.clone());
    let namespace = Some(namespaces::Namespace { name: "test".into(), ..Default::default() });
    namespaces.create(namespaces::CreateNamespaceRequest { namespace }).await.unwrap();
    let mut client = ContainersClient::new(channel.clone());
    client.create(request(container("c1"))).await.unwrap();
    client.create(request(container("c1"))).await.unwrap_err();
    client.delete(request(containers::DeleteContainerRequest { id: "c1".into() })).await.unwrap();
    let mut client = ImagesClient::new(channel.clone());
    let name = format!("https://me:{SECRET}@registry/i:1?sig={SECRET}");
    client.create(request(image(&name))).await.unwrap();
    client.delete(request(images::DeleteImageRequest { name, ..Default::default() })).await.unwrap();
    let mut client = LeasesClient::new(channel.clone());
    client.create(request(leases::CreateRequest { id: "l1".into(), ..Default::default() })).await.unwrap();
    client.delete(request(leases::DeleteRequest { id: "l1".into(), sync: false })).await.unwrap();
    let mut client = SnapshotsClient::new(channel);
    let prepare = snapshots::PrepareSnapshotRequest {
        snapshotter: "native".into(),
        key: "s1".into(),
        // Or the collector takes it first.
        labels: [("containerd.io/gc.root".to_owned(), "yes".to_owned())].into(),
        ..Default::default()
    };
    client.prepare(request(prepare)).await.unwrap();
    let remove = snapshots::RemoveSnapshotRequest { snapshotter: "native".into(), key: "s1".into() };
    client.remove(request(remove)).await.unwrap();
}

const EXPECTED: [(&str, &str); 10] = [
    ("create namespace", "test"),
    ("create container", "c1"),
    ("create container failed", "c1"),
    ("delete container", "c1"),
    ("create image", "https://[REDACTED]@registry/i:1?[REDACTED]"),
    ("delete image", "https://[REDACTED]@registry/i:1?[REDACTED]"),
    ("create lease", "l1"),
    ("delete lease", "l1"),
    ("prepare snapshot", "s1"),
    ("remove snapshot", "s1"),
];

#[tokio::test]
async fn a_finished_change_is_one_line_of_text() {
    let home = Home::new();
    let daemon = home.start().await;
    changes(&daemon).await;
    let log = home.log();
    for (message, id) in EXPECTED {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("msg=\"{message}\""))).collect();
        assert_eq!(lines.len(), 1, "{message}: {log}");
        let plain = id.chars().all(|c| c.is_ascii_alphanumeric());
        let id = if plain { id.to_owned() } else { format!("{id:?}") };
        for part in [" level=info ", " duration=", &format!(" id={id}"), " namespace=test"] {
            assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
        }
        assert_eq!(lines[0].contains(" error="), message.ends_with("failed"), "{}", lines[0]);
        assert!(lines[0].starts_with("time=\"20"), "{}", lines[0]);
    }
}

#[tokio::test]
async fn a_finished_change_is_one_object_of_json() {
    let home = Home::new();
    home.configure("[debug]\nformat = 'json'\n");
    let daemon = home.start().await;
    changes(&daemon).await;
    let log = home.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (message, id) in EXPECTED {
        let mut found = lines.iter().filter(|line| line["msg"] == message);
        let line = found.next().unwrap_or_else(|| panic!("no {message}: {log}"));
        assert!(found.next().is_none(), "{message} twice: {log}");
        assert_eq!((line["level"].as_str(), line["id"].as_str()), (Some("info"), Some(id)));
        assert_eq!(line["namespace"], "test");
        assert_eq!(line["error"].is_string(), message.ends_with("failed"));
        assert!(line["duration"].is_string() && line["time"].as_str().unwrap().ends_with('Z'));
    }
}

#[tokio::test]
async fn no_level_logs_a_secret_of_a_request() {
    let home = Home::new();
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut command = home.command();
    command.args(["-l", "trace"]).stderr(log).env("HTTPS_PROXY", format!("http://p:{SECRET}@proxy"));
    let daemon = home.launch(&mut command).await;
    changes(&daemon).await;
    let log = home.log();
    assert!(log.contains("create container") && !log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn a_process_is_named_by_container_and_exec() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = TasksClient::new(daemon.channel().await);
    let process =
        tasks::KillRequest { container_id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    client.kill(request(process)).await.unwrap_err();
    client.delete(request(tasks::DeleteTaskRequest { container_id: "c1".into() })).await.unwrap_err();
    let log = home.log();
    let line = |message: &str| log.lines().find(|line| line.contains(message)).unwrap();
    assert!(line("kill process failed").contains(" exec=e1 id=c1 namespace=test"), "{log}");
    assert!(!line("delete task failed").contains(" exec="), "{log}");
}

#[tokio::test]
async fn the_threshold_keeps_lines_out() {
    let home = Home::new();
    let log = std::fs::File::create(home.path("log")).unwrap();
    let daemon = home.launch(home.command().args(["-l", "fatal"]).stderr(log)).await;
    changes(&daemon).await;
    assert_eq!(home.log(), "");
}

#[tokio::test]
async fn a_reader_of_the_log_that_goes_away_takes_nothing_along() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut daemon = home.launch(home.command().args(["-l", "trace"]).stderr(writer)).await;
    changes(&daemon).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
}
