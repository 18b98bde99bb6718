//! `ctr containers checkpoint`: a container as an image.

use std::time::Duration;

use api::containerd::services::tasks::v1::{PauseTaskRequest, ResumeTaskRequest};
use clap::Args;
use remote::from_status;
use types::container::Container;
use types::{Labels, Result};

use crate::checkpoint::{Draft, default_options};
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::run::container;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::process::Process;

/// What a restore has to know: the name of the runtime.
pub const RUNTIME: &str = "io.containerd.checkpoint.runtime";
/// And of the snapshotter.
pub const SNAPSHOTTER: &str = "io.containerd.checkpoint.snapshotter";
/// And of the image.
pub const IMAGE: &str = "org.opencontainers.image.ref.name";
/// Upstream's: what a lease of a client that died holds goes after a day.
pub const LEASE: Duration = Duration::from_secs(24 * 3600);

/// `ctr containers checkpoint`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Include the rw layer in the checkpoint
    #[arg(long)]
    rw: bool,
    /// Include the image in the checkpoint
    #[arg(long)]
    image: bool,
    /// Checkpoint container task
    #[arg(long)]
    task: bool,
    #[command(flatten)]
    words: Words,
}

/// Writes a container into an image. Its task is paused meanwhile, if it has one.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let client = open(globals, &flags.words)?;
    let (id, reference) = (flags.words.first(), flags.words.get(1));
    let container = client.container(id).await?;
    let has_task = match Process::init(&client, id).get().await {
        Err(error) if error.is_not_found() => false,
        got => got.map(|_| true)?,
    };
    if !has_task {
        return write(&client, &container, reference, &flags).await;
    }
    let paused = PauseTaskRequest { container_id: id.into() };
    client.tasks().pause(paused).await.map_err(from_status)?;
    let written = write(&client, &container, reference, &flags).await;
    let resumed = ResumeTaskRequest { container_id: id.into() };
    if let Err(error) = client.tasks().resume(resumed).await.map_err(from_status) {
        print(format!("error resuming task: {error}\n"))?;
    }
    written
}

async fn write(client: &Client, container: &Container, reference: &str, flags: &Flags) -> Result<()> {
    let image = client.image(&container.image).await?;
    let lease = client.lease(None, LEASE).await?;
    let written = async {
        let mut draft = Draft::new(&lease.client, container);
        draft.annotate(IMAGE, &image.name);
        draft.annotate(RUNTIME, &container.runtime.name);
        draft.annotate(SNAPSHOTTER, &container.snapshotter);
        draft.runtime().await?;
        if flags.image {
            draft.image().await?;
        }
        if flags.rw {
            draft.writable_layer().await?;
        }
        if flags.task {
            let options = default_options();
            draft.task(&options).await?;
            draft.options(&options).await?;
        }
        draft.store(reference, format!("{}index", container.id), Labels::new()).await
    };
    let written = written.await;
    container::end(lease).await;
    written.map(drop)
}

/// Checks the words of the command, and opens the daemon.
pub fn open(globals: &Globals, words: &Words) -> Result<Client> {
    if words.first().is_empty() {
        return refused("container id must be provided");
    }
    if words.get(1).is_empty() {
        return refused("ref must be provided");
    }
    Client::open(globals)
}
