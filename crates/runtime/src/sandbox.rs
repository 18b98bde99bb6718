//! Sandboxes that a shim makes itself (`sandboxer = "shim"`): the daemon's side of `containerd.runtime.sandbox.v1.Sandbox`.
//!
//! A sandbox has a bundle and a shim as a task has, in the same table, so that ids do not collide and a restart finds both; a file
//! `sandbox` in the bundle tells them apart. It is no task to those who list tasks. Containers of it are made with
//! [`types::task::Create::shim_of`].
//!
//! ```text
//!  create_sandbox --> start_sandbox --> stop_sandbox --> shutdown_sandbox
//!                         wait_sandbox, sandbox_status, ping_sandbox, sandbox_metrics, sandbox_platform
//! ```

use std::sync::Arc;
use std::time::Duration;

use api::containerd::runtime::sandbox::v1 as wire;
use prost::Message;
use types::labels::Labels;
use types::mount::Mount;
use types::platform::Platform;
use types::sandbox::{Metrics as SandboxMetrics, Started as StartedSandbox, Status as SandboxStatus};
use types::task::{Create, Endpoint, Exit};
use types::{Any, Class, Error, Namespace, Result, ResultExt};

use crate::key::TaskKey;
use crate::runtime::Runtime;
use crate::shim::{Shim, lost};
use crate::terms::Terms;
use crate::ttrpc::{Call, Failure};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// A sandbox to be made.
#[derive(Clone, Debug, Default)]
pub struct CreateSandbox {
    /// The OCI spec, verbatim. Our shim needs one.
    pub spec: Option<Any>,
    /// The runtime (shim) name or path.
    pub runtime: String,
    /// Options of the runtime, for the shim's start.
    pub runtime_options: Option<Any>,
    /// Mounts of the root filesystem.
    pub rootfs: Vec<Mount>,
    /// What the front door wants the shim to know, in Kubernetes a PodSandboxConfig.
    pub options: Option<Any>,
    /// The path of the network namespace, or empty.
    pub netns: String,
    /// For the shim, untouched.
    pub annotations: Labels,
}

impl Runtime {
    /// Starts a shim and lets it make a sandbox. If it fails, nothing is left. Not cancel safe, as `create`.
    pub async fn create_sandbox(&self, namespace: &Namespace, id: &str, create: CreateSandbox) -> Result<()> {
        let CreateSandbox { spec, runtime, runtime_options, rootfs, options, netns, annotations } = create;
        let request = wire::CreateSandboxRequest {
            sandbox_id: id.to_owned(),
            bundle_path: String::new(),
            rootfs: rootfs.into_iter().map(api::convert::mount_to_wire).collect(),
            options: options.map(api::any::to_wire),
            netns_path: netns,
            annotations,
        };
        let create = Create { spec, runtime, options: runtime_options, ..Create::default() };
        let made = self.make(namespace, id, (create, Some(request)), Terms::default()).await;
        made.map(drop).context(|| format!("create sandbox {id}"))
    }

    /// Starts a sandbox that was made. One that cannot be started is taken away.
    pub async fn start_sandbox(&self, namespace: &Namespace, id: &str) -> Result<StartedSandbox> {
        let shim = self.sandbox(namespace, id).await?;
        let request = wire::StartSandboxRequest { sandbox_id: id.to_owned() };
        match shim.sandbox_call::<_, wire::StartSandboxResponse>("StartSandbox", &request, None).await {
            Ok(started) => {
                shim.set_created(started.pid);
                Ok(StartedSandbox {
                    pid: started.pid,
                    created_at: api::convert::time(started.created_at),
                    labels: Labels::new(),
                    spec: started.spec.map(api::any::from_wire),
                    endpoint: shim.endpoint(),
                })
            }
            Err(failure) => {
                if let Err(left) = self.shutdown_sandbox(namespace, id).await {
                    tracing::error!(sandbox = %shim.key, error = %left, "could not be undone: start of a sandbox");
                }
                Err(Error::from(failure).context(format!("start sandbox {id}")))
            }
        }
    }

    /// Where containers of the sandbox run.
    pub async fn sandbox_platform(&self, namespace: &Namespace, id: &str) -> Result<Platform> {
        let request = wire::PlatformRequest { sandbox_id: id.to_owned() };
        let told: wire::PlatformResponse = self.ask_sandbox(namespace, id, ("Platform", &request)).await?;
        let told = told.platform.unwrap_or_default();
        let (os, architecture, variant) = (told.os, told.architecture, told.variant);
        Ok(Platform { os, architecture, variant, ..Platform::default() })
    }

    /// Ends a sandbox, by force after `timeout` (or when the shim thinks right). One that is not there has ended.
    pub async fn stop_sandbox(
        &self,
        namespace: &Namespace,
        id: &str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let seconds = timeout.map_or(0, |timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
        let request = wire::StopSandboxRequest { sandbox_id: id.to_owned(), timeout_secs: seconds };
        let stopped =
            self.ask_sandbox::<_, wire::StopSandboxResponse>(namespace, id, ("StopSandbox", &request));
        match stopped.await {
            Err(error) if matches!(error.class(), Class::NotFound | Class::Unavailable) => Ok(()),
            stopped => stopped.map(drop).context(|| format!("stop sandbox {id}")),
        }
    }

    /// Waits for the end of a sandbox. Cancel safe. A shim that dies meanwhile is an end too.
    pub async fn wait_sandbox(&self, namespace: &Namespace, id: &str) -> Result<Exit> {
        let shim = self.sandbox(namespace, id).await?;
        let request = wire::WaitSandboxRequest { sandbox_id: id.to_owned() };
        match shim.sandbox_call::<_, wire::WaitSandboxResponse>("WaitSandbox", &request, None).await {
            Ok(end) => Ok(Exit { status: end.exit_status, at: api::convert::time(end.exited_at) }),
            Err(Failure::Closed) => Ok(shim.end().await.exit),
            Err(failure) => Err(Error::from(failure).context(format!("wait for sandbox {id}"))),
        }
    }

    /// What the shim says about a sandbox; more with `verbose`.
    pub async fn sandbox_status(
        &self,
        namespace: &Namespace,
        id: &str,
        verbose: bool,
    ) -> Result<SandboxStatus> {
        let shim = self.sandbox(namespace, id).await?;
        let told = shim.sandbox_status(verbose, self.inner.timeouts.state).await?;
        Ok(SandboxStatus {
            pid: told.pid,
            state: told.state,
            info: told.info,
            created_at: api::convert::time(told.created_at),
            exited_at: api::convert::time(told.exited_at),
            extra: told.extra.map(api::any::from_wire),
            endpoint: shim.endpoint(),
        })
    }

    /// Whether the shim of a sandbox answers.
    pub async fn ping_sandbox(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let shim = self.sandbox(namespace, id).await?;
        let request = wire::PingRequest { sandbox_id: id.to_owned() };
        let limit = Some(self.inner.timeouts.state);
        Ok(shim.sandbox_call::<_, wire::PingResponse>("PingSandbox", &request, limit).await.map(drop)?)
    }

    /// What a sandbox uses.
    pub async fn sandbox_metrics(&self, namespace: &Namespace, id: &str) -> Result<SandboxMetrics> {
        let shim = self.sandbox(namespace, id).await?;
        let request = wire::SandboxMetricsRequest { sandbox_id: id.to_owned() };
        let limit = Some(self.inner.timeouts.stats);
        let told: wire::SandboxMetricsResponse = shim.sandbox_call("SandboxMetrics", &request, limit).await?;
        let metric = told.metrics.unwrap_or_default();
        Ok(SandboxMetrics {
            at: api::convert::time(metric.timestamp),
            data: metric.data.map(api::any::from_wire),
        })
    }

    /// Lets the shim take a sandbox away, and goes on when it has; the shim stays as long as containers of the sandbox do.
    pub async fn shutdown_sandbox(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let shim = self.sandbox(namespace, id).await?;
        let deleting = shim.deleting.lock().await;
        let asked = shim.shutdown_sandbox(self.inner.timeouts.shutdown).await;
        let closed = match asked {
            Ok(()) => false,
            Err(Failure::Closed) => true,
            Err(failure) if failure.is_not_found() => false,
            Err(failure) => return Err(Error::from(failure).context(format!("shut down sandbox {id}"))),
        };
        let Some(place) = self.inner.table.take(&shim) else {
            // Somebody else deals with its end.
            drop(deleting);
            shim.end().await;
            return Ok(());
        };
        if closed {
            // Before it was done, perhaps.
            let end = self.end_of(&shim).await;
            shim.finished(end);
        } else {
            self.farewell(&shim, lost(shim.pid())).await;
        }
        drop(place);
        Ok(())
    }

    /// A sandbox of this id.
    async fn sandbox(&self, namespace: &Namespace, id: &str) -> Result<Arc<Shim>> {
        let key = TaskKey::new(namespace, id)?;
        let shim = self.inner.table.get(&key).await.ok().filter(|shim| shim.is_sandbox);
        shim.ok_or_else(|| Error::not_found(format!("unable to find sandbox {id:?}: not found")))
    }

    async fn ask_sandbox<Q: Message, R: Message + Default>(
        &self,
        namespace: &Namespace,
        id: &str,
        (method, request): (&str, &Q),
    ) -> Result<R> {
        Ok(self.sandbox(namespace, id).await?.sandbox_call(method, request, None).await?)
    }
}

impl Shim {
    /// One call of the sandbox service.
    async fn sandbox_call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, Failure> {
        let call = Call { service: SERVICE, method, namespace: self.key.namespace(), timeout };
        let payload = self.connection.call(call, request.encode_to_vec()).await?;
        R::decode(payload.as_slice())
            .map_err(|e| Failure::Answer(Error::internal(format!("decode the answer of {method}: {e}"))))
    }

    /// Lets the shim make the sandbox of its bundle.
    pub(crate) async fn make_sandbox(&self, mut request: wire::CreateSandboxRequest) -> Result<u32> {
        request.bundle_path = self.bundle.path.to_string_lossy().into_owned();
        let made: Result<wire::CreateSandboxResponse, Failure> =
            self.sandbox_call("CreateSandbox", &request, None).await;
        made.map(|_| 0).map_err(Error::from)
    }

    /// Asks for the state of the sandbox.
    pub(crate) async fn sandbox_status(
        &self,
        verbose: bool,
        limit: Duration,
    ) -> Result<wire::SandboxStatusResponse, Failure> {
        let request = wire::SandboxStatusRequest { sandbox_id: self.key.id().to_owned(), verbose };
        self.sandbox_call("SandboxStatus", &request, Some(limit)).await
    }

    /// Asks for the sandbox's end, and the shim's.
    pub(crate) async fn shutdown_sandbox(&self, limit: Duration) -> Result<(), Failure> {
        let request = wire::ShutdownSandboxRequest { sandbox_id: self.key.id().to_owned() };
        let asked: Result<wire::ShutdownSandboxResponse, Failure> =
            self.sandbox_call("ShutdownSandbox", &request, Some(limit)).await;
        asked.map(drop)
    }

    /// In the form in which sandboxers tell it.
    fn endpoint(&self) -> Endpoint {
        let address = format!("{}+{}", self.bootstrap.protocol, self.bootstrap.address);
        Endpoint { address, version: self.bootstrap.version.unsigned_abs() }
    }
}
