//! `ctr tasks start`.

use clap::Args;
use types::Result;

use super::new::{self, NewTask};
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::commands::run::{destroy, exit_code};
use crate::flags::Words;
use crate::io::terminal::Console;
use crate::process::{Attended, Process, Signals, write_pid_file};

/// `ctr tasks start`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Disable use of pivot-root (linux only)
    #[arg(long)]
    no_pivot: bool,
    /// Send all IO to /dev/null
    #[arg(long)]
    null_io: bool,
    /// Log uri
    #[arg(long, default_value = "")]
    log_uri: String,
    /// Directory used for storing IO FIFOs
    #[arg(long, default_value = "")]
    fifo_dir: String,
    /// File path to write the task's pid
    #[arg(long)]
    pid_file: Option<String>,
    /// Detach from the task after it has started execution
    #[arg(long, short)]
    detach: bool,
    #[command(flatten)]
    words: Words,
}

/// Starts a task; answers its code.
pub async fn run(globals: &Globals, flags: Flags) -> Result<u8> {
    let id = flags.words.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    let options = new::Options {
        null_io: flags.null_io,
        log_uri: flags.log_uri,
        fifo_dir: flags.fifo_dir,
        no_pivot: flags.no_pivot,
        checkpoint: None,
    };
    let terminal = new::Facts::of(&container)?.terminal;
    options.check(terminal)?;
    let mut signals = Signals::catch()?;
    let console = terminal.then(Console::raw).transpose()?;
    let NewTask { mut streams, pid } =
        signals.during(new::create(&client, &container, None, &options)).await?;
    let process = Process::init(&client, id);
    let attended = async {
        if let Some(path) = &flags.pid_file {
            write_pid_file(path, pid)?;
        }
        signals.check()?;
        if flags.detach {
            return process.start().await.map(|_| 0);
        }
        let signals = &mut signals;
        process
            .attend(Attended { streams: &mut streams, console: console.as_ref(), signals, start: true })
            .await
    };
    match attended.await {
        Ok(_) if flags.detach => {
            streams.keep();
            Ok(0)
        }
        Ok(code) => process.delete().await.map(|_| exit_code(code)),
        Err(error) => {
            destroy(&process).await;
            Err(error)
        }
    }
}
