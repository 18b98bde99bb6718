//! A client that knows no command line: each call of the API as it is, with its status. It can hold what it makes by a
//! lease, and can be cloned into other tasks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use api::ProtoAny;
use api::containerd::services::containers::v1 as containers;
use api::containerd::services::content::v1 as content;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::namespaces::v1 as namespaces;
use api::containerd::services::snapshots::v1 as snapshots;
use api::containerd::services::tasks::v1 as tasks;
use api::containerd::types::{Descriptor, Mount};
use api::containerd::v1::types::Process;
use grpc::containers::containers_client::ContainersClient;
use grpc::content::content_client::ContentClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use grpc::tasks::tasks_client::TasksClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::deadline;

/// How long a call may take before it counts as stuck.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The snapshotter of everything here.
pub const SNAPSHOTTER: &str = "overlayfs";

/// A connection in one namespace.
#[derive(Clone, Debug)]
pub struct Rpc {
    channel: Channel,
    namespace: String,
    lease: Option<String>,
}

/// What a call answers.
pub type Answer<T> = Result<T, Status>;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A blob and its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its bytes.
    pub data: Vec<u8>,
    /// `sha256:...`
    pub digest: String,
    /// What it is stored with.
    pub labels: Labels,
}

impl Blob {
    /// A blob of these bytes.
    pub fn new(data: impl Into<Vec<u8>>) -> Self {
        use sha2::Digest;
        let data = data.into();
        let hash = sha2::Sha256::digest(&data);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { data, digest: format!("sha256:{hex}"), labels: Labels::new() }
    }

    /// The same with a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl Rpc {
    /// A connection, made with the first call.
    ///
    /// # Panics
    /// If the address is no path.
    pub fn new(address: &Path, namespace: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix://{}", address.display())).expect("a path");
        Self { channel: endpoint.connect_lazy(), namespace: namespace.to_owned(), lease: None }
    }

    /// The same, with a lease that holds what is made.
    #[must_use]
    pub fn leased(&self, lease: &str) -> Self {
        Self { lease: Some(lease.to_owned()), ..self.clone() }
    }

    /// The same, without a lease.
    #[must_use]
    pub fn unleased(&self) -> Self {
        Self { lease: None, ..self.clone() }
    }

    /// The channel, for calls that are not here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request with this connection's namespace and lease.
    ///
    /// # Panics
    /// If one of them is no header value.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        let value = |text: &str| MetadataValue::try_from(text).expect("a header value");
        headers.insert("containerd-namespace", value(&self.namespace));
        if let Some(lease) = &self.lease {
            headers.insert("containerd-lease", value(lease));
        }
        request
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, name: &str) -> Answer<()> {
        let namespace = Some(namespaces::Namespace { name: name.to_owned(), ..Default::default() });
        let request = self.request(namespaces::CreateNamespaceRequest { namespace });
        done(NamespacesClient::new(self.channel()).create(request)).await.map(drop)
    }

    /// The names of all namespaces.
    pub async fn namespaces(&self) -> Answer<Vec<String>> {
        let request = self.request(namespaces::ListNamespacesRequest::default());
        let answer = done(NamespacesClient::new(self.channel()).list(request)).await?;
        Ok(answer.namespaces.into_iter().map(|namespace| namespace.name).collect())
    }

    /// Deletes a namespace.
    pub async fn delete_namespace(&self, name: &str) -> Answer<()> {
        let request = namespaces::DeleteNamespaceRequest { name: name.to_owned() };
        done(NamespacesClient::new(self.channel()).delete(self.request(request))).await
    }

    /// Creates a lease.
    pub async fn create_lease(&self, id: &str) -> Answer<()> {
        self.create_lease_with(id, Labels::new()).await
    }

    /// Creates a lease with labels.
    pub async fn create_lease_with(&self, id: &str, labels: Labels) -> Answer<()> {
        let request = leases::CreateRequest { id: id.to_owned(), labels };
        done(LeasesClient::new(self.channel()).create(self.request(request))).await.map(drop)
    }

    /// The ids of all leases.
    pub async fn leases(&self) -> Answer<Vec<String>> {
        let request = self.request(leases::ListRequest::default());
        let answer = done(LeasesClient::new(self.channel()).list(request)).await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// Deletes a lease; if `sync`, what nobody refers to is gone when this answers.
    pub async fn delete_lease(&self, id: &str, sync: bool) -> Answer<()> {
        let request = leases::DeleteRequest { id: id.to_owned(), sync };
        done(LeasesClient::new(self.channel()).delete(self.request(request))).await
    }

    /// Writes a blob in two messages and commits it.
    pub async fn write(&self, reference: &str, blob: &Blob) -> Answer<()> {
        let total = i64::try_from(blob.data.len()).unwrap_or(i64::MAX);
        let first = content::WriteContentRequest {
            action: content::WriteAction::Write.into(),
            r#ref: reference.to_owned(),
            total,
            expected: blob.digest.clone(),
            data: blob.data.clone().into(),
            ..Default::default()
        };
        let last = content::WriteContentRequest {
            action: content::WriteAction::Commit.into(),
            offset: total,
            data: bytes::Bytes::new(),
            labels: blob.labels.clone(),
            ..first.clone()
        };
        let request = self.request(tokio_stream::iter([first, last]));
        let mut client = ContentClient::new(self.channel());
        done(async move {
            let mut answers = client.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(Response::new(()))
        })
        .await
    }

    /// Writes a part of something and leaves it at that.
    pub async fn write_part(&self, reference: &str, data: &[u8]) -> Answer<()> {
        let message = content::WriteContentRequest {
            action: content::WriteAction::Write.into(),
            r#ref: reference.to_owned(),
            total: i64::try_from(data.len()).unwrap_or(i64::MAX).saturating_add(1),
            data: data.to_vec().into(),
            ..Default::default()
        };
        let request = self.request(tokio_stream::iter([message]));
        let mut client = ContentClient::new(self.channel());
        done(async move {
            let mut answers = client.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(Response::new(()))
        })
        .await
    }

    /// A blob's bytes.
    pub async fn read(&self, digest: &str) -> Answer<Vec<u8>> {
        let request = content::ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
        let (request, mut client) = (self.request(request), ContentClient::new(self.channel()));
        done(async move {
            let mut parts = client.read(request).await?.into_inner();
            let mut data = Vec::new();
            while let Some(part) = parts.message().await? {
                data.extend_from_slice(&part.data);
            }
            Ok(Response::new(data))
        })
        .await
    }

    /// The digests of all blobs.
    pub async fn blobs(&self) -> Answer<Vec<String>> {
        let request = self.request(content::ListContentRequest::default());
        let mut client = ContentClient::new(self.channel());
        done(async move {
            let mut parts = client.list(request).await?.into_inner();
            let mut digests = Vec::new();
            while let Some(part) = parts.message().await? {
                digests.extend(part.info.into_iter().map(|info| info.digest));
            }
            Ok(Response::new(digests))
        })
        .await
    }

    /// The references of all writes that nobody has finished.
    pub async fn ingests(&self) -> Answer<Vec<String>> {
        let request = self.request(content::ListStatusesRequest::default());
        let answer = done(ContentClient::new(self.channel()).list_statuses(request)).await?;
        Ok(answer.statuses.into_iter().map(|status| status.r#ref).collect())
    }

    /// Removes a blob.
    pub async fn delete_blob(&self, digest: &str) -> Answer<()> {
        let request = content::DeleteContentRequest { digest: digest.to_owned() };
        done(ContentClient::new(self.channel()).delete(self.request(request))).await
    }

    /// Creates an image whose target is the manifest `digest` of this size.
    pub async fn create_image(&self, name: &str, digest: &str, size: usize) -> Answer<()> {
        let image = images::Image {
            name: name.to_owned(),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: digest.to_owned(),
                size: i64::try_from(size).unwrap_or(i64::MAX),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = images::CreateImageRequest { image: Some(image), ..Default::default() };
        done(ImagesClient::new(self.channel()).create(self.request(request))).await.map(drop)
    }

    /// The names of all images.
    pub async fn images(&self) -> Answer<Vec<String>> {
        let request = self.request(images::ListImagesRequest::default());
        let answer = done(ImagesClient::new(self.channel()).list(request)).await?;
        Ok(answer.images.into_iter().map(|image| image.name).collect())
    }

    /// The digest of an image's target.
    pub async fn image(&self, name: &str) -> Answer<String> {
        let request = images::GetImageRequest { name: name.to_owned() };
        let answer = done(ImagesClient::new(self.channel()).get(self.request(request))).await?;
        Ok(answer.image.and_then(|image| image.target).map(|target| target.digest).unwrap_or_default())
    }

    /// Deletes an image; if `sync`, what nobody refers to is gone when this answers.
    pub async fn delete_image(&self, name: &str, sync: bool) -> Answer<()> {
        let request = images::DeleteImageRequest { name: name.to_owned(), sync, ..Default::default() };
        done(ImagesClient::new(self.channel()).delete(self.request(request))).await
    }

    /// Makes a writable snapshot.
    pub async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Answer<Vec<Mount>> {
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = done(SnapshotsClient::new(self.channel()).prepare(self.request(request))).await?;
        Ok(answer.mounts)
    }

    /// The mounts of a snapshot.
    pub async fn mounts(&self, key: &str) -> Answer<Vec<Mount>> {
        let request = snapshots::MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        Ok(done(SnapshotsClient::new(self.channel()).mounts(self.request(request))).await?.mounts)
    }

    /// Makes a layer of a writable snapshot.
    pub async fn commit(&self, name: &str, key: &str, labels: Labels) -> Answer<()> {
        let request = snapshots::CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
            ..Default::default()
        };
        done(SnapshotsClient::new(self.channel()).commit(self.request(request))).await
    }

    /// What is known of a snapshot.
    pub async fn stat(&self, key: &str) -> Answer<snapshots::Info> {
        let request =
            snapshots::StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let answer = done(SnapshotsClient::new(self.channel()).stat(self.request(request))).await?;
        Ok(answer.info.unwrap_or_default())
    }

    /// The keys of all snapshots.
    pub async fn snapshots(&self) -> Answer<Vec<String>> {
        let request =
            snapshots::ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), ..Default::default() };
        let (request, mut client) = (self.request(request), SnapshotsClient::new(self.channel()));
        done(async move {
            let mut parts = client.list(request).await?.into_inner();
            let mut keys = Vec::new();
            while let Some(part) = parts.message().await? {
                keys.extend(part.info.into_iter().map(|info| info.name));
            }
            Ok(Response::new(keys))
        })
        .await
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(&self, key: &str) -> Answer<()> {
        let request =
            snapshots::RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        done(SnapshotsClient::new(self.channel()).remove(self.request(request))).await
    }

    /// Creates a container on the snapshot of its own name, with this runtime specification.
    pub async fn create_container(&self, id: &str, spec: serde_json::Value) -> Answer<()> {
        let container = containers::Container {
            id: id.to_owned(),
            runtime: Some(containers::container::Runtime {
                name: "io.containerd.runc.v2".to_owned(),
                options: None,
            }),
            spec: Some(spec_any("Spec", &spec)),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.to_owned(),
            ..Default::default()
        };
        let request = containers::CreateContainerRequest { container: Some(container) };
        done(ContainersClient::new(self.channel()).create(self.request(request))).await.map(drop)
    }

    /// Whether a container is there.
    pub async fn container(&self, id: &str) -> Answer<()> {
        let request = containers::GetContainerRequest { id: id.to_owned() };
        done(ContainersClient::new(self.channel()).get(self.request(request))).await.map(drop)
    }

    /// The ids of all containers.
    pub async fn containers(&self) -> Answer<Vec<String>> {
        let request = self.request(containers::ListContainersRequest::default());
        let answer = done(ContainersClient::new(self.channel()).list(request)).await?;
        Ok(answer.containers.into_iter().map(|container| container.id).collect())
    }

    /// Deletes a container's record.
    pub async fn delete_container(&self, id: &str) -> Answer<()> {
        let request = containers::DeleteContainerRequest { id: id.to_owned() };
        done(ContainersClient::new(self.channel()).delete(self.request(request))).await
    }

    /// Makes a task without streams; its pid.
    pub async fn create_task(&self, id: &str, rootfs: Vec<Mount>) -> Answer<u32> {
        let request = tasks::CreateTaskRequest { container_id: id.to_owned(), rootfs, ..Default::default() };
        Ok(done(TasksClient::new(self.channel()).create(self.request(request))).await?.pid)
    }

    /// Starts a task, or a process in it.
    pub async fn start(&self, id: &str, exec: &str) -> Answer<()> {
        let request = tasks::StartRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        done(TasksClient::new(self.channel()).start(self.request(request))).await.map(drop)
    }

    /// Adds a process.
    pub async fn exec(&self, id: &str, exec: &str, process: serde_json::Value) -> Answer<()> {
        let request = tasks::ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            spec: Some(spec_any("Process", &process)),
            ..Default::default()
        };
        done(TasksClient::new(self.channel()).exec(self.request(request))).await
    }

    /// The state of a task, or of a process in it.
    pub async fn task(&self, id: &str, exec: &str) -> Answer<Process> {
        let request = tasks::GetRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        let answer = done(TasksClient::new(self.channel()).get(self.request(request))).await?;
        answer.process.ok_or_else(|| Status::internal("no process in the answer"))
    }

    /// The containers of all tasks.
    pub async fn tasks(&self) -> Answer<Vec<String>> {
        let request = self.request(tasks::ListTasksRequest::default());
        let answer = done(TasksClient::new(self.channel()).list(request)).await?;
        Ok(answer.tasks.into_iter().map(|process| process.id).collect())
    }

    /// Sends a signal.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32) -> Answer<()> {
        let (container_id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = tasks::KillRequest { container_id, exec_id, signal, all: false };
        done(TasksClient::new(self.channel()).kill(self.request(request))).await
    }

    /// Waits for an end; the exit code.
    pub async fn wait(&self, id: &str, exec: &str) -> Answer<u32> {
        let request = tasks::WaitRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        Ok(done(TasksClient::new(self.channel()).wait(self.request(request))).await?.exit_status)
    }

    /// Deletes a task; its exit code.
    pub async fn delete_task(&self, id: &str) -> Answer<u32> {
        let request = tasks::DeleteTaskRequest { container_id: id.to_owned() };
        Ok(done(TasksClient::new(self.channel()).delete(self.request(request))).await?.exit_status)
    }

    /// Deletes a process that was added; its exit code.
    pub async fn delete_process(&self, id: &str, exec: &str) -> Answer<u32> {
        let request = tasks::DeleteProcessRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        Ok(done(TasksClient::new(self.channel()).delete_process(self.request(request))).await?.exit_status)
    }
}

/// The specification of a container without namespaces of its own but for pid, mount, ipc and uts, whose cgroup is
/// where the ledger looks.
pub fn spec(namespace: &str, id: &str, args: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": process(args),
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/{namespace}/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
        },
    })
}

/// A process of such a container.
pub fn process(args: &[&str]) -> serde_json::Value {
    serde_json::json!({"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"})
}

fn spec_any(kind: &str, value: &serde_json::Value) -> ProtoAny {
    ProtoAny {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value: value.to_string().into_bytes(),
    }
}

/// The answer, or `deadline exceeded` where there is none in time.
async fn done<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Answer<T> {
    match tokio::time::timeout(deadline::patient(LIMIT), call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer within a minute")),
    }
}
