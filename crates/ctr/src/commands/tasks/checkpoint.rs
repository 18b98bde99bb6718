//! `ctr tasks checkpoint`.

use api::containerd::runc::v1::CheckpointOptions;
use api::containerd::services::tasks::v1::{PauseTaskRequest, ResumeTaskRequest};
use api::containerd::v1::types::Status;
use clap::Args;
use remote::from_status;
use types::Result;
use types::container::Container;

use crate::checkpoint::Draft;
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::containers::LEASE;
use crate::commands::run::container as run_container;
use crate::commands::{print, refused};
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

/// Has a task written to a directory, or into an image.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let id = flags.id.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    let process = Process::init(&client, id);
    let status = process.get().await.map_err(no_task)?.status();
    if status == Status::Paused {
        return write(&client, &container, &flags).await;
    }
    let paused = PauseTaskRequest { container_id: id.into() };
    client.tasks().pause(paused).await.map_err(from_status)?;
    let written = write(&client, &container, &flags).await;
    let resumed = ResumeTaskRequest { container_id: id.into() };
    match client.tasks().resume(resumed).await.map_err(from_status) {
        // With --exit there is nothing left to go on.
        Err(error) if !(flags.exit && written.is_ok()) => log::error("failed to resume task", Some(&error)),
        _ => {}
    }
    written
}

async fn write(client: &Client, container: &Container, flags: &Flags) -> Result<()> {
    let options = api::any::pack(&CheckpointOptions {
        exit: flags.exit,
        image_path: flags.image_path.clone(),
        work_path: flags.work_path.clone(),
        ..Default::default()
    });
    let lease = client.lease(None, LEASE).await?;
    let written = async {
        let mut draft = Draft::new(&lease.client, container);
        draft.task(&options).await?;
        if !flags.image_path.is_empty() {
            return Ok(None);
        }
        if !container.image.is_empty() {
            draft.image().await?;
            draft.annotate("image.name", &container.image);
        }
        if !container.snapshot_key.is_empty() {
            draft.writable_layer().await?;
        }
        let labels = [("containerd.io/checkpoint".to_owned(), "true".to_owned())].into();
        draft.store(&name(&container.id), container.id.clone(), labels).await.map(Some)
    };
    let written = written.await;
    run_container::end(lease).await;
    match written? {
        Some(image) => print(format!("{}\n", image.name)),
        None => Ok(()),
    }
}

/// Upstream's name of a checkpoint, with the local time.
fn name(id: &str) -> String {
    let now = jiff::Zoned::now();
    format!("containerd.io/checkpoint/{id}:{}", now.strftime("%m-%d-%Y-%H:%M:%S"))
}
