//! `ctr tasks attach`.

use types::Result;
use types::task::Stdio;

use crate::client::Client;
use crate::commands::run::exit_code;
use crate::io::terminal::Console;
use crate::io::{self, Streams};
use crate::process::{Attended, Process, Signals, no_task};

/// Takes over the streams of a running task; answers its code, and deletes it at its end.
pub async fn run(client: &Client, id: &str) -> Result<u8> {
    client.container(id).await?;
    let process = Process::init(client, id);
    let found = process.get().await.map_err(no_task)?;
    let stdio =
        Stdio { stdin: found.stdin, stdout: found.stdout, stderr: found.stderr, terminal: found.terminal };
    let mut signals = Signals::catch()?;
    let console = stdio.terminal.then(Console::raw).transpose()?;
    let mut streams = Streams::attach(stdio.clone())?;
    let signals = &mut signals;
    let attended = Attended { streams: &mut streams, console: console.as_ref(), signals, start: false };
    let code = process.attend(attended).await?;
    if process.delete().await.is_ok() {
        io::remove(&stdio);
    }
    Ok(exit_code(code))
}
