//! Executing a shim's two actions: `start`, which answers where it listens, and `delete`, which takes away what a
//! shim that is gone left behind.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use api::containerd::task::v3::DeleteResponse;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use types::task::{Deleted, Exit};
use types::{Any, Error, Result, ResultExt};

use crate::bootstrap::{Bootstrap, Params};
use crate::bundle::Bundle;
use crate::key::TaskKey;
use crate::runtime::blocking;

/// The most that an action may print.
const OUTPUT: u64 = 1 << 20;
/// How long the pipes of an action that has ended are read on: a server that inherited them never closes them.
const PIPES: Duration = Duration::from_secs(1);

/// How many `delete` actions run at a time. When many shims die at once, each still has the machine within its deadline.
pub(crate) const DELETIONS: usize = 16;

/// What every shim is told about the daemon.
#[derive(Debug)]
pub(crate) struct Launcher {
    pub(crate) address: String,
    pub(crate) ttrpc_address: String,
    pub(crate) binary: PathBuf,
    pub(crate) socket_dir: Option<PathBuf>,
    pub(crate) env: Vec<String>,
    pub(crate) debug: bool,
    /// [`DELETIONS`] permits.
    pub(crate) deletions: Semaphore,
}

/// Which shim, for which task.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) key: &'a TaskKey,
    pub(crate) bundle: &'a Bundle,
    pub(crate) shim: &'a Path,
}

impl Launcher {
    /// Runs `start` and reads its answer.
    pub(crate) async fn start(
        &self,
        target: Target<'_>,
        options: Option<&Any>,
        limit: Duration,
    ) -> Result<Bootstrap> {
        let start = || {
            let mut command = self.command(target);
            command.arg("start");
            command
        };
        let mut output = run(start(), &self.stdin(target, options), limit).await?;
        if !output.status.success() && output.takes_parameters_for_options(target.key.id()) {
            tracing::warn!(task = %target.key, "the shim is from before 2.3: it is told its options alone");
            output = run(start(), &encode(options), limit).await?;
        }
        if !output.status.success() {
            return Err(Error::unknown(format!("{}: {}", output.text(), words(output.status))));
        }
        Bootstrap::parse(&output.stdout)
    }

    /// Runs `delete`: whatever the shim left running is killed, its mounts are gone afterwards.
    pub(crate) async fn delete(&self, target: Target<'_>, limit: Duration) -> Result<Deleted> {
        let _turn = self.deletions.acquire().await.map_err(|e| Error::internal(e.to_string()))?;
        let mut command = self.command(target);
        command.arg("-bundle").arg(&target.bundle.path).arg("delete");
        let output = run(command, &[], limit).await?;
        if !output.status.success() {
            return Err(Error::unknown(format!("{}: {}", output.text(), words(output.status))));
        }
        if !output.stderr.is_empty() {
            let warnings = String::from_utf8_lossy(&output.stderr);
            tracing::warn!(task = %target.key, %warnings, "warnings while cleaning up dead shim");
        }
        let response = DeleteResponse::decode(output.stdout.as_slice())
            .map_err(|e| Error::unknown(format!("decode the answer of delete: {e}")))?;
        let exit = Exit { status: response.exit_status, at: api::convert::time(response.exited_at) };
        Ok(Deleted { pid: response.pid, exit })
    }

    fn command(&self, target: Target<'_>) -> Command {
        let namespace = target.key.namespace().as_str();
        let mut command = Command::new(target.shim);
        command.args(["-namespace", namespace, "-address", &self.address]);
        command.arg("-publish-binary").arg(&self.binary).args(["-id", target.key.id()]);
        if self.debug {
            command.arg("-debug");
        }
        command
            .current_dir(&target.bundle.path)
            .env("GOMAXPROCS", "2")
            .env("MAX_SHIM_VERSION", "2")
            .env("TTRPC_ADDRESS", &self.ttrpc_address)
            .env("GRPC_ADDRESS", &self.address)
            .env("NAMESPACE", namespace)
            .envs(self.env.iter().filter_map(|variable| variable.split_once('=')))
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn stdin(&self, target: Target<'_>, options: Option<&Any>) -> Vec<u8> {
        let name = target.shim.file_name().unwrap_or_default().to_string_lossy();
        // Shims of the first generation take anything but their options for a mistake.
        if name.contains("shim-runc-v1") || name.contains("shim-runhcs-v1") {
            return encode(options);
        }
        Params {
            id: target.key.id(),
            namespace: target.key.namespace().as_str(),
            debug: self.debug,
            ttrpc_address: &self.ttrpc_address,
            grpc_address: &self.address,
            binary: &self.binary.to_string_lossy(),
            socket_dir: self.socket_dir.as_deref().and_then(Path::to_str),
            options,
        }
        .encode()
    }
}

/// The options as an `Any`, or nothing.
fn encode(options: Option<&Any>) -> Vec<u8> {
    options.map_or_else(Vec::new, |options| api::any::to_wire(options.clone()).encode_to_vec())
}

pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// Whether these are the words of a shim that knows only options on its stdin: our id stands where the name of their
    /// type does. It has not begun anything yet.
    fn takes_parameters_for_options(&self, id: &str) -> bool {
        self.text().contains(&format!("type with url {id}: not found"))
    }

    /// Both streams, for a message.
    fn text(&self) -> String {
        let (stdout, stderr) = (String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr));
        format!("{}{}", stdout, stderr).trim().to_owned()
    }
}

/// Runs a command to its end, with its whole process group killed at the deadline.
pub(crate) async fn run(mut command: Command, stdin: &[u8], limit: Duration) -> Result<Output> {
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The thread that executes it stands still until the program's first page is there: none that others wait for.
    let executed = blocking(move || {
        let spawned = command.spawn();
        spawned.map_err(|e| Error::unknown(format!("fork/exec {:?}: {e}", command.as_std().get_program())))
    });
    let mut child = executed.await?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let talk = talk(&mut child, stdin, &mut stdout, &mut stderr);
    match tokio::time::timeout(limit, talk).await {
        Ok(status) => Ok(Output { status: status.context(|| "wait for shim")?, stdout, stderr }),
        Err(_) => {
            // It has not been waited for, so its pid is still its own.
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait().await;
            let said = String::from_utf8_lossy(&stderr);
            Err(Error::deadline(format!("{}: no answer within {limit:?}", said.trim())))
        }
    }
}

async fn talk(
    child: &mut Child,
    stdin: &[u8],
    stdout: &mut Vec<u8>,
    stderr: &mut Vec<u8>,
) -> std::io::Result<ExitStatus> {
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut input) = input {
            // A shim need not read what it is told.
            let _ = input.write_all(stdin).await;
        }
    };
    let drain = async { tokio::join!(feed, read(out, stdout), read(err, stderr)) };
    tokio::pin!(drain);
    tokio::select! {
        biased;
        _ = &mut drain => child.wait().await,
        status = child.wait() => {
            let _ = tokio::time::timeout(PIPES, drain).await;
            status
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(pipe) = pipe {
        // What was read so far is worth more than the error of a broken pipe.
        let _ = pipe.take(OUTPUT).read_to_end(into).await;
    }
}

/// As Go's `os/exec` says it.
pub(crate) fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}
