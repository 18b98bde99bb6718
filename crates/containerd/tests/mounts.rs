//! The mounts service: activations outlive the daemon, and are taken back by the garbage collector when nothing keeps them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use api::containerd::services::leases::v1 as leases;
use api::containerd::services::mounts::v1 as wire;
use api::containerd::types::{ActivationInfo, Mount};
use daemon::{Daemon, Home, PATIENCE, request};
use grpc::leases::leases_client::LeasesClient;
use grpc::mounts::mounts_client::MountsClient;
use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Whether mounts are possible here; says so where they are not.
fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: mounts need root");
    }
    root
}

fn mount(kind: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { r#type: kind.into(), source: "none".into(), target: String::new(), options }
}

fn layered(name: &str) -> wire::ActivateRequest {
    let mounts = vec![mount("tmpfs", &["size=64k"]), mount("format/overlay", &["lowerdir={{ mount 0 }}"])];
    let labels = [("a".to_owned(), "b".to_owned())].into();
    wire::ActivateRequest { name: name.into(), mounts, labels, temporary: false }
}

async fn client(daemon: &Daemon) -> MountsClient<Channel> {
    MountsClient::new(daemon.channel().await)
}

async fn list(daemon: &Daemon, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let asked = client(daemon).await.list(request(wire::ListRequest { filters })).await;
    let mut stream = asked.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        names.push(message.info.unwrap().name);
    }
    names
}

async fn info(daemon: &Daemon, name: &str) -> Result<ActivationInfo, Status> {
    let asked = client(daemon).await.info(request(wire::InfoRequest { name: name.into() })).await;
    asked.map(|answer| answer.into_inner().info.unwrap())
}

#[tokio::test]
async fn an_activation_is_found_by_the_next_daemon_and_taken_back_by_name() {
    if !possible() {
        return;
    }
    let home = Home::new();
    let mut first = home.start().await;
    let made = client(&first).await.activate(request(layered("m"))).await.unwrap().into_inner().info.unwrap();
    let point = made.active[0].mount_point.clone();
    assert_eq!(made.system, [mount("overlay", &[&format!("lowerdir={point}")])]);
    std::fs::write(Path::new(&point).join("file"), "kept").unwrap();
    let twice = client(&first).await.activate(request(layered("m"))).await.unwrap_err();
    assert_eq!((twice.code(), twice.message()), (Code::AlreadyExists, "mount \"m\": already exists"));
    first.signal(Signal::KILL);
    first.ended().await;

    let second = home.start().await;
    assert_eq!(info(&second, "m").await.unwrap(), made);
    assert_eq!(std::fs::read_to_string(Path::new(&point).join("file")).unwrap(), "kept");
    assert_eq!(list(&second, &["labels.a==b"]).await, ["m"]);
    assert!(list(&second, &["name==other"]).await.is_empty());
    let gone = wire::DeactivateRequest { name: "m".into() };
    client(&second).await.deactivate(request(gone)).await.unwrap();
    assert_eq!(info(&second, "m").await.unwrap_err().message(), "mount \"m\" not found");
    assert!(!Path::new(&point).exists());
}

#[tokio::test]
async fn what_only_a_lease_keeps_goes_with_the_lease() {
    if !possible() {
        return;
    }
    let home = Home::new();
    let daemon = home.start().await;
    let mut lessor = LeasesClient::new(daemon.channel().await);
    let lease = leases::CreateRequest { id: "l".into(), labels: Default::default() };
    lessor.create(request(lease)).await.unwrap();
    let mut activate = request(layered("m"));
    activate.metadata_mut().insert("containerd-lease", "l".parse().unwrap());
    let made = client(&daemon).await.activate(activate).await.unwrap().into_inner().info.unwrap();
    let ended = leases::DeleteRequest { id: "l".into(), sync: true };
    lessor.delete(request(ended)).await.unwrap();
    let begun = Instant::now();
    while !list(&daemon, &[]).await.is_empty() || Path::new(&made.active[0].mount_point).exists() {
        assert!(begun.elapsed() < PATIENCE, "still mounted");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn plain_mounts_and_bad_lists_are_refused_and_leave_nothing() {
    if !possible() {
        return;
    }
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let of = |mounts| wire::ActivateRequest { mounts, ..layered("m") };
    for (mounts, code, words) in [
        (vec![mount("tmpfs", &[])], Code::Unimplemented, "not implemented"),
        (
            vec![mount("tmpfs", &[]), mount("format/overlay", &["lowerdir={{ mount 7 }}"])],
            Code::InvalidArgument,
            "index out of bounds: 7, has 1 active mounts",
        ),
        (
            vec![mount("mkdir/overlay", &["X-containerd.mkdir.path=/nowhere/x"])],
            Code::Unimplemented,
            "no root \"/nowhere/x\" configured for mkdir: not implemented",
        ),
        (
            vec![mount("mkfs/ext4", &["X-containerd.mkfs.size=1m"])],
            Code::Unimplemented,
            "no root \"none\" configured for mkfs: not implemented",
        ),
    ] {
        let status = client.activate(request(of(mounts))).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(words), "{status}");
    }
    assert!(list(&daemon, &[]).await.is_empty());
    let kept = home.path("state/io.containerd.mount-manager.v1.records");
    assert_eq!(std::fs::read_dir(kept.join("t")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(kept.join("records")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_daemon_killed_between_two_steps_leaves_no_mount_behind() {
    if !possible() {
        return;
    }
    for (point, survives) in
        [("mounts-recorded", false), ("mounts-performed", false), ("mounts-forgotten", false), ("", true)]
    {
        let home = Home::new();
        let mut first =
            home.launch(home.command().env("CONTAINERD_RS_CRASH_AT", point).stderr(Stdio::null())).await;
        let mut doomed = client(&first).await;
        let made = doomed.activate(request(layered("m"))).await;
        if point == "mounts-forgotten" {
            doomed.deactivate(request(wire::DeactivateRequest { name: "m".into() })).await.unwrap_err();
        }
        assert_eq!(made.is_ok(), survives || point == "mounts-forgotten", "{point}: {made:?}");
        first.signal(Signal::KILL);
        first.ended().await;

        let second = home.start().await;
        assert_eq!(list(&second, &[]).await.len(), usize::from(survives), "{point}");
        let kept = home.path("state/io.containerd.mount-manager.v1.records");
        let targets = std::fs::read_dir(kept.join("t")).unwrap().count();
        let records = std::fs::read_dir(kept.join("records")).unwrap().count();
        assert_eq!((targets, records), (usize::from(survives), usize::from(survives)), "{point}");
        if survives {
            let gone = wire::DeactivateRequest { name: "m".into() };
            client(&second).await.deactivate(request(gone)).await.unwrap();
        }
    }
}
