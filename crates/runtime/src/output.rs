//! Logs that shims write themselves, and who is attached to a process: the daemon's side of `containerdrs.shim.v1.Output`.
//!
//! ```text
//!  Create with types::output::LogFile::cri_uri as stdout and stderr       the shim writes the kubelet's log
//!  (types::output::UNKEPT where there is no log)                          and nothing else needs the daemon
//!  reopen_log    after the kubelet has renamed the log
//!  attach        a lossy live copy of output; input goes into the process's own FIFO
//! ```
//!
//! Nothing here outlives the daemon: a shim forgets who is attached when the reader of a pipe is gone.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use api::containerdrs::shim::v1 as ours;
use prost::Message;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::net::unix::pipe;
use types::output::Output;
use types::{Class, Error, Namespace, Result, ResultExt};

use crate::runtime::{Runtime, blocking};
use crate::shim::Shim;
use crate::ttrpc::{Call, Failure};

/// How much a client may be behind before it misses something, in bytes.
const BEHIND: usize = 256 << 10;

/// What somebody who attaches wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// To write to the process.
    pub stdin: Input,
    /// To read its standard output, or its terminal.
    pub stdout: bool,
    /// To read its standard error. A terminal has none.
    pub stderr: bool,
}

/// Whether to write to a process, and what comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Not at all.
    None,
    /// The process waits for the next one who does.
    Open,
    /// When this one goes, in whatever way, the process's input ends (`stdin_once`). Whoever else writes at that moment
    /// keeps it open until he goes too.
    Once,
}

/// What somebody who is attached holds; dropping a part lets go of it.
#[derive(Debug)]
pub struct Attached {
    /// Where to write; none if the process has no input, or none any more.
    pub stdin: Option<pipe::Sender>,
    /// Ends when the process has closed it. What is not read in time is not there.
    pub stdout: Option<pipe::Receiver>,
    /// The same.
    pub stderr: Option<pipe::Receiver>,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

impl Runtime {
    /// Whether the shim of a task writes logs itself, and can be asked to reopen them and to attach. As the shim said when it was
    /// started: this asks nobody.
    pub async fn has_output_service(&self, namespace: &Namespace, id: &str) -> Result<bool> {
        Ok(self.find(namespace, id).await?.has_output_service())
    }

    /// Lets the shim go on in a new file under the log's name. When it returns, the file is there, and nothing is written to
    /// the one before any more; what was said went to either of them, whole lines to one.
    ///
    /// Unimplemented where the shim has no such service, FailedPrecondition where the output goes to no log of the shim's,
    /// NotFound where the log's directory is gone.
    pub async fn reopen_log(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let shim = self.find(namespace, id).await?;
        let request = ours::ReopenRequest { id: id.to_owned(), exec_id: String::new() };
        let reopened: Result<ours::ReopenResponse> = shim.output_call("Reopen", &request).await;
        reopened.map(drop).context(|| format!("reopen the log of {id}"))
    }

    /// Attaches to a process. Errors as of [`Runtime::reopen_log`].
    pub async fn attach(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        want: Attach,
    ) -> Result<Attached> {
        let shim = self.find(namespace, id).await?;
        let doing = || format!("attach to {id} {exec}").trim_end().to_owned();
        let stdout = want.stdout.then(Pipe::new).transpose().context(doing)?;
        let stderr = want.stderr.then(Pipe::new).transpose().context(doing)?;
        let path = |pipe: &Option<Pipe>| pipe.as_ref().map(Pipe::path).unwrap_or_default();
        let request = ours::AttachRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdout: path(&stdout),
            stderr: path(&stderr),
        };
        let answer: ours::AttachResponse = shim.output_call("Attach", &request).await.context(doing)?;
        let stdin =
            self.attach_input(namespace, (id, exec), &answer.stdin, want.stdin).await.context(doing)?;
        // Of our own writers nothing may be left, or the end would never come.
        let reader = |pipe: Option<Pipe>| pipe.map(|pipe| pipe.reader);
        let (stdout, stderr) = (reader(stdout), reader(stderr));
        let stderr = stderr.filter(|_| !answer.terminal);
        Ok(Attached { stdin, stdout, stderr, terminal: answer.terminal })
    }

    /// Attaches to the input of a process, which is the FIFO that `uri` names; none if the process has no input any more.
    pub async fn attach_input(
        &self,
        namespace: &Namespace,
        (id, exec): (&str, &str),
        uri: &str,
        want: Input,
    ) -> Result<Option<pipe::Sender>> {
        let stdin = match want {
            Input::None => None,
            Input::Open | Input::Once => open_input(uri).await?,
        };
        if stdin.is_some() && want == Input::Once {
            // The process now sees the end when we close, or are gone.
            self.close_io(namespace, id, exec).await?;
        }
        Ok(stdin)
    }
}

impl Shim {
    async fn output_call<Q: Message, R: Message + Default>(
        self: &Arc<Self>,
        method: &str,
        request: &Q,
    ) -> Result<R> {
        let namespace = self.key.namespace();
        let call = Call { service: api::ttrpc::OUTPUT, method, namespace, timeout: None };
        let payload = match self.connection.call(call, request.encode_to_vec()).await {
            Err(failure) if failure.is_unimplemented() => {
                let why = "its shim does not write logs itself: not implemented";
                return Err(Error::new(Class::Unimplemented, why));
            }
            // As for everything else that asks for a task whose shim has died.
            Err(Failure::Closed) => return Err(crate::shims::not_found(&self.key)),
            answered => answered?,
        };
        R::decode(payload.as_slice())
            .map_err(|e| Error::internal(format!("decode the answer of {method}: {e}")))
    }
}

/// A pipe that a shim is to write to. It has no name but ours: nothing is left of it, whoever dies.
struct Pipe {
    reader: pipe::Receiver,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        // A smaller one does as well.
        let _ = fcntl_setpipe_size(&writer, BEHIND);
        Ok(Self { reader: pipe::Receiver::from_owned_fd(reader)?, writer })
    }

    /// Under which the shim can open it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.writer.as_raw_fd())
    }
}

/// The FIFO of a process's input, for writing, if the process still has one.
async fn open_input(uri: &str) -> Result<Option<pipe::Sender>> {
    let Output::Path(path) = Output::parse(uri)? else { return Ok(None) };
    let open = move |path: PathBuf| {
        sys::fifo::open_writer_if_read(&path).context(|| format!("open standard input {}", path.display()))
    };
    match blocking(move || open(path)).await {
        Ok(fd) => Ok(fd.map(pipe::Sender::from_owned_fd).transpose()?),
        // Whoever made it has removed it: nobody can write any more.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
