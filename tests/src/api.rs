//! The daemon's gRPC API where the command line does not show enough: exit codes and error codes.

use std::path::Path;
use std::time::Duration;

use api::containerd::services::content::v1 as content;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::tasks::v1 as wire;
use grpc::content::content_client::ContentClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::tasks::tasks_client::TasksClient;
use grpc::version::version_client::VersionClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::deadline;

/// A connection to a daemon, in one namespace.
#[derive(Debug)]
pub struct Api {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    namespace: String,
}

impl Api {
    /// Connects.
    ///
    /// # Panics
    /// If the daemon does not serve.
    #[track_caller]
    pub fn connect(address: &Path, namespace: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", address.display())).expect("a path");
        let channel = runtime.block_on(endpoint.connect()).expect("connect to the daemon");
        Self { runtime, channel, namespace: namespace.to_owned() }
    }

    /// Whether a daemon at `address` answers.
    ///
    /// # Panics
    /// If there is no runtime to ask with.
    pub fn answers(address: &Path) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let Ok(endpoint) = Endpoint::from_shared(format!("unix://{}", address.display())) else {
            return false;
        };
        runtime.block_on(async {
            let Ok(channel) = endpoint.connect().await else { return false };
            let mut client = VersionClient::new(channel);
            matches!(tokio::time::timeout(Duration::from_secs(5), client.version(())).await, Ok(Ok(_)))
        })
    }

    /// Runs a call to its end, for a minute at most.
    ///
    /// # Errors
    /// The call's code.
    ///
    /// # Panics
    /// If it takes longer.
    #[track_caller]
    pub fn call<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Code> {
        let limited = async { tokio::time::timeout(deadline::default(), call).await };
        let answer = self.runtime.block_on(limited).expect("an answer within a minute");
        answer.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    /// All messages of a stream.
    ///
    /// # Errors
    /// The code that it ended with.
    pub fn drain<T>(&self, mut stream: tonic::Streaming<T>) -> Result<Vec<T>, Code> {
        self.runtime.block_on(async {
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await.map_err(|status| status.code())? {
                messages.push(message);
            }
            Ok(messages)
        })
    }

    /// The channel, for clients of other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request in this connection's namespace.
    ///
    /// # Panics
    /// If the namespace is no header value.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = MetadataValue::try_from(&self.namespace).expect("a header value");
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    }

    /// The exit code of a stopped task.
    pub fn exit_status(&self, id: &str) -> Option<u32> {
        let request = wire::GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        let process = self.call(self.tasks().get(self.request(request))).ok()?.process?;
        (process.status == STOPPED).then_some(process.exit_status)
    }

    /// Deletes a task; gives its exit code.
    ///
    /// # Errors
    /// The call's code.
    pub fn delete(&self, id: &str) -> Result<u32, Code> {
        let request = wire::DeleteTaskRequest { container_id: id.to_owned() };
        self.call(self.tasks().delete(self.request(request))).map(|answer| answer.exit_status)
    }

    /// Waits for the end of a task; gives its exit code.
    ///
    /// # Errors
    /// The call's code.
    pub fn wait(&self, id: &str) -> Result<u32, Code> {
        let request = wire::WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        self.call(self.tasks().wait(self.request(request))).map(|answer| answer.exit_status)
    }

    /// Creates a lease.
    ///
    /// # Errors
    /// The call's code.
    pub fn create_lease(&self, id: &str) -> Result<(), Code> {
        let request = leases::CreateRequest { id: id.to_owned(), ..leases::CreateRequest::default() };
        self.call(LeasesClient::new(self.channel()).create(self.request(request))).map(|_| ())
    }

    /// Deletes a lease and, before the answer, what only it held.
    ///
    /// # Errors
    /// The call's code.
    pub fn delete_lease(&self, id: &str) -> Result<(), Code> {
        let request = leases::DeleteRequest { id: id.to_owned(), sync: true };
        self.call(LeasesClient::new(self.channel()).delete(self.request(request))).map(|_| ())
    }

    /// The ids of all leases.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[track_caller]
    pub fn leases(&self) -> Vec<String> {
        let request = leases::ListRequest::default();
        let answer =
            self.call(LeasesClient::new(self.channel()).list(self.request(request))).expect("leases");
        answer.leases.into_iter().map(|lease| lease.id).collect()
    }

    /// Writes a blob under a reference, in one message, and commits it as `digest`; under a lease if one is named.
    ///
    /// # Errors
    /// The call's code.
    pub fn ingest(
        &self,
        reference: &str,
        data: &[u8],
        digest: &str,
        lease: Option<&str>,
    ) -> Result<(), Code> {
        let message = content::WriteContentRequest {
            action: content::WriteAction::Commit.into(),
            r#ref: reference.to_owned(),
            total: i64::try_from(data.len()).expect("a small blob"),
            expected: digest.to_owned(),
            data: data.to_vec().into(),
            ..content::WriteContentRequest::default()
        };
        let mut request = self.request(tokio_stream::iter([message]));
        if let Some(lease) = lease {
            let value = MetadataValue::try_from(lease).expect("a header value");
            request.metadata_mut().insert("containerd-lease", value);
        }
        let mut client = ContentClient::new(self.channel());
        let call = async {
            let mut answers = client.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(tonic::Response::new(()))
        };
        self.call(call)
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel())
    }
}

/// `containerd.v1.types.Status.STOPPED`
const STOPPED: i32 = 3;
