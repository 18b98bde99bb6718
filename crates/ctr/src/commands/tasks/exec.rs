//! `ctr tasks exec`.

use api::containerd::services::tasks::v1::ExecProcessRequest;
use clap::Args;
use remote::from_status;
use serde_json::{Value, json};
use snapshots::Snapshotter;
use types::any::RUNTIME_PROCESS;
use types::container::Container;
use types::{Any, Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::commands::run::{exit_code, lookup};
use crate::flags::Words;
use crate::go;
use crate::io::terminal::Console;
use crate::io::{Streams, Wiring};
use crate::process::{Attended, Process, Signals, no_task};

/// `ctr tasks exec`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Working directory of the new process
    #[arg(long, default_value = "")]
    cwd: String,
    /// Allocate a TTY for the container
    #[arg(long, short)]
    tty: bool,
    /// Detach from the task after it has started execution
    #[arg(long, short)]
    detach: bool,
    /// Exec specific id for the process
    #[arg(long)]
    exec_id: Option<String>,
    /// Directory used for storing IO FIFOs
    #[arg(long, default_value = "")]
    fifo_dir: String,
    /// Log uri for custom shim logging
    #[arg(long, default_value = "")]
    log_uri: String,
    /// User id or name
    #[arg(long, default_value = "")]
    user: String,
    #[command(flatten)]
    words: Words,
}

impl Flags {
    fn contradiction(&self, exec: &str) -> Option<&'static str> {
        match () {
            () if self.tty && !self.log_uri.is_empty() => Some("can't use log-uri with tty"),
            () if !self.log_uri.is_empty() && !self.fifo_dir.is_empty() => {
                Some("can't use log-uri with fifo-dir")
            }
            () if exec.is_empty() => Some("exec id must not be empty: invalid argument"),
            () => None,
        }
    }
}

/// Runs a process in a container; answers its code.
pub async fn run(globals: &Globals, flags: Flags) -> Result<u8> {
    let Some(exec) = flags.exec_id.clone() else {
        return refused("Required flag \"exec-id\" not set");
    };
    let id = flags.words.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    if let Some(text) = flags.contradiction(&exec) {
        // What the flags say counts only where there is something to run.
        Process::init(&client, id).get().await.map_err(no_task)?;
        return refused(text);
    }
    let mut signals = Signals::catch()?;
    let console = flags.tty.then(Console::raw).transpose()?;
    let spec = process(&client, &container, &flags, console.as_ref().and_then(Console::size)).await?;
    let wiring = match flags.log_uri.as_str() {
        "" => Wiring::Fifos { directory: flags.fifo_dir.clone(), terminal: flags.tty },
        uri => Wiring::Log(uri.into()),
    };
    let mut streams = Streams::new(wiring, &exec)?;
    let process = Process { exec, ..Process::init(&client, id) };
    signals.during(create(&process, &streams, spec)).await?;
    let attended = async {
        signals.check()?;
        if flags.detach {
            return process.start().await.map(|_| 0);
        }
        let signals = &mut signals;
        process
            .attend(Attended { streams: &mut streams, console: console.as_ref(), signals, start: true })
            .await
    };
    let code = attended.await;
    if flags.detach && code.is_ok() {
        streams.keep();
        return Ok(0);
    }
    if code.is_err() {
        // One that did not start is taken back too.
        process.delete().await.ok();
    }
    code.map(exit_code)
}

async fn create(process: &Process, streams: &Streams, spec: Any) -> Result<()> {
    let stdio = streams.stdio().clone();
    let request = ExecProcessRequest {
        container_id: process.container.clone(),
        exec_id: process.exec.clone(),
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: stdio.terminal,
        spec: Some(api::any::to_wire(spec)),
    };
    process.client.tasks().exec(request).await.map_err(from_status).map_err(no_task)?;
    Ok(())
}

/// The container's own process with what the flags change. Its terminal, which is there only when it runs, has the
/// `size` of ours from the beginning.
async fn process(
    client: &Client,
    container: &Container,
    flags: &Flags,
    size: Option<(u32, u32)>,
) -> Result<Any> {
    let missing = || Error::invalid(format!("container {} has no process in its spec", container.id));
    let spec = container.spec.as_ref().ok_or_else(missing)?;
    let mut spec: Value =
        serde_json::from_slice(&spec.value).map_err(|e| Error::invalid(format!("decode spec: {e}")))?;
    let root = spec.pointer("/root/path").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut process =
        spec.get_mut("process").map(Value::take).filter(Value::is_object).ok_or_else(missing)?;
    if !flags.user.is_empty() {
        let mounts = match container.snapshot_key.as_str() {
            "" => None,
            key => Some(client.named_snapshotter(&container.snapshotter).mounts(key).await?),
        };
        let user = lookup::user(&flags.user, mounts.as_deref(), &root)?;
        process["user"] = json!(user);
    }
    if flags.tty {
        process["terminal"] = json!(true);
        if let Some((width, height)) = size {
            process["consoleSize"] = json!({ "height": height, "width": width });
        }
    } else if let Some(process) = process.as_object_mut() {
        process.shift_remove("terminal");
    }
    process["args"] = json!(flags.words.tail());
    if !flags.cwd.is_empty() {
        process["cwd"] = json!(flags.cwd);
    }
    Ok(Any::new(RUNTIME_PROCESS, go::json::compact(&process)?))
}
