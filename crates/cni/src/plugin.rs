//! A plugin as a program: found, asked, bounded, and killed when its time is up.
//!
//! ```text
//!  environment   CNI_COMMAND CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_ARGS CNI_PATH, beside ours
//!  stdin         its configuration
//!  exit 0        stdout is the answer
//!  exit else     stdout is an error as JSON; if there is none, stderr tells
//! ```
//!
//! It leads a process group of its own: a key pressed in `ctr`'s terminal does not tear it in the middle of a change, and
//! what is killed is killed with its children. Dropping the future of [`Program::run`] kills it, too.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tracing::debug;
use types::{Class, Error, Result, ResultExt};

use crate::error::PluginError;
use crate::names;

/// What a plugin may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one call may last. Plugins that wait for an API server may take minutes.
    pub time: Duration,
    /// How much an answer may be, in bytes; more is an error.
    pub answer: usize,
    /// How much of what it complains is kept, in bytes.
    pub complaints: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(180), answer: 1 << 20, complaints: 16 << 10 }
    }
}

/// How long the output of a plugin that has ended is waited for: others may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often a program that is just being replaced is tried again, and how long that takes.
const BUSY: (u32, Duration) = (50, Duration::from_millis(100));
/// ETXTBSY, for which the standard library has no stable kind.
const TEXT_BUSY: i32 = 26;

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Check,
    Del,
    Status,
    Gc,
    Version,
}

impl Verb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// As errors have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Check => "check",
            Self::Del => "delete",
            Self::Status => "status",
            Self::Gc => "gc",
            Self::Version => "version",
        }
    }
}

/// What of a container stands in a plugin's environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub container: String,
    pub netns: String,
    pub interface: String,
    pub arguments: String,
}

/// Finds a plugin's program. It must be a regular file that not everybody may write: we run it as root.
pub(crate) fn find(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf> {
    names::plugin(kind)?;
    if dirs.is_empty() {
        return Err(Error::invalid("no paths provided"));
    }
    for path in dirs.iter().map(|dir| dir.join(kind)) {
        let Ok(found) = std::fs::metadata(&path) else { continue };
        if !found.is_file() {
            continue;
        }
        if found.permissions().mode() & 0o002 != 0 {
            let text = format!("plugin {} is not run: everybody may write it", path.display());
            return Err(Error::new(Class::PermissionDenied, text));
        }
        return Ok(path);
    }
    let shown: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    Err(Error::not_found(format!("failed to find plugin {kind:?} in path [{}]", shown.join(" "))))
}

/// A program with where it may find others, and what it may take.
pub(crate) struct Program<'a> {
    /// What errors begin with.
    pub doing: &'a str,
    pub path: &'a Path,
    pub dirs: &'a [PathBuf],
    pub limits: Limits,
}

impl Program<'_> {
    /// Asks it, and answers with what it printed.
    pub async fn run(&self, verb: Verb, environment: &Environment, question: &[u8]) -> Result<Vec<u8>> {
        let done = self.converse(verb, environment, question).await.context(|| self.doing)?;
        for line in String::from_utf8_lossy(&done.complaints).lines() {
            debug!(plugin = %self.path.display(), stream = "stderr", "{line}");
        }
        if done.status.success() { Ok(done.answer) } else { Err(done.stated().while_doing(self.doing)) }
    }

    async fn converse(&self, verb: Verb, environment: &Environment, question: &[u8]) -> Result<Done> {
        let mut running = self.spawn(verb, environment).await?;
        let talk = converse(&mut running.0, question, self.limits);
        tokio::time::timeout(self.limits.time, talk).await.unwrap_or_else(|_| {
            let (shown, time) = (self.path.display(), self.limits.time);
            Err(Error::deadline(format!("plugin {shown} did not end within {time:?} and was killed")))
        })
    }

    async fn spawn(&self, verb: Verb, environment: &Environment) -> Result<Running> {
        let dirs: Vec<&OsStr> = self.dirs.iter().map(|dir| dir.as_os_str()).collect();
        let mut command = Command::new(self.path);
        command
            .env("CNI_COMMAND", verb.command())
            .env("CNI_CONTAINERID", &environment.container)
            .env("CNI_NETNS", &environment.netns)
            .env("CNI_IFNAME", &environment.interface)
            .env("CNI_ARGS", &environment.arguments)
            .env("CNI_PATH", dirs.join(&OsString::from(":")))
            // What systemd gave us is not the plugin's to answer.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let (tries, pause) = BUSY;
        for _ in 1..tries {
            let (again, spawned) = execute(command).await?;
            match spawned {
                Err(error) if error.raw_os_error() == Some(TEXT_BUSY) => tokio::time::sleep(pause).await,
                spawned => return spawned.context(|| format!("execute {}", self.path.display())),
            }
            command = again;
        }
        execute(command).await?.1.context(|| format!("execute {}", self.path.display()))
    }
}

/// Executes a command; gives it back, for another time. The thread that does stands still until the program's first page is there,
/// which on a busy machine takes milliseconds: it must not be one that others wait for.
async fn execute(mut command: Command) -> Result<(Command, std::io::Result<Running>)> {
    let executed = tokio::task::spawn_blocking(move || {
        let spawned = command.spawn().map(Running);
        (command, spawned)
    });
    executed.await.map_err(|error| Error::internal(format!("execute a plugin: {error}")))
}

/// A program with all that it has started. Dropping it before its end kills them.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Not collected yet, so the number is still its own; its children are in its group.
        if let Some(group) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Its members have gone, if it does not work.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

struct Done {
    status: ExitStatus,
    answer: Vec<u8>,
    complaints: Vec<u8>,
}

impl Done {
    /// Why it failed, in its own words if it has any.
    fn stated(&self) -> PluginError {
        let plain = PluginError::plain;
        match (self.answer.is_empty(), self.complaints.is_empty()) {
            (true, true) => plain(format!("netplugin failed with no error message: {}", self.status)),
            (true, false) => plain(format!("netplugin failed: {}", quoted(&self.complaints))),
            (false, _) => serde_json::from_slice(&self.answer).unwrap_or_else(|error| {
                let said = quoted(&self.answer);
                plain(format!("netplugin failed but error parsing its diagnostic message {said}: {error}"))
            }),
        }
    }
}

/// Some of what a program has printed, on one line.
fn quoted(bytes: &[u8]) -> String {
    let some = bytes.get(..bytes.len().min(4096)).unwrap_or(bytes);
    format!("{:?}", String::from_utf8_lossy(some))
}

async fn converse(child: &mut Child, question: &[u8], limits: Limits) -> Result<Done> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut answer, mut complaints) = (Vec::new(), Vec::new());
    let status = {
        let asked = async {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(question).await
            {
                // One that does not care for its configuration may have closed its input.
                debug!(%error, "a CNI plugin did not read all of its configuration");
            }
            Ok(())
        };
        let answered = keep(stdout, &mut answer, limits.answer, Beyond::Refused);
        let complained = keep(stderr, &mut complaints, limits.complaints, Beyond::Dropped);
        let mut talk = std::pin::pin!(async { tokio::try_join!(asked, answered, complained) });
        let mut over = false;
        let status = loop {
            tokio::select! {
                said = &mut talk, if !over => { said?; over = true; }
                ended = child.wait() => break ended.context(|| "wait for the plugin")?,
            }
        };
        if !over && let Ok(said) = tokio::time::timeout(LAST_WORDS, &mut talk).await {
            said?;
        }
        status
    };
    Ok(Done { status, answer, complaints })
}

/// What becomes of output beyond its bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Refused,
    Dropped,
}

async fn keep(
    stream: Option<impl AsyncRead + Unpin>,
    kept: &mut Vec<u8>,
    most: usize,
    beyond: Beyond,
) -> Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut piece = vec![0; 8192];
    loop {
        let count = stream.read(&mut piece).await.context(|| "read the plugin's output")?;
        let room = most - kept.len();
        if count == 0 {
            return Ok(());
        }
        if count > room && beyond == Beyond::Refused {
            return Err(Error::exhausted(format!(
                "the plugin printed more than {most} bytes and was killed"
            )));
        }
        kept.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
    }
}
