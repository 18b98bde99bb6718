//! `ctr tasks checkpoint`.

use api::containerd::runc::v1::CheckpointOptions;
use api::containerd::services::tasks::v1::{CheckpointTaskRequest, PauseTaskRequest, ResumeTaskRequest};
use api::containerd::v1::types::Status;
use clap::Args;
use remote::from_status;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::Words;
use crate::log;
use crate::process::{Process, no_task};

/// `ctr tasks checkpoint`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Stop the container after the checkpoint
    #[arg(long)]
    exit: bool,
    /// Path to criu image files
    #[arg(long, default_value = "")]
    image_path: String,
    /// Path to criu work files and logs
    #[arg(long, default_value = "")]
    work_path: String,
    #[command(flatten)]
    id: Words,
}

/// Has a task written to a directory. Into an image comes with checkpoints as a whole.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let id = flags.id.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    let process = Process::init(&client, id);
    let status = process.get().await.map_err(no_task)?.status();
    if flags.image_path.is_empty() {
        let text = "checkpointing a task into an image is not there yet: use --image-path";
        return Err(Error::unimplemented(text));
    }
    let options = CheckpointOptions {
        exit: flags.exit,
        image_path: flags.image_path,
        work_path: flags.work_path,
        ..Default::default()
    };
    let request = CheckpointTaskRequest {
        container_id: container.id,
        options: Some(api::any::to_wire(api::any::pack(&options))),
        ..Default::default()
    };
    if status != Status::Running {
        return checkpoint(&client, request).await;
    }
    let paused = PauseTaskRequest { container_id: id.into() };
    client.tasks().pause(paused).await.map_err(from_status)?;
    let made = checkpoint(&client, request).await;
    let resumed = ResumeTaskRequest { container_id: id.into() };
    match client.tasks().resume(resumed).await.map_err(from_status) {
        // With --exit there is nothing left to go on.
        Err(error) if !(flags.exit && made.is_ok()) => log::error("failed to resume task", Some(&error)),
        _ => {}
    }
    made
}

async fn checkpoint(client: &Client, request: CheckpointTaskRequest) -> Result<()> {
    client.tasks().checkpoint(request).await.map(drop).map_err(from_status)
}
