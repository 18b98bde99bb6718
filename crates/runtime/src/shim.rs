//! One task as its shim serves it: typed calls over the shim's connection.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::containerd::task::v3 as wire;
use prost::Message;
use sys::pidfd::PidFd;
use tokio::sync::{Mutex, watch};
use types::task::{Deleted, Exit, Status};
use types::{Error, Result};

use crate::bootstrap::{Bootstrap, NEWEST};
use crate::bundle::Bundle;
use crate::key::TaskKey;
use crate::log::ShimLog;
use crate::ttrpc::{Call, Client, Failure};

/// What also ends a task that is only being made.
const SIGKILL: u32 = 9;

/// A task and the way to its shim.
///
/// Whoever takes it out of the table (`shims::Table::take`) owns its end and calls [`Shim::finished`] when nothing of
/// it is left.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) key: TaskKey,
    pub(crate) bundle: Bundle,
    /// The program, for `delete` once its process is gone.
    pub(crate) binary: PathBuf,
    /// How it is reached, as in the bundle.
    pub(crate) bootstrap: Bootstrap,
    pub(crate) connection: Arc<Client>,
    /// Whether the shim makes it by its sandbox service.
    pub(crate) is_sandbox: bool,
    /// Whether somebody who is not ours serves it (see [`crate::endpoint`]).
    pub(crate) is_served: bool,
    /// Held while Create is under way, so that a death in this moment is told from one after it.
    pub(crate) creating: Mutex<()>,
    /// Held while Delete is under way, so that the shim's farewell is not taken for its death.
    pub(crate) deleting: Mutex<()>,
    created: AtomicBool,
    version: AtomicI32,
    pid: AtomicU32,
    /// The container's init, known by more than its number.
    init: OnceLock<PidFd>,
    end: watch::Sender<Option<Deleted>>,
    _log: ShimLog,
}

impl Shim {
    pub(crate) fn new(key: TaskKey, bundle: Bundle, binary: PathBuf, link: Link) -> Self {
        let (is_sandbox, is_served) = (bundle.is_sandbox(), bundle.is_served());
        Self {
            key,
            bundle,
            binary,
            is_sandbox,
            is_served,
            connection: link.connection,
            creating: Mutex::default(),
            deleting: Mutex::default(),
            created: AtomicBool::new(false),
            version: AtomicI32::new(link.bootstrap.version),
            bootstrap: link.bootstrap,
            pid: AtomicU32::new(0),
            init: OnceLock::new(),
            end: watch::Sender::new(None),
            _log: link.log,
        }
    }

    /// Whether it writes logs itself, as it said when it was started.
    pub(crate) fn has_output_service(&self) -> bool {
        self.bootstrap.has(api::ttrpc::OUTPUT)
    }

    /// Notes that the task exists, with the pid of its init.
    pub(crate) fn set_created(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.created.store(true, Ordering::Release);
    }

    /// Gets hold of the container's init, to ask the kernel how it ended when the shim cannot be asked any more.
    ///
    /// A number may be another process's by now. If the shim has it for a process that has not ended after we have opened
    /// it, it was the right one all the time: the shim had not collected it yet.
    pub(crate) async fn hold_init(&self, timeout: Duration) {
        if self.is_served {
            // It may be a number of another machine's.
            return;
        }
        let Ok(init) = PidFd::open(self.pid()) else { return };
        let Ok(state) = self.state("", timeout).await else { return };
        if state.pid == init.pid() && api::convert::task_status(state.status) != Status::Stopped {
            let _ = self.init.set(init);
        }
    }

    /// The container's init, if we hold it.
    pub(crate) fn init(&self) -> Option<&PidFd> {
        self.init.get()
    }

    /// Whether clients were told of the task: only then is its end told too.
    pub(crate) fn is_created(&self) -> bool {
        self.created.load(Ordering::Acquire)
    }

    /// The last pid the shim told; 0 if it never did.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Nothing of the task is left.
    pub(crate) fn finished(&self, deleted: Deleted) {
        self.end.send_replace(Some(deleted));
    }

    /// Waits until nothing of the task is left, and says how it ended. Cancel safe.
    pub(crate) async fn end(&self) -> Deleted {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        // The sender lives as long as `self`, so there is always a value.
        ended.ok().and_then(|deleted| *deleted).unwrap_or_else(|| lost(self.pid()))
    }

    /// One call of the task service.
    pub(crate) async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, Failure> {
        let service = match self.version.load(Ordering::Relaxed) {
            2 => "containerd.task.v2.Task",
            _ => "containerd.task.v3.Task",
        };
        let call = Call { service, method, namespace: self.key.namespace(), timeout };
        let payload = self.connection.call(call, request.encode_to_vec()).await?;
        R::decode(payload.as_slice())
            .map_err(|e| Failure::Answer(Error::internal(format!("decode the answer of {method}: {e}"))))
    }

    /// As [`Shim::call`]; a shim that does not know the newest task service is asked again by the one before, and from
    /// then on (one from 1.7 that was still running when a newer binary answered its `start`).
    pub(crate) async fn first_call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, Failure> {
        match self.call(method, request, timeout).await {
            Err(failure) if failure.is_unimplemented() && self.version.load(Ordering::Relaxed) == NEWEST => {
                tracing::warn!(task = %self.key, method, "downgrading client API version to try again");
                self.version.store(NEWEST - 1, Ordering::Relaxed);
                self.call(method, request, timeout).await
            }
            answered => answered,
        }
    }

    /// Asks for the state of init, or of an exec process.
    pub(crate) async fn state(&self, exec: &str, timeout: Duration) -> Result<wire::StateResponse, Failure> {
        let request = wire::StateRequest { id: self.key.id().to_owned(), exec_id: exec.to_owned() };
        let state: wire::StateResponse = self.first_call("State", &request, Some(timeout)).await?;
        if exec.is_empty() {
            self.pid.store(state.pid, Ordering::Relaxed);
        }
        Ok(state)
    }

    /// Asks whether the task, or the sandbox, is there.
    pub(crate) async fn is_known(&self, timeout: Duration) -> Result<(), Failure> {
        if !self.is_sandbox {
            return self.state("", timeout).await.map(drop);
        }
        let status = self.sandbox_status(false, timeout).await?;
        self.pid.store(status.pid, Ordering::Relaxed);
        Ok(())
    }

    /// Asks the shim to forget the task or the exec process.
    pub(crate) async fn delete(&self, exec: &str, timeout: Option<Duration>) -> Result<Deleted, Failure> {
        let request = wire::DeleteRequest { id: self.key.id().to_owned(), exec_id: exec.to_owned() };
        let response: wire::DeleteResponse = self.call("Delete", &request, timeout).await?;
        let exit = Exit { status: response.exit_status, at: api::convert::time(response.exited_at) };
        Ok(Deleted { pid: response.pid, exit })
    }

    /// Ends the making of a task that hangs. Only our shim knows how: to upstream's it is a signal for nobody.
    pub(crate) async fn end_creation(&self, timeout: Duration) -> Result<(), Failure> {
        let id = self.key.id().to_owned();
        let request = wire::KillRequest { id, exec_id: String::new(), signal: SIGKILL, all: false };
        self.call("Kill", &request, Some(timeout)).await
    }

    /// Whether the task is being made at the moment, by this daemon.
    pub(crate) fn is_being_made(&self) -> bool {
        // The lock alone is also held for moments by who waits for it.
        !self.is_created() && self.creating.try_lock().is_err()
    }

    /// Asks the shim to go, which it does unless other containers need it.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> Result<(), Failure> {
        let request = wire::ShutdownRequest { id: self.key.id().to_owned(), now: false };
        match self.call::<_, ()>("Shutdown", &request, Some(timeout)).await {
            Ok(()) | Err(Failure::Closed) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// What ties a task to its shim's process.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) connection: Arc<Client>,
    pub(crate) log: ShimLog,
}

/// The end of a task of which nobody knows how it ended.
pub(crate) fn lost(pid: u32) -> Deleted {
    Deleted { pid, exit: Exit { status: 255, at: std::time::SystemTime::now() } }
}
