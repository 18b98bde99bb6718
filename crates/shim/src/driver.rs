//! The driver of one container: performs what its state asks for, and feeds the state with what comes of it.
//!
//! Nothing here waits. Runtime calls and whatever may block are child processes; their ends come back through the loop as
//! [`Driver::runtime_ended`], [`Driver::offload_ended`] and [`Driver::process_ended`].

pub mod control;
mod create;
mod death;
mod exec;
mod handover;
mod output;
mod perform;
mod query;
mod start;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use sys::cgroup::Groups;
use sys::pidfd::Ended;
use types::{Error, Result};

use crate::call::{Answer, Exit};
use crate::children::Work;
use crate::context::Context;
use crate::effect::Checkpoint;
use crate::io::{PipeOwner, Plan, Stdio};
use crate::message;
use crate::runtime::{Run, Runtime, Task};
use crate::state::{Input, State};
use crate::streams::Owner;
use crate::terminal::Terminal;
use crate::timers::Deadline;

pub use create::Request as CreateRequest;
pub use handover::check;

/// How long a deletion waits for output to be delivered, as upstream.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the runtime may take over a deletion, and over what was begun before it. Then it hangs, and is killed.
const REMOVAL: Duration = Duration::from_secs(20);

/// One container.
pub struct Driver {
    id: String,
    bundle: PathBuf,
    runtime: Runtime,
    state: State,
    /// Whether there is a root filesystem of ours to be unmounted.
    rootfs: Option<PathBuf>,
    mounts: Vec<types::mount::Mount>,
    pipe_owner: PipeOwner,
    /// The image that it is made out of, or empty.
    restore: String,
    /// Where its processes are counted and limited, once it has one.
    groups: Option<Groups>,
    /// The checkpoint that the runtime is writing.
    checkpoint: Option<Checkpoint>,
    /// What came of it, while its traces are cleared up.
    checkpointed: Option<Result<()>>,
    /// What is known of its death.
    death: death::Death,
    /// Init under the empty id, and execs.
    processes: BTreeMap<String, Live>,
    /// Why it could not be created, while what was made of it is taken back.
    failed: Option<Error>,
    /// Its making was ended from outside.
    given_up: bool,
    gone: bool,
}

/// What belongs to a process beside its state.
struct Live {
    owner: Owner,
    stdio: Stdio,
    /// Its streams, until it has been made.
    plan: Option<Plan>,
    /// Its terminal, if it has one.
    console: Option<Rc<Terminal>>,
    /// Whether the client has closed its input, perhaps before there was a process.
    stdin_closed: bool,
    /// Its number among the children.
    child: Option<u64>,
}

impl Live {
    fn new(container: &str, exec: &str, stdio: Stdio) -> Self {
        let owner = Rc::new((container.to_owned(), exec.to_owned()));
        Self { owner, stdio, plan: None, console: None, stdin_closed: false, child: None }
    }
}

impl Driver {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the container is forgotten.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Its state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its state, to be changed.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// A runtime call has ended.
    pub fn runtime_ended(&mut self, cx: &mut Context, run: Run, ended: Ended) {
        let outcome = run.outcome(ended);
        match (run.task.clone(), outcome) {
            (task @ Task::Create, outcome) if self.given_up => {
                self.discard(cx, outcome.map_err(|failure| failure.into_error(&task)));
            }
            (Task::Discard, outcome) => self.discarded(cx, outcome.map_err(|f| f.into_error(&run.task))),
            (Task::Create, Ok(())) => self.created(cx),
            (Task::Restore, outcome) => {
                let result = outcome.map_err(|f| f.into_error(&run.task)).and_then(|()| self.restored(cx));
                self.feed(cx, Input::Started { exec: String::new(), result });
            }
            (task @ (Task::Pause | Task::Resume | Task::Update), outcome) => {
                self.feed(cx, Input::Controlled(outcome.map_err(|f| f.into_error(&task))));
            }
            (Task::Checkpoint, outcome) => self.checkpoint_ended(cx, outcome),
            (task @ Task::Thaw, outcome) => {
                if let Err(failure) = outcome {
                    cx.log.debug(&failure.into_error(&task).to_string(), &self.id);
                }
                self.feed(cx, Input::Thawed);
            }
            (task @ Task::Create, Err(failure)) => self.abort_create(cx, failure.into_error(&task)),
            (task @ Task::Start, outcome) => {
                let result = outcome.map(|()| self.state.init.pid).map_err(|f| f.into_error(&task));
                self.feed(cx, Input::Started { exec: String::new(), result });
            }
            (Task::Exec(exec), outcome) => {
                let failed = outcome.map_err(|f| f.into_error(&run.task));
                self.exec_ended(cx, exec, failed);
            }
            (task @ Task::Kill(call), outcome) => {
                // One that ended while the signal was on its way may be half forgotten by the runtime already.
                let ended = self.state.init_ended();
                let finished = || Error::not_found("process already finished: not found");
                let result = outcome.map_err(|f| if ended { finished() } else { f.into_error(&task) });
                cx.reply(call, result.map(|()| message::answer(&Answer::Empty)));
            }
            (task @ Task::KillAll, outcome) => {
                if let Err(failure) = outcome {
                    cx.log.error(&failure.into_error(&task).to_string(), &self.id);
                }
                self.feed(cx, Input::KilledAll);
            }
            (Task::Pids(call), outcome) => self.answer_pids(cx, call, &run, outcome),
            (task @ Task::Delete, outcome) => {
                cx.timers.clear(&Deadline::Removal(self.id.clone()));
                let result = match outcome {
                    Err(failure) if !failure.is_absence() => Err(failure.into_error(&task)),
                    Ok(()) | Err(_) => Ok(()),
                };
                self.feed(cx, Input::Removed(result));
            }
        }
    }

    /// Forked work has ended.
    pub fn offload_ended(&mut self, cx: &mut Context, work: Work, result: Result<Vec<u8>>) {
        match (work, result.map(drop)) {
            (Work::Mount, Ok(())) => self.launch(cx),
            (Work::Mount, Err(error)) => {
                // Nothing stays mounted when mounting fails.
                self.rootfs = None;
                self.abort_create(cx, error.context("failed to mount rootfs component"));
            }
            (Work::Unmount, result) => self.feed(cx, Input::Unmounted(result)),
            (Work::Controllers(pid), result) => {
                if let Err(error) = result {
                    cx.log.error(&format!("failed to enable controllers: {error}"), &self.id);
                }
                self.feed(cx, Input::Created(Ok(pid)));
            }
            // If it could not be made the runtime says why.
            (Work::CheckpointPlace, _) => self.checkpoint_begins(cx),
            (Work::Checkpoint, result) => self.checkpoint_tidied(cx, result),
            (Work::Record, result) => self.recorded(cx, result),
            // The shim answers whoever asked.
            (Work::Stats(_) | Work::Reopen(_), _) => {}
            (Work::Discard, result) => {
                if let Err(error) = result {
                    cx.log.warn(&format!("failed to cleanup rootfs mount: {error}"), &self.id);
                }
                self.rootfs = None;
                if let Some(error) = self.failed.take() {
                    self.abort_create(cx, error);
                }
            }
        }
    }

    /// One of its processes has ended.
    pub fn process_ended(&mut self, cx: &mut Context, exec: String, ended: Ended) {
        if cx.watches.is_due(&self.id) {
            self.feed(cx, Input::OutOfMemory);
        }
        if let Some(live) = self.processes.get_mut(&exec) {
            live.child = None;
            let owner = Rc::clone(&live.owner);
            for owner in cx.end_streams(&owner) {
                self.stream_closed(cx, &owner.1);
            }
        }
        if exec.is_empty() {
            self.death.ended = Some(ended);
        }
        self.feed(cx, Input::Exited { exec, exit: Exit::now(ended.status()) });
    }

    /// A stream of one of its processes has come to its end, or waits for a reader.
    pub fn stream_closed(&mut self, cx: &mut Context, exec: &str) {
        let Some(live) = self.processes.get(exec) else { return };
        let deadline = self.drain_deadline(exec);
        let delivered = cx.timers.has(&deadline) && cx.is_drained(&live.owner);
        if delivered && !(exec.is_empty() && self.death.is_being_written()) {
            cx.timers.clear(&deadline);
            self.feed(cx, Input::Drained { exec: exec.to_owned() });
        }
    }

    /// A deletion has waited long enough for output to be delivered.
    pub fn drain_expired(&mut self, cx: &mut Context, exec: String) {
        if let Some(live) = self.processes.get(&exec) {
            cx.log.error("failed to drain process io in time", &self.id);
            cx.abandon(&live.owner);
        }
        self.feed(cx, Input::Drained { exec });
    }

    fn drain_deadline(&self, exec: &str) -> Deadline {
        Deadline::Drain { container: self.id.clone(), exec: exec.to_owned() }
    }

    fn drain(&mut self, cx: &mut Context, exec: String, inputs: &mut VecDeque<Input>) {
        let delivered = self.processes.get(&exec).is_none_or(|live| cx.is_drained(&live.owner));
        // Whoever wants the record finds it when the task is gone.
        if delivered && !(exec.is_empty() && self.death.is_being_written()) {
            inputs.push_back(Input::Drained { exec });
        } else {
            cx.timers.set(DRAIN, self.drain_deadline(&exec));
        }
    }
}
