//! What a test asks of a daemon before it looks at the counters. Every wait is for a reply, so that what is counted is
//! always the same.

use std::collections::BTreeMap;

use api::ProtoAny;
use api::containerd::services::containers::v1 as containers;
use api::containerd::services::content::v1 as content;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::namespaces::v1 as namespaces;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::services::tasks::v1 as tasks;
use api::containerd::types::{Descriptor, Mount};
use grpc::containers::containers_client::ContainersClient;
use grpc::content::content_client::ContentClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use grpc::tasks::tasks_client::TasksClient;
use grpc::version::version_client::VersionClient;
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::daemon::{Daemon, Home, in_namespace};

/// Unique on this machine: the OCI runtime's directory is shared by all daemons.
fn namespace() -> String {
    format!("metrics-{}", std::process::id())
}

fn request<T>(message: T) -> Request<T> {
    in_namespace(&namespace(), message)
}

/// Nothing refers to what is made here, and the collector may come at any time.
fn rooted() -> BTreeMap<String, String> {
    [("containerd.io/gc.root".to_owned(), "yes".to_owned())].into()
}

fn container(id: &str, spec: &str) -> containers::CreateContainerRequest {
    containers::CreateContainerRequest {
        container: Some(containers::Container {
            id: id.to_owned(),
            runtime: Some(containers::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(ProtoAny {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: spec.as_bytes().to_vec(),
            }),
            ..Default::default()
        }),
    }
}

/// Twenty operations that need no process, some of which fail.
pub async fn records(daemon: &Daemon) {
    let channel = daemon.channel().await;
    VersionClient::new(channel.clone()).version(()).await.unwrap();
    let mut client = NamespacesClient::new(channel.clone());
    let made = Some(namespaces::Namespace { name: namespace(), ..Default::default() });
    client.create(namespaces::CreateNamespaceRequest { namespace: made }).await.unwrap();
    client.list(namespaces::ListNamespacesRequest::default()).await.unwrap();
    let missing = namespaces::DeleteNamespaceRequest { name: "missing".into() };
    assert_eq!(client.delete(missing).await.unwrap_err().code(), Code::NotFound);
    let mut client = ContainersClient::new(channel.clone());
    for (id, made) in [("a", true), ("b", true), ("a", false)] {
        assert_eq!(client.create(request(container(id, "{}"))).await.is_ok(), made);
    }
    let all = containers::ListContainersRequest::default();
    let mut list = client.list_stream(request(all)).await.unwrap().into_inner();
    while list.message().await.unwrap().is_some() {}
    client.delete(request(containers::DeleteContainerRequest { id: "a".into() })).await.unwrap();
    let digest = blob(channel.clone()).await;
    image(channel.clone(), digest).await;
    let mut client = LeasesClient::new(channel.clone());
    client.create(request(leases::CreateRequest { id: "l".into(), ..Default::default() })).await.unwrap();
    client.delete(request(leases::DeleteRequest { id: "l".into(), sync: false })).await.unwrap();
    let mut client = SnapshotsClient::new(channel);
    let prepare = snapshots::PrepareSnapshotRequest {
        snapshotter: "native".into(),
        key: "s".into(),
        labels: rooted(),
        ..Default::default()
    };
    client.prepare(request(prepare)).await.unwrap();
    let all = snapshots::ListSnapshotsRequest { snapshotter: "native".into(), ..Default::default() };
    let mut list = client.list(request(all)).await.unwrap().into_inner();
    while list.message().await.unwrap().is_some() {}
    let remove = snapshots::RemoveSnapshotRequest { snapshotter: "native".into(), key: "s".into() };
    client.remove(request(remove)).await.unwrap();
}

/// Writes a blob and reads it.
async fn blob(channel: Channel) -> String {
    let mut client = ContentClient::new(channel);
    let data = b"{\"schemaVersion\":2}";
    let digest: String = types::Digest::of(data).into();
    let commit = content::WriteContentRequest {
        action: content::WriteAction::Commit.into(),
        r#ref: "r".into(),
        total: data.len() as i64,
        expected: digest.clone(),
        data: data.to_vec().into(),
        labels: rooted(),
        ..Default::default()
    };
    let mut replies = client.write(request(tokio_stream::once(commit))).await.unwrap().into_inner();
    while replies.message().await.unwrap().is_some() {}
    let read = content::ReadContentRequest { digest: digest.clone(), ..Default::default() };
    let mut parts = client.read(request(read)).await.unwrap().into_inner();
    while parts.message().await.unwrap().is_some() {}
    digest
}

/// Names the blob, and takes the name back.
async fn image(channel: Channel, digest: String) {
    let mut client = ImagesClient::new(channel);
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let target = Descriptor { media_type, digest, size: 19, ..Default::default() };
    let image = images::Image { name: "i".into(), target: Some(target), ..Default::default() };
    let create = images::CreateImageRequest { image: Some(image), ..Default::default() };
    client.create(request(create)).await.unwrap();
    client.list(request(images::ListImagesRequest::default())).await.unwrap();
    client
        .delete(request(images::DeleteImageRequest { name: "i".into(), ..Default::default() }))
        .await
        .unwrap();
}

/// A container that runs. If the test fails before it is ended, it and its shim are killed.
pub struct Task {
    id: String,
    pid: u32,
}

impl Drop for Task {
    fn drop(&mut self) {
        for pid in [self.shim(), Pid::from_raw(self.pid.cast_signed())].into_iter().flatten() {
            // Whoever is gone already needs no killing.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Busybox sleeps, in a cgroup of its own.
fn spec(id: &str) -> String {
    let namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount", "network"].map(|kind| serde_json::json!({ "type": kind })).into();
    serde_json::json!({
        "ociVersion": "1.1.0",
        "process": { "args": ["/busybox", "sleep", "1000"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "cgroupsPath": format!("/{}-{id}", namespace()), "namespaces": namespaces },
    })
    .to_string()
}

impl Task {
    /// The shim is the parent of what it started.
    pub fn shim(&self) -> Option<Pid> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())?;
        Pid::from_raw(parent).filter(|pid| *pid != Pid::INIT)
    }

    /// Creates and starts it.
    pub async fn start(daemon: &Daemon, home: &Home, id: &str) -> Self {
        let rootfs = home.path(&format!("rootfs-{id}"));
        std::fs::create_dir_all(rootfs.join("proc")).unwrap();
        let busybox = std::env::var("BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
        std::fs::copy(busybox, rootfs.join("busybox")).unwrap();
        let channel = daemon.channel().await;
        ContainersClient::new(channel.clone()).create(request(container(id, &spec(id)))).await.unwrap();
        let mut client = TasksClient::new(channel);
        let bind = Mount {
            r#type: "bind".into(),
            source: rootfs.to_string_lossy().into_owned(),
            options: vec!["rbind".into(), "rw".into()],
            ..Default::default()
        };
        let create = tasks::CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs: vec![bind],
            ..Default::default()
        };
        let pid = client.create(request(create)).await.unwrap().into_inner().pid;
        let task = Self { id: id.to_owned(), pid };
        client
            .start(request(tasks::StartRequest { container_id: id.to_owned(), ..Default::default() }))
            .await
            .unwrap();
        task
    }

    /// Ends and deletes it.
    pub async fn end(self, daemon: &Daemon) {
        let channel = daemon.channel().await;
        let mut client = TasksClient::new(channel.clone());
        let kill =
            tasks::KillRequest { container_id: self.id.clone(), signal: 9, all: true, ..Default::default() };
        client.kill(request(kill)).await.unwrap();
        client
            .wait(request(tasks::WaitRequest { container_id: self.id.clone(), ..Default::default() }))
            .await
            .unwrap();
        client.delete(request(tasks::DeleteTaskRequest { container_id: self.id.clone() })).await.unwrap();
        let delete = containers::DeleteContainerRequest { id: self.id.clone() };
        ContainersClient::new(channel).delete(request(delete)).await.unwrap();
        // Nothing of it is left to be killed.
        std::mem::forget(self);
    }
}
