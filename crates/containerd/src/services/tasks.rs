//! `containerd.services.tasks.v1.Tasks`.

use std::future::Future;

use api::containerd::runc::v1::Options;
use api::containerd::services::tasks::v1 as wire;
use api::containerd::v1::types::{Process, ProcessInfo};
use api::{any, convert};
use grpc::tasks::tasks_server;
use runtime::{Awaited, Terms};
use tonic::{Request, Response, Status};
use types::filters::Filters;
use types::task::{Deleted, Endpoint, Exec, Stdio};
use types::{Namespace, Result};

use super::House;
use super::checkpoint::{self, Restore};
use super::deprecations::{Deprecation, Deprecations};
use super::reply::{namespace, reply, scope};
use crate::work::Change;

/// Processes in containers.
pub struct Tasks(pub House);

impl Tasks {
    fn tasks(&self) -> ::tasks::Tasks {
        ::tasks::Tasks::new(self.0.db.clone(), self.0.runtime.clone(), self.0.mounts.clone())
    }

    /// Runs a change detached from its caller.
    async fn change<R, F, T>(
        &self,
        what: &'static str,
        request: Request<R>,
        run: impl FnOnce(::tasks::Tasks, Namespace, R) -> F,
    ) -> Result<T, Status>
    where
        R: OfContainer,
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let change = Change::new(what, &namespace, request.container()).exec(request.exec());
        self.0.work.run(change, run(self.tasks(), namespace, request)).await
    }
}

/// Requests that name their container.
trait OfContainer {
    fn container(&self) -> &str;

    /// The process in it, if it is not the first one.
    fn exec(&self) -> &str {
        ""
    }
}

macro_rules! of_container {
    ($($name:ident $($exec:ident)?,)*) => {
        $(impl OfContainer for wire::$name {
            fn container(&self) -> &str {
                &self.container_id
            }
            $(fn exec(&self) -> &str {
                &self.$exec
            })?
        })*
    };
}

of_container! {
    CreateTaskRequest, DeleteTaskRequest, PauseTaskRequest, ResumeTaskRequest, UpdateTaskRequest,
    StartRequest exec_id, KillRequest exec_id, ExecProcessRequest exec_id, DeleteProcessRequest exec_id,
    ResizePtyRequest exec_id, CloseIoRequest exec_id,
}

/// The task service that is to serve a task, if the request names one; what goes away is noted.
fn endpoint(request: &wire::CreateTaskRequest, met: &Deprecations) -> Result<Option<Endpoint>, Status> {
    let options = request.options.clone().map(any::from_wire).unwrap_or_default();
    let runc: Options = any::unpack(&options).unwrap_or_default();
    // Fields that older clients use instead of the request's own.
    #[expect(deprecated, reason = "clients still send them")]
    let (address, version) = (runc.task_api_address, runc.task_api_version);
    let mut endpoint =
        Endpoint { address: request.task_api_address.clone(), version: request.task_api_version };
    if endpoint.address.is_empty() && !address.is_empty() {
        met.emit(Deprecation::RuncTaskApiAddress);
        endpoint.address = address;
    }
    if endpoint.version == 0 && version != 0 {
        met.emit(Deprecation::RuncTaskApiVersion);
        endpoint.version = version;
    }
    // Services of before 2 are no task services: their shims are started, as upstream does.
    let named = !endpoint.address.is_empty() && endpoint.version >= 2;
    reply(if named { runtime::check_endpoint(&endpoint).map(|()| Some(endpoint)) } else { Ok(None) })
}

fn deleted(id: String, deleted: Deleted) -> wire::DeleteResponse {
    wire::DeleteResponse {
        id,
        pid: deleted.pid,
        exit_status: deleted.exit.status,
        exited_at: convert::timestamp(deleted.exit.at),
    }
}

/// A process as upstream's service tells it: without the container's id, and with Go's zero time for what has not
/// ended.
fn process(process: types::task::Process) -> Process {
    let mut process = Process { container_id: String::new(), ..convert::process_to_wire(process) };
    process.exited_at.get_or_insert(prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 });
    process
}

#[tonic::async_trait]
impl tasks_server::Tasks for Tasks {
    async fn create(
        &self,
        request: Request<wire::CreateTaskRequest>,
    ) -> Result<Response<wire::CreateTaskResponse>, Status> {
        let endpoint = endpoint(request.get_ref(), &self.0.deprecations)?;
        let (house, scope) = (self.0.clone(), scope(request.metadata())?);
        // Gone with this call, which ends when its client hangs up.
        let (_waiting, awaited) = Awaited::pair();
        let created = self.change("create task", request, |tasks, namespace, request| async move {
            let container_id = request.container_id.clone();
            if request.checkpoint.is_some() {
                // Whose checkpoint it is comes before what it is.
                house.db.containers(&namespace).get(&container_id)?;
            }
            let restore = Restore::unpack(&house, scope, request.checkpoint).await?;
            let create = ::tasks::Create {
                id: request.container_id,
                rootfs: request.rootfs.into_iter().map(convert::mount).collect(),
                stdio: Stdio {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    terminal: request.terminal,
                },
                options: request.options.map(any::from_wire),
                runtime: request.runtime_path,
                origin: restore.as_ref().map(Restore::origin).unwrap_or_default(),
                shim_of: None,
                endpoint,
                terms: Terms { awaited, ..Terms::default() },
            };
            let created = tasks.create(&namespace, create).await;
            if let Some(restore) = restore {
                restore.remove().await;
            }
            Ok(wire::CreateTaskResponse { container_id, pid: created? })
        });
        created.await.map(Response::new)
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        let started = self.change("start process", request, |tasks, namespace, request| async move {
            let pid = tasks.start(&namespace, &request.container_id, &request.exec_id).await?;
            Ok(wire::StartResponse { pid })
        });
        started.await.map(Response::new)
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteTaskRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let done = self.change("delete task", request, |tasks, namespace, request| async move {
            Ok(deleted(String::new(), tasks.delete(&namespace, &request.container_id).await?))
        });
        done.await.map(Response::new)
    }

    async fn delete_process(
        &self,
        request: Request<wire::DeleteProcessRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let done = self.change("delete process", request, |tasks, namespace, request| async move {
            let gone = tasks.delete_process(&namespace, &request.container_id, &request.exec_id).await?;
            Ok(deleted(request.exec_id, gone))
        });
        done.await.map(Response::new)
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::GetRequest { container_id, exec_id } = request.into_inner();
        let found = reply(self.tasks().get(&namespace, &container_id, &exec_id).await)?;
        Ok(Response::new(wire::GetResponse { process: Some(process(found)) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let tasks = reply(self.tasks().list(&namespace).await)?.into_iter().map(process).collect();
        Ok(Response::new(wire::ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        let killed = self.change("kill process", request, |tasks, namespace, request| async move {
            let signal = runtime::Signal { number: request.signal, all: request.all };
            tasks.kill(&namespace, &request.container_id, &request.exec_id, signal).await
        });
        killed.await.map(Response::new)
    }

    async fn exec(&self, request: Request<wire::ExecProcessRequest>) -> Result<Response<()>, Status> {
        let added = self.change("add process", request, |tasks, namespace, request| async move {
            let stdio = Stdio {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            };
            let exec = Exec { id: request.exec_id, stdio, process: request.spec.map(any::from_wire) };
            tasks.exec(&namespace, &request.container_id, exec).await
        });
        added.await.map(Response::new)
    }

    async fn resize_pty(&self, request: Request<wire::ResizePtyRequest>) -> Result<Response<()>, Status> {
        let resized = self.change("resize terminal", request, |tasks, namespace, request| async move {
            let size = (request.width, request.height);
            tasks.resize_pty(&namespace, &request.container_id, &request.exec_id, size).await
        });
        resized.await.map(Response::new)
    }

    async fn close_io(&self, request: Request<wire::CloseIoRequest>) -> Result<Response<()>, Status> {
        let closed = self.change("close stdin", request, |tasks, namespace, request| async move {
            match request.stdin {
                true => tasks.close_io(&namespace, &request.container_id, &request.exec_id).await,
                // There is nothing else to close; but the task must exist.
                false => tasks.get(&namespace, &request.container_id, &request.exec_id).await.map(drop),
            }
        });
        closed.await.map(Response::new)
    }

    async fn pause(&self, request: Request<wire::PauseTaskRequest>) -> Result<Response<()>, Status> {
        let paused = self.change("pause task", request, |tasks, namespace, request| async move {
            tasks.pause(&namespace, &request.container_id).await
        });
        paused.await.map(Response::new)
    }

    async fn resume(&self, request: Request<wire::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let resumed = self.change("resume task", request, |tasks, namespace, request| async move {
            tasks.resume(&namespace, &request.container_id).await
        });
        resumed.await.map(Response::new)
    }

    async fn list_pids(
        &self,
        request: Request<wire::ListPidsRequest>,
    ) -> Result<Response<wire::ListPidsResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let pids = reply(self.tasks().pids(&namespace, &request.into_inner().container_id).await)?;
        let info = |pid: types::task::Pid| ProcessInfo { pid: pid.pid, info: pid.info.map(any::to_wire) };
        Ok(Response::new(wire::ListPidsResponse { processes: pids.into_iter().map(info).collect() }))
    }

    async fn checkpoint(
        &self,
        request: Request<wire::CheckpointTaskRequest>,
    ) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let change = Change::new("checkpoint task", &scope.namespace, request.container_id.as_str());
        let (house, tasks) = (self.0.clone(), self.tasks());
        let done = self
            .0
            .work
            .run(change, async move { checkpoint::checkpoint(&house, &tasks, scope, request).await });
        done.await.map(Response::new)
    }

    async fn update(&self, request: Request<wire::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let updated = self.change("update task", request, |tasks, namespace, request| async move {
            let resources = request.resources.map(any::from_wire);
            let update = runtime::Update { resources, annotations: request.annotations };
            tasks.update(&namespace, &request.container_id, update).await
        });
        updated.await.map(Response::new)
    }

    async fn metrics(
        &self,
        request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let filters = reply(Filters::parse(&request.into_inner().filters))?;
        let metric = |metric: ::tasks::Metric| api::containerd::types::Metric {
            timestamp: convert::timestamp(metric.at),
            id: metric.id,
            data: metric.data.map(any::to_wire),
        };
        let metrics =
            reply(self.tasks().metrics(&namespace, &filters).await)?.into_iter().map(metric).collect();
        Ok(Response::new(wire::MetricsResponse { metrics }))
    }

    /// Ends with its caller.
    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::WaitRequest { container_id, exec_id } = request.into_inner();
        let exit = reply(self.tasks().wait(&namespace, &container_id, &exec_id).await)?;
        Ok(Response::new(wire::WaitResponse {
            exit_status: exit.status,
            exited_at: convert::timestamp(exit.at),
        }))
    }
}
