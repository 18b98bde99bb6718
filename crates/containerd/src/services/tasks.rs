//! `containerd.services.tasks.v1.Tasks`.

use api::containerd::services::tasks::v1 as wire;
use grpc::tasks::tasks_server;
use tonic::{Request, Response, Status};

use super::House;

/// Processes in containers.
pub struct Tasks(pub House);

#[tonic::async_trait]
impl tasks_server::Tasks for Tasks {
    async fn create(&self, _: Request<wire::CreateTaskRequest>) -> Result<Response<wire::CreateTaskResponse>, Status> {
        Err(Status::unimplemented("Create: not implemented"))
    }
    async fn start(&self, _: Request<wire::StartRequest>) -> Result<Response<wire::StartResponse>, Status> {
        Err(Status::unimplemented("Start: not implemented"))
    }
    async fn delete(&self, _: Request<wire::DeleteTaskRequest>) -> Result<Response<wire::DeleteResponse>, Status> {
        Err(Status::unimplemented("Delete: not implemented"))
    }
    async fn delete_process(&self, _: Request<wire::DeleteProcessRequest>) -> Result<Response<wire::DeleteResponse>, Status> {
        Err(Status::unimplemented("DeleteProcess: not implemented"))
    }
    async fn get(&self, _: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        Err(Status::unimplemented("Get: not implemented"))
    }
    async fn list(&self, _: Request<wire::ListTasksRequest>) -> Result<Response<wire::ListTasksResponse>, Status> {
        Err(Status::unimplemented("List: not implemented"))
    }
    async fn kill(&self, _: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("Kill: not implemented"))
    }
    async fn exec(&self, _: Request<wire::ExecProcessRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("Exec: not implemented"))
    }
    async fn resize_pty(&self, _: Request<wire::ResizePtyRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("ResizePty: not implemented"))
    }
    async fn close_io(&self, _: Request<wire::CloseIoRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("CloseIO: not implemented"))
    }
    async fn pause(&self, _: Request<wire::PauseTaskRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("Pause: not implemented"))
    }
    async fn resume(&self, _: Request<wire::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("Resume: not implemented"))
    }
    async fn list_pids(&self, _: Request<wire::ListPidsRequest>) -> Result<Response<wire::ListPidsResponse>, Status> {
        Err(Status::unimplemented("ListPids: not implemented"))
    }
    async fn checkpoint(&self, _: Request<wire::CheckpointTaskRequest>) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        Err(Status::unimplemented("Checkpoint: not implemented"))
    }
    async fn update(&self, _: Request<wire::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("Update: not implemented"))
    }
    async fn metrics(&self, _: Request<wire::MetricsRequest>) -> Result<Response<wire::MetricsResponse>, Status> {
        Err(Status::unimplemented("Metrics: not implemented"))
    }
    async fn wait(&self, _: Request<wire::WaitRequest>) -> Result<Response<wire::WaitResponse>, Status> {
        Err(Status::unimplemented("Wait: not implemented"))
    }
}
