//! `ctr containers checkpoint` and `restore`: what they take is checked, the work itself comes with checkpoints.

use clap::Args;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::Words;

/// `ctr containers checkpoint`.
#[derive(Args, Debug)]
pub struct CheckpointFlags {
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

/// `ctr containers restore`.
#[derive(Args, Debug)]
pub struct RestoreFlags {
    /// Restore the rw layer from the checkpoint
    #[arg(long)]
    rw: bool,
    /// Restore the runtime and memory data from the checkpoint
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    words: Words,
}

/// Would write a container into an image.
pub async fn checkpoint(globals: &Globals, flags: CheckpointFlags) -> Result<()> {
    let client = open(globals, &flags.words)?;
    client.container(flags.words.first()).await?;
    Err(Error::unimplemented("containers checkpoint is not there yet"))
}

/// Would make a container out of such an image.
pub async fn restore(globals: &Globals, flags: RestoreFlags) -> Result<()> {
    let client = open(globals, &flags.words)?;
    client.image(flags.words.get(1)).await?;
    Err(Error::unimplemented("containers restore is not there yet"))
}

fn open(globals: &Globals, words: &Words) -> Result<Client> {
    if words.first().is_empty() {
        return refused("container id must be provided");
    }
    if words.get(1).is_empty() {
        return refused("ref must be provided");
    }
    Client::open(globals)
}
