//! The daemon's gRPC API where the command line does not show enough: exit codes and error codes.

use std::path::Path;
use std::time::Duration;

use api::containerd::services::tasks::v1 as wire;
use grpc::tasks::tasks_client::TasksClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

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

    /// Runs a call to its end, for a minute at most.
    ///
    /// # Errors
    /// The call's code.
    ///
    /// # Panics
    /// If it takes longer.
    #[track_caller]
    pub fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Code> {
        let limited = async { tokio::time::timeout(Duration::from_secs(60), call).await };
        let answer = self.runtime.block_on(limited).expect("an answer within a minute");
        answer.map(tonic::Response::into_inner).map_err(|status| status.code())
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

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel())
    }
}

/// `containerd.v1.types.Status.STOPPED`
const STOPPED: i32 = 3;
