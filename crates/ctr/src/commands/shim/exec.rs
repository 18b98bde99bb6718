//! `ctr shim exec`. As upstream, the id is both the container's and the process's, so a shim that follows the protocol
//! refuses; it is here for those that do not.

use std::path::Path;

use api::containerd::task::v3 as wire;
use clap::Args;
use types::any::RUNTIME_PROCESS;
use types::error::os_text;
use types::task::Stdio;
use types::{Any, Error, Result};

use super::{Shim, Version};
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go;
use crate::io::Streams;
use crate::io::terminal::Console;

/// `ctr shim exec`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Specify the path to the stdin fifo
    #[arg(long, default_value = "")]
    stdin: String,
    /// Specify the path to the stdout fifo
    #[arg(long, default_value = "")]
    stdout: String,
    /// Specify the path to the stderr fifo
    #[arg(long, default_value = "")]
    stderr: String,
    /// Enable tty support
    #[arg(long, short)]
    tty: bool,
    /// Stay attached to the container and open the fifos
    #[arg(long, short)]
    attach: bool,
    /// Add environment vars
    #[arg(long, short)]
    env: Vec<String>,
    /// Current working directory
    #[arg(long, default_value = "")]
    cwd: String,
    /// Runtime spec
    #[arg(long, default_value = "")]
    spec: String,
    #[command(flatten)]
    words: Words,
}

/// Starts a process.
pub async fn run(shim: &Shim<'_>, flags: &Flags) -> Result<()> {
    let mut connection = shim.connect()?;
    let id = flags.words.first();
    if id.is_empty() {
        return refused("exec id must be provided");
    }
    for path in [&flags.stdin, &flags.stdout, &flags.stderr] {
        make_fifo(path)?;
    }
    let stdio = Stdio {
        stdin: flags.stdin.clone(),
        stdout: flags.stdout.clone(),
        stderr: flags.stderr.clone(),
        terminal: flags.tty,
    };
    let mut streams = Streams::attach(stdio.clone())?;
    let spec = std::fs::read(&flags.spec).map_err(|e| go::path_error("open", &flags.spec, e))?;
    let request = wire::ExecProcessRequest {
        id: id.into(),
        exec_id: String::new(),
        terminal: stdio.terminal,
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        spec: Some(api::any::to_wire(Any::new(RUNTIME_PROCESS, spec))),
    };
    connection.call::<()>(Version::V3, "Exec", &request)?;
    let request = wire::StartRequest { id: id.into(), exec_id: String::new() };
    let started: wire::StartResponse = connection.call(Version::V3, "Start", &request)?;
    print(format!("exec running with pid {}\n", started.pid))?;
    if !flags.attach {
        return Ok(());
    }
    let console = flags.tty.then(Console::raw).transpose()?;
    if let Some((width, height)) = console.as_ref().and_then(Console::size) {
        let request = wire::ResizePtyRequest { id: id.into(), exec_id: String::new(), width, height };
        connection.call::<()>(Version::V3, "ResizePty", &request)?;
    }
    streams.copy(console.as_ref())?;
    streams.drained().await;
    Ok(())
}

fn make_fifo(path: &str) -> Result<()> {
    match sys::fifo::make(Path::new(path), 0o700) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::unknown(format!("error creating fifo {path}: {}", os_text(&error))))
        }
        _ => Ok(()),
    }
}
