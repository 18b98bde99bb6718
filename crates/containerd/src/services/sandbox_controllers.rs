//! `containerd.services.sandbox.v1.Controller`: sandboxes that shims make by themselves (`shim`), those of sandboxers in other processes
//! (by the name of the proxy plugin), and those of pods (`podsandbox`).
//!
//! The last are made and removed with the pod's files and networks, by Kubernetes' front door alone: here they are looked at,
//! waited for and ended.

use std::time::Duration;

use api::containerd::events::{SandboxCreate, SandboxExit, SandboxStart};
use api::containerd::services::sandbox::v1 as wire;
use api::containerd::types::{Metric, Platform};
use api::{any, convert};
use grpc::sandbox::controller_server;
use remote::RemoteController;
use runtime::CreateSandbox;
use tonic::{Request, Response, Status};
use types::sandbox::{Making, Sandbox};
use types::{Error, Namespace};

use super::House;
use super::reply::{namespace, reply};
use crate::proxies::Sandboxers;
use crate::work::Change;

/// All controllers.
pub struct Controllers {
    /// The daemon's parts.
    pub house: House,
    /// Kubernetes' front door, if it is open: that of pods.
    pub cri: Option<cri::Cri>,
    /// Those in other processes.
    pub sandboxers: Sandboxers,
}

/// Whose sandboxes a call is about.
enum Controller<'a> {
    Shims,
    Pods(&'a cri::Cri),
    Remote(Box<RemoteController>),
}

/// Who makes sandboxes for clients of this API.
enum Maker {
    Shims,
    Remote(Box<RemoteController>),
}

impl Controllers {
    /// Refuses controllers that are not there.
    fn asked<T>(&self, request: &Request<T>, sandboxer: &str) -> Result<(Controller<'_>, Namespace), Status> {
        let namespace = namespace(request.metadata())?;
        let controller = reply(match (sandboxer, &self.cri) {
            ("shim", _) => Ok(Controller::Shims),
            ("", _) => Err(Error::invalid("invalid argument: sandbox controller name can not be empty")),
            ("podsandbox", Some(cri)) => Ok(Controller::Pods(cri)),
            (other, _) => self.sandboxers.named(other, &namespace).and_then(|found| {
                let missing =
                    || Error::not_found(format!("not found: failed to get sandbox controller by {other}"));
                found.map(|remote| Controller::Remote(Box::new(remote))).ok_or_else(missing)
            }),
        })?;
        Ok((controller, namespace))
    }

    /// Refuses the controller of pods as well: its sandboxes are made and removed with them.
    fn maker<T>(&self, request: &Request<T>, sandboxer: &str) -> Result<(Maker, Namespace), Status> {
        match self.asked(request, sandboxer)? {
            (Controller::Shims, namespace) => Ok((Maker::Shims, namespace)),
            (Controller::Remote(remote), namespace) => Ok((Maker::Remote(remote), namespace)),
            (Controller::Pods(_), _) => {
                let text = "sandboxes of podsandbox are made and removed with their pods: not implemented";
                reply(Err(Error::unimplemented(text)))
            }
        }
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controllers {
    async fn create(
        &self,
        request: Request<wire::ControllerCreateRequest>,
    ) -> Result<Response<wire::ControllerCreateResponse>, Status> {
        let (maker, namespace) = self.maker(&request, &request.get_ref().sandboxer)?;
        let request = request.into_inner();
        let id = request.sandbox_id.clone();
        let sandbox = request
            .sandbox
            .map_or_else(|| Sandbox { id: id.clone(), ..Sandbox::default() }, convert::sandbox);
        let making = Making {
            rootfs: request.rootfs.into_iter().map(convert::mount).collect(),
            options: request.options.map(any::from_wire),
            netns: request.netns_path,
            annotations: request.annotations,
        };
        let house = self.house.clone();
        let change = Change::new("create sandbox", &namespace, id.as_str());
        let created = self.house.work.run(change, async move {
            match maker {
                Maker::Shims => {
                    house.runtime.create_sandbox(&namespace, &id, of_shim(sandbox, making)).await?
                }
                Maker::Remote(remote) => remote.create(sandbox, making).await?,
            }
            house.announce(&namespace, "/sandboxes/create", &SandboxCreate { sandbox_id: id.clone() });
            Ok(id)
        });
        Ok(Response::new(wire::ControllerCreateResponse { sandbox_id: created.await? }))
    }

    async fn start(
        &self,
        request: Request<wire::ControllerStartRequest>,
    ) -> Result<Response<wire::ControllerStartResponse>, Status> {
        let (maker, namespace) = self.maker(&request, &request.get_ref().sandboxer)?;
        let id = request.into_inner().sandbox_id;
        let house = self.house.clone();
        let change = Change::new("start sandbox", &namespace, id.as_str());
        let started = self.house.work.run(change, async move {
            let started = match maker {
                Maker::Shims => house.runtime.start_sandbox(&namespace, &id).await?,
                Maker::Remote(remote) => remote.start(&id).await?,
            };
            house.announce(&namespace, "/sandboxes/start", &SandboxStart { sandbox_id: id.clone() });
            Ok(wire::ControllerStartResponse {
                sandbox_id: id,
                pid: started.pid,
                created_at: convert::timestamp(started.created_at),
                labels: started.labels,
                address: started.endpoint.address,
                version: started.endpoint.version,
                spec: started.spec.map(any::to_wire),
            })
        });
        started.await.map(Response::new)
    }

    async fn platform(
        &self,
        request: Request<wire::ControllerPlatformRequest>,
    ) -> Result<Response<wire::ControllerPlatformResponse>, Status> {
        let (controller, namespace) = self.asked(&request, &request.get_ref().sandboxer)?;
        let platform = match controller {
            Controller::Shims => {
                let id = &request.get_ref().sandbox_id;
                reply(self.house.runtime.sandbox_platform(&namespace, id).await)?
            }
            Controller::Remote(remote) => reply(remote.platform(&request.get_ref().sandbox_id).await)?,
            Controller::Pods(_) => types::platform::Platform::host(),
        };
        let platform = Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..Default::default()
        };
        Ok(Response::new(wire::ControllerPlatformResponse { platform: Some(platform) }))
    }

    async fn stop(
        &self,
        request: Request<wire::ControllerStopRequest>,
    ) -> Result<Response<wire::ControllerStopResponse>, Status> {
        let (controller, namespace) = self.asked(&request, &request.get_ref().sandboxer)?;
        let (pods, remote) = match controller {
            Controller::Shims => (None, None),
            Controller::Pods(cri) => (Some(cri.clone()), None),
            Controller::Remote(remote) => (None, Some(remote)),
        };
        let wire::ControllerStopRequest { sandbox_id: id, timeout_secs, .. } = request.into_inner();
        let timeout = Duration::from_secs(timeout_secs.into());
        let house = self.house.clone();
        let change = Change::new("stop sandbox", &namespace, id.as_str());
        let stopped = self.house.work.run(change, async move {
            match (pods, remote) {
                (Some(cri), _) => cri.stop_sandbox(&namespace, &id).await,
                (None, Some(remote)) => remote.stop(&id, Some(timeout)).await,
                (None, None) => house.runtime.stop_sandbox(&namespace, &id, Some(timeout)).await,
            }
        });
        stopped.await.map(|()| Response::new(wire::ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<wire::ControllerWaitRequest>,
    ) -> Result<Response<wire::ControllerWaitResponse>, Status> {
        let (controller, namespace) = self.asked(&request, &request.get_ref().sandboxer)?;
        let id = &request.get_ref().sandbox_id;
        let exit = reply(match controller {
            Controller::Shims => self.house.runtime.wait_sandbox(&namespace, id).await,
            Controller::Pods(cri) => cri.wait_sandbox(&namespace, id).await,
            Controller::Remote(remote) => remote.wait(id).await,
        })?;
        let id = request.into_inner().sandbox_id;
        let (exit_status, exited_at) = (exit.status, convert::timestamp(exit.at));
        let event = SandboxExit { sandbox_id: id, exit_status, exited_at };
        self.house.announce(&namespace, "/sandboxes/exit", &event);
        Ok(Response::new(wire::ControllerWaitResponse { exit_status, exited_at }))
    }

    async fn status(
        &self,
        request: Request<wire::ControllerStatusRequest>,
    ) -> Result<Response<wire::ControllerStatusResponse>, Status> {
        let (controller, namespace) = self.asked(&request, &request.get_ref().sandboxer)?;
        let wire::ControllerStatusRequest { sandbox_id, verbose, .. } = request.into_inner();
        let status = match controller {
            Controller::Shims => self.house.runtime.sandbox_status(&namespace, &sandbox_id, verbose).await,
            Controller::Pods(cri) => cri.sandbox_status(&namespace, &sandbox_id, verbose).await,
            // What is not there is told in its own words.
            Controller::Remote(remote) => Ok(reply(remote.status(&sandbox_id, verbose).await)?),
        };
        let status = match status {
            // As upstream: one that is not there has ended.
            Err(error) if error.is_not_found() => {
                let exited_at = convert::timestamp(std::time::SystemTime::now());
                return Ok(Response::new(wire::ControllerStatusResponse {
                    sandbox_id,
                    exited_at,
                    ..Default::default()
                }));
            }
            status => reply(status)?,
        };
        Ok(Response::new(wire::ControllerStatusResponse {
            sandbox_id,
            pid: status.pid,
            state: status.state,
            info: status.info,
            created_at: convert::timestamp(status.created_at),
            exited_at: convert::timestamp(status.exited_at),
            extra: status.extra.map(any::to_wire),
            address: status.endpoint.address,
            version: status.endpoint.version,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<wire::ControllerShutdownRequest>,
    ) -> Result<Response<wire::ControllerShutdownResponse>, Status> {
        let (maker, namespace) = self.maker(&request, &request.get_ref().sandboxer)?;
        let id = request.into_inner().sandbox_id;
        let house = self.house.clone();
        let change = Change::new("shut down sandbox", &namespace, id.as_str());
        let gone = self.house.work.run(change, async move {
            match maker {
                Maker::Shims => house.runtime.shutdown_sandbox(&namespace, &id).await,
                Maker::Remote(remote) => remote.shutdown(&id).await,
            }
        });
        gone.await.map(|()| Response::new(wire::ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<wire::ControllerMetricsRequest>,
    ) -> Result<Response<wire::ControllerMetricsResponse>, Status> {
        let (controller, namespace) = self.asked(&request, &request.get_ref().sandboxer)?;
        let id = request.get_ref().sandbox_id.clone();
        let metrics = reply(match controller {
            Controller::Shims => self.house.runtime.sandbox_metrics(&namespace, &id).await,
            Controller::Pods(cri) => cri.sandbox_metrics(&namespace, &id).await,
            Controller::Remote(remote) => remote.metrics(&id).await,
        })?;
        let metrics =
            Metric { timestamp: convert::timestamp(metrics.at), id, data: metrics.data.map(any::to_wire) };
        Ok(Response::new(wire::ControllerMetricsResponse { metrics: Some(metrics) }))
    }

    async fn update(
        &self,
        request: Request<wire::ControllerUpdateRequest>,
    ) -> Result<Response<wire::ControllerUpdateResponse>, Status> {
        let (controller, _) = self.asked(&request, &request.get_ref().sandboxer)?;
        let request = request.into_inner();
        match (controller, request.sandbox) {
            (_, None) => return Err(Status::unknown("sandbox can not be nil")),
            // As upstream's controllers.
            (Controller::Shims | Controller::Pods(_), Some(_)) => {}
            (Controller::Remote(remote), Some(sandbox)) => {
                let (id, sandbox) = (request.sandbox_id, convert::sandbox(sandbox));
                reply(remote.update(&id, sandbox, request.fields).await)?;
            }
        }
        Ok(Response::new(wire::ControllerUpdateResponse {}))
    }
}

/// What a shim is told of a sandbox.
fn of_shim(sandbox: Sandbox, making: Making) -> CreateSandbox {
    CreateSandbox {
        spec: sandbox.spec,
        runtime: sandbox.runtime.name,
        runtime_options: sandbox.runtime.options,
        rootfs: making.rootfs,
        options: making.options,
        netns: making.netns,
        annotations: making.annotations,
    }
}
