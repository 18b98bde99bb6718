//! The tasks of this machine: most calls find the task and pass the request on to its shim.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::containerd::task::v3 as wire;
use prost::Message;
use tokio::sync::Semaphore;
use types::events::Exchange;
use types::labels::Labels;
use types::namespace::validate_identifier;
use types::task::{Deleted, Exec, Exit, Pid, Process, Status, Stdio};
use types::{Any, Class, Error, Namespace, Result, crash};

use crate::bundle::Layout;
use crate::connect::Connections;
use crate::key::TaskKey;
use crate::launch::{DELETIONS, Launcher};
use crate::pause::Asked;
use crate::shim::Shim;
use crate::shims::{Table, not_found};
use crate::ttrpc::Failure;

/// Where things are, and whom shims should talk to.
#[derive(Clone)]
pub struct Options {
    /// The daemon's root directory.
    pub root: PathBuf,
    /// The daemon's state directory.
    pub state: PathBuf,
    /// The path of the daemon's gRPC socket.
    pub address: String,
    /// The path of the daemon's ttrpc socket, to which shims send their events.
    pub ttrpc_address: String,
    /// The daemon's own program, which old shims call to publish events.
    pub binary: PathBuf,
    /// Where shims should put their sockets; None leaves it to them.
    pub socket_dir: Option<PathBuf>,
    /// `NAME=value` pairs for all shims.
    pub env: Vec<String>,
    /// Where the end of a shim is published.
    pub events: Exchange,
    /// Whether shims should log more.
    pub debug: bool,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
}

/// How long to wait for shims.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the answer of `start`.
    pub start: Duration,
    /// For a shim to be found again after a restart (`io.containerd.timeout.shim.load`).
    pub load: Duration,
    /// For what a shim left behind to be cleaned (`io.containerd.timeout.shim.cleanup`).
    pub cleanup: Duration,
    /// For a shim to go (`io.containerd.timeout.shim.shutdown`).
    pub shutdown: Duration,
    /// For the state of a process (`io.containerd.timeout.task.state`).
    pub state: Duration,
    /// For metrics (`io.containerd.timeout.metrics.shimstats`).
    pub stats: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            start: seconds(30),
            load: seconds(5),
            cleanup: seconds(5),
            shutdown: seconds(3),
            state: seconds(2),
            stats: seconds(2),
        }
    }
}

/// What a shim says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The shim's pid.
    pub shim_pid: u32,
    /// The pid of the container's init.
    pub task_pid: u32,
    /// The shim's version.
    pub version: String,
}

/// A signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: u32,
    /// To all processes of the container instead of one.
    pub all: bool,
}

/// New limits for a container.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// For the shim, untouched.
    pub resources: Option<Any>,
    /// For the shim, untouched.
    pub annotations: Labels,
}

/// Where a checkpoint goes.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// A directory.
    pub path: String,
    /// For the shim, untouched.
    pub options: Option<Any>,
}

/// The tasks. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) launcher: Launcher,
    pub(crate) timeouts: Timeouts,
    pub(crate) events: Exchange,
    pub(crate) table: Table,
    pub(crate) connections: Connections,
    /// The program of sandboxes that was found last.
    pub(crate) pause: tokio::sync::Mutex<Option<Asked>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Finds the tasks that are running already. It returns at once; who asks for a task whose shim has not answered
    /// yet waits for that one alone.
    pub async fn open(options: Options) -> Result<Self> {
        let layout = Layout::new(&options.root, &options.state);
        let launcher = Launcher {
            address: options.address,
            ttrpc_address: options.ttrpc_address,
            binary: options.binary,
            socket_dir: options.socket_dir,
            env: options.env,
            debug: options.debug,
            deletions: Semaphore::new(DELETIONS),
        };
        let inner = Inner {
            layout: layout.clone(),
            launcher,
            timeouts: options.timeouts,
            events: options.events,
            table: Table::default(),
            connections: Connections::default(),
            pause: tokio::sync::Mutex::default(),
        };
        let runtime = Self { inner: Arc::new(inner) };
        let state = options.state;
        let events = runtime.inner.events.clone();
        blocking(move || {
            crate::bundle::check_state(&state)?;
            layout.prepare()?;
            crate::repeats::remember(&events, &layout.state)
        })
        .await?;
        runtime.load().await?;
        Ok(runtime)
    }

    /// Waits until the shims that a daemon before has left are found, or have had their time.
    pub async fn loaded(&self) {
        self.inner.table.loaded().await;
    }

    /// The ids of the tasks of a namespace.
    pub fn list(&self, namespace: &Namespace) -> Vec<String> {
        self.inner.table.ids(namespace)
    }

    /// The state of init, or of an exec process. A shim that does not answer in time, or not with a state, leaves the
    /// status unknown.
    pub async fn state(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Process> {
        let key = TaskKey::new(namespace, id)?;
        let limit = self.inner.timeouts.state;
        let unknown = |pid| Process {
            container: id.to_owned(),
            exec: exec.to_owned(),
            pid,
            status: Status::Unknown,
            stdio: Stdio::default(),
            exit: None,
        };
        // A shim that is being looked for counts as one that does not answer.
        let Ok(found) = tokio::time::timeout(limit, self.inner.table.get(&key)).await else {
            return Ok(unknown(0));
        };
        let shim = match found {
            Err(error) if error.class() == Class::Unavailable => return Ok(unknown(0)),
            found => found?,
        };
        // One that was asked before the task was made has said nothing about what is there now.
        let made = shim.is_created();
        match shim.state(exec, limit).await {
            Ok(state) => Ok(process(state, unknown(0))),
            Err(Failure::Closed) => Err(not_found(&key)),
            // Its making may hang, and then it has to be seen before it can be ended.
            Err(failure) if failure.is_not_found() && exec.is_empty() && !made => {
                let known = shim.is_being_made() || shim.is_created();
                if known { Ok(unknown(shim.pid())) } else { Err(failure.into()) }
            }
            Err(failure) if failure.is_not_found() => {
                // Not every shim of a sandbox knows that as a task too.
                if exec.is_empty() && !shim.is_sandbox {
                    self.forget(&shim);
                }
                Err(failure.into())
            }
            Err(failure) => {
                let error = Error::from(failure);
                tracing::warn!(task = %key, exec, %error, "state unknown");
                Ok(unknown(if exec.is_empty() { shim.pid() } else { 0 }))
            }
        }
    }

    /// Starts init, or an exec process, and returns its pid.
    pub async fn start(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<u32> {
        let request = wire::StartRequest { id: id.to_owned(), exec_id: exec.to_owned() };
        let response: wire::StartResponse = self.pass(namespace, "Start", request).await?;
        crash::point("started");
        Ok(response.pid)
    }

    /// Adds an exec process.
    pub async fn exec(&self, namespace: &Namespace, id: &str, exec: Exec) -> Result<()> {
        validate_identifier(&exec.id).map_err(|e| e.context(format!("invalid exec id {}", exec.id)))?;
        let request = wire::ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec.id,
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin,
            stdout: exec.stdio.stdout,
            stderr: exec.stdio.stderr,
            spec: exec.process.map(api::any::to_wire),
        };
        self.pass(namespace, "Exec", request).await
    }

    /// Sends a signal to init, to an exec process, or to all processes of the container.
    pub async fn kill(&self, namespace: &Namespace, id: &str, exec: &str, signal: Signal) -> Result<()> {
        let Signal { number: signal, all } = signal;
        let request = wire::KillRequest { id: id.to_owned(), exec_id: exec.to_owned(), signal, all };
        self.pass(namespace, "Kill", request).await
    }

    /// Waits for the end of init or of an exec process. Cancel safe. A shim that dies meanwhile is an end too.
    pub async fn wait(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Exit> {
        let shim = self.inner.table.get_reached(&TaskKey::new(namespace, id)?).await?;
        // One that is being made has an end as well, perhaps this one.
        drop(shim.creating.lock().await);
        let request = wire::WaitRequest { id: id.to_owned(), exec_id: exec.to_owned() };
        match shim.call::<_, wire::WaitResponse>("Wait", &request, None).await {
            Ok(response) => {
                Ok(Exit { status: response.exit_status, at: api::convert::time(response.exited_at) })
            }
            Err(Failure::Closed) => Ok(shim.end().await.exit),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Forgets an exec process that has ended.
    pub async fn delete_process(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Deleted> {
        Ok(self.find(namespace, id).await?.delete(exec, None).await?)
    }

    /// The processes in the container.
    pub async fn pids(&self, namespace: &Namespace, id: &str) -> Result<Vec<Pid>> {
        let response: wire::PidsResponse =
            self.pass(namespace, "Pids", wire::PidsRequest { id: id.to_owned() }).await?;
        let pid = |p: api::containerd::v1::types::ProcessInfo| Pid {
            pid: p.pid,
            info: p.info.map(api::any::from_wire),
        };
        Ok(response.processes.into_iter().map(pid).collect())
    }

    /// Closes the stdin of a process.
    pub async fn close_io(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<()> {
        let request = wire::CloseIoRequest { id: id.to_owned(), exec_id: exec.to_owned(), stdin: true };
        self.pass(namespace, "CloseIO", request).await
    }

    /// Changes the size of a process's terminal; columns and rows.
    pub async fn resize_pty(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        size: (u32, u32),
    ) -> Result<()> {
        let request = wire::ResizePtyRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            width: size.0,
            height: size.1,
        };
        self.pass(namespace, "ResizePty", request).await
    }

    /// Asks the shim who it is.
    pub async fn connect(&self, namespace: &Namespace, id: &str) -> Result<Connected> {
        let response: wire::ConnectResponse =
            self.pass(namespace, "Connect", wire::ConnectRequest { id: id.to_owned() }).await?;
        let (shim_pid, task_pid) = (response.shim_pid, response.task_pid);
        Ok(Connected { shim_pid, task_pid, version: response.version })
    }

    /// Freezes the container.
    pub async fn pause(&self, namespace: &Namespace, id: &str) -> Result<()> {
        self.pass(namespace, "Pause", wire::PauseRequest { id: id.to_owned() }).await
    }

    /// Thaws the container.
    pub async fn resume(&self, namespace: &Namespace, id: &str) -> Result<()> {
        self.pass(namespace, "Resume", wire::ResumeRequest { id: id.to_owned() }).await
    }

    /// Changes the container's limits.
    pub async fn update(&self, namespace: &Namespace, id: &str, update: Update) -> Result<()> {
        let request = wire::UpdateTaskRequest {
            id: id.to_owned(),
            resources: update.resources.map(api::any::to_wire),
            annotations: update.annotations,
        };
        self.pass(namespace, "Update", request).await
    }

    /// Writes the container's processes to a directory.
    pub async fn checkpoint(&self, namespace: &Namespace, id: &str, checkpoint: Checkpoint) -> Result<()> {
        let request = wire::CheckpointTaskRequest {
            id: id.to_owned(),
            path: checkpoint.path,
            options: checkpoint.options.map(api::any::to_wire),
        };
        self.pass(namespace, "Checkpoint", request).await
    }

    /// The container's resource usage, as the shim measures it.
    pub async fn stats(&self, namespace: &Namespace, id: &str) -> Result<Option<Any>> {
        let shim = self.find(namespace, id).await?;
        let request = wire::StatsRequest { id: id.to_owned() };
        let response: wire::StatsResponse =
            shim.call("Stats", &request, Some(self.inner.timeouts.stats)).await?;
        Ok(response.stats.map(api::any::from_wire))
    }

    pub(crate) async fn find(&self, namespace: &Namespace, id: &str) -> Result<Arc<Shim>> {
        self.inner.table.get(&TaskKey::new(namespace, id)?).await
    }

    /// Passes a request with an `id` on to its shim, for as long as that takes.
    async fn pass<Q: TaskRequest, R: Message + Default>(
        &self,
        namespace: &Namespace,
        method: &str,
        request: Q,
    ) -> Result<R> {
        let shim = self.find(namespace, request.task()).await?;
        Ok(shim.call(method, &request, None).await?)
    }
}

/// Requests that name their task.
trait TaskRequest: Message {
    fn task(&self) -> &str;
}

macro_rules! task_requests {
    ($($name:ident)*) => {
        $(impl TaskRequest for wire::$name {
            fn task(&self) -> &str {
                &self.id
            }
        })*
    };
}

task_requests! {
    StartRequest ExecProcessRequest KillRequest PidsRequest CloseIoRequest ResizePtyRequest ConnectRequest
    PauseRequest ResumeRequest UpdateTaskRequest CheckpointTaskRequest
}

/// The state that a shim told, with the names that were asked for.
fn process(state: wire::StateResponse, asked: Process) -> Process {
    let status = api::convert::task_status(state.status);
    let exit = Exit { status: state.exit_status, at: api::convert::time(state.exited_at) };
    Process {
        pid: state.pid,
        status,
        stdio: Stdio {
            stdin: state.stdin,
            stdout: state.stdout,
            stderr: state.stderr,
            terminal: state.terminal,
        },
        exit: (status == Status::Stopped).then_some(exit),
        ..asked
    }
}

/// Runs what may block on a disk away from the tasks that serve requests.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("file operation did not end: {e}"))))
}
