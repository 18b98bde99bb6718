//! `ctr tasks kill`.

use clap::Args;
use types::Result;
use types::signal::number;

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::commands::run::container::STOP_SIGNAL_LABEL;
use crate::flags::Words;
use crate::process::Process;

/// `ctr tasks kill`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Signal to send to the container
    #[arg(long, short, default_value = "")]
    signal: String,
    /// Process ID to kill
    #[arg(long, default_value = "")]
    exec_id: String,
    /// Send signal to all processes inside the container
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    words: Words,
}

/// Sends a signal: the one that is named, or the one with which the image wants to be stopped.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let id = flags.words.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    if flags.all && !flags.exec_id.is_empty() {
        return refused("specify an exec-id or all; not both");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    let named = if flags.signal.is_empty() {
        container.labels.get(STOP_SIGNAL_LABEL).map_or("SIGTERM", String::as_str)
    } else {
        &flags.signal
    };
    let signal = number(named)?;
    let stop = container.labels.get(STOP_SIGNAL_LABEL).is_some_and(|stop| number(stop).ok() == Some(signal));
    let process = Process { exec: flags.exec_id, ..Process::init(&client, id) };
    let ends = process.exec.is_empty() && (stop || ENDS.contains(&signal));
    let attached = if ends { process.attached(&container).await } else { None };
    if let Err(error) = process.kill(signal, flags.all).await {
        return Err(process.explain(error).await);
    }
    if let Some(attached) = attached {
        attached.remove().await;
    }
    Ok(())
}

/// INT, QUIT, ABRT, KILL, TERM: whoever sends one of these wants the container to end, and its networks with it.
const ENDS: [u32; 5] = [2, 3, 6, 9, 15];
