//! Sandboxes of another process: a client of `containerd.services.sandbox.v1.Controller`, as containerd's proxy plugins of the type
//! `sandbox` are spoken to.
//!
//! ```text
//!  create --> start --> stop --> shutdown
//!             wait, status, platform, metrics, update
//! ```
//!
//! Every call but `wait` has a limit: the process at the other end is somebody else's, and may hang. What it says is not believed: who
//! uses an answer checks it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::containerd::services::sandbox::v1 as wire;
use api::{any, convert};
use grpc::sandbox::controller_client::ControllerClient;
use tokio::net::UnixStream;
use tonic::{Response, Status as Refusal};
use types::error::os_text;
use types::platform::Platform;
use types::sandbox::{Making, Metrics, Sandbox, Started, Status};
use types::task::{Endpoint, Exit};
use types::{Error, Result, ResultExt};

use crate::connection::{Connection, MAX_MESSAGE, Transport};
use crate::status::from_status;

/// One sandboxer of another process, on behalf of one namespace.
#[derive(Clone)]
pub struct RemoteController {
    client: ControllerClient<Transport>,
    name: String,
    address: PathBuf,
    limit: Duration,
}

impl RemoteController {
    /// The sandboxer that is called `name`, behind `connection` to `address`, in its scope. An answer that takes longer than `limit`
    /// is none.
    pub fn new(connection: &Connection, name: impl Into<String>, address: &Path, limit: Duration) -> Self {
        let client = ControllerClient::new(connection.transport()).max_decoding_message_size(MAX_MESSAGE);
        Self { client, name: name.into(), address: address.to_owned(), limit }
    }

    /// Whether anybody listens. For who has not begun anything yet.
    pub async fn probe(&self) -> Result<()> {
        let path = &self.address;
        let connected = tokio::time::timeout(self.limit, UnixStream::connect(path)).await;
        let failed = match connected {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => os_text(&error),
            Err(_) => format!("no answer within {:?}", self.limit),
        };
        let text = format!(
            "sandboxer {:?}: dial unix {}: connect: {failed}: unavailable",
            self.name,
            path.display()
        );
        Err(Error::unavailable(text))
    }

    /// Makes a sandbox, which waits to be started.
    pub async fn create(&self, sandbox: Sandbox, making: Making) -> Result<()> {
        let request = wire::ControllerCreateRequest {
            sandbox_id: sandbox.id.clone(),
            rootfs: making.rootfs.into_iter().map(convert::mount_to_wire).collect(),
            options: making.options.map(any::to_wire),
            netns_path: making.netns,
            annotations: making.annotations,
            sandbox: Some(convert::sandbox_to_wire(sandbox)),
            sandboxer: self.name.clone(),
        };
        self.answer("create", self.limit, self.client().create(request)).await.map(drop)
    }

    /// Runs a sandbox that was made.
    pub async fn start(&self, id: &str) -> Result<Started> {
        let request =
            wire::ControllerStartRequest { sandbox_id: id.to_owned(), sandboxer: self.name.clone() };
        let told = self.answer("start", self.limit, self.client().start(request)).await?;
        Ok(Started {
            pid: told.pid,
            created_at: convert::time(told.created_at),
            labels: told.labels,
            spec: told.spec.map(any::from_wire),
            endpoint: Endpoint { address: told.address, version: told.version },
        })
    }

    /// Where its containers run.
    pub async fn platform(&self, id: &str) -> Result<Platform> {
        let request =
            wire::ControllerPlatformRequest { sandbox_id: id.to_owned(), sandboxer: self.name.clone() };
        let told = self.answer("platform", self.limit, self.client().platform(request)).await?;
        let told = told.platform.unwrap_or_default();
        let (os, architecture, variant) = (told.os, told.architecture, told.variant);
        Ok(Platform { os, architecture, variant, ..Platform::default() })
    }

    /// Ends a sandbox; by force after `grace`, or when the sandboxer thinks right.
    pub async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        let grace = grace.unwrap_or_default();
        let request = wire::ControllerStopRequest {
            sandbox_id: id.to_owned(),
            timeout_secs: u32::try_from(grace.as_secs()).unwrap_or(u32::MAX),
            sandboxer: self.name.clone(),
        };
        self.answer("stop", self.limit.saturating_add(grace), self.client().stop(request)).await.map(drop)
    }

    /// Waits for the end of a sandbox, for as long as that takes. Cancel safe.
    pub async fn wait(&self, id: &str) -> Result<Exit> {
        let request = wire::ControllerWaitRequest { sandbox_id: id.to_owned(), sandboxer: self.name.clone() };
        let told = self.client().wait(request).await.map_err(from_status);
        let told = told.context(|| format!("sandboxer {:?}: wait", self.name))?.into_inner();
        let at = told.exited_at.map_or_else(SystemTime::now, |at| convert::time(Some(at)));
        Ok(Exit { status: told.exit_status, at })
    }

    /// What is known of a sandbox; more with `verbose`.
    pub async fn status(&self, id: &str, verbose: bool) -> Result<Status> {
        let sandboxer = self.name.clone();
        let request = wire::ControllerStatusRequest { sandbox_id: id.to_owned(), verbose, sandboxer };
        let told = self.answer("status", self.limit, self.client().status(request)).await?;
        Ok(Status {
            pid: told.pid,
            state: told.state,
            info: told.info,
            created_at: convert::time(told.created_at),
            exited_at: convert::time(told.exited_at),
            extra: told.extra.map(any::from_wire),
            endpoint: Endpoint { address: told.address, version: told.version },
        })
    }

    /// Removes all that there is of a sandbox.
    pub async fn shutdown(&self, id: &str) -> Result<()> {
        let request =
            wire::ControllerShutdownRequest { sandbox_id: id.to_owned(), sandboxer: self.name.clone() };
        self.answer("shutdown", self.limit, self.client().shutdown(request)).await.map(drop)
    }

    /// What a sandbox uses.
    pub async fn metrics(&self, id: &str) -> Result<Metrics> {
        let request =
            wire::ControllerMetricsRequest { sandbox_id: id.to_owned(), sandboxer: self.name.clone() };
        let told = self.answer("metrics", self.limit, self.client().metrics(request)).await?;
        let metric = told.metrics.unwrap_or_default();
        Ok(Metrics { at: convert::time(metric.timestamp), data: metric.data.map(any::from_wire) })
    }

    /// Tells that fields of a sandbox's record have changed.
    pub async fn update(&self, id: &str, sandbox: Sandbox, fields: Vec<String>) -> Result<()> {
        let request = wire::ControllerUpdateRequest {
            sandbox_id: id.to_owned(),
            sandboxer: self.name.clone(),
            sandbox: Some(convert::sandbox_to_wire(sandbox)),
            fields,
        };
        self.answer("update", self.limit, self.client().update(request)).await.map(drop)
    }

    fn client(&self) -> ControllerClient<Transport> {
        self.client.clone()
    }

    async fn answer<T>(
        &self,
        method: &str,
        limit: Duration,
        asked: impl Future<Output = Result<Response<T>, Refusal>>,
    ) -> Result<T> {
        let doing = || format!("sandboxer {:?}: {method}", self.name);
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(from_status).context(doing),
            Err(_) => Err(Error::deadline(format!("{}: no answer within {limit:?}", doing()))),
        }
    }
}
