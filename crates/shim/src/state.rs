//! What may happen to a container, and in what order: a pure function from a state and an input to effects.
//!
//! ```text
//!  init:   Creating --Created--> Created --Start--> Starting --Started--> Running --Exited--> Stopped --Delete--> gone
//!                                                                         |     ^               ^
//!                                                                       Pause  Resume           |
//!                                                                         v     |               |
//!                                                                          Paused ----Exited----+
//!  exec:                         Created --Start--> Starting --Started--> Running --Exited--> Stopped --Delete--> gone
//! ```
//!
//! What always holds:
//! - events leave in the order created < started < exited < deleted, and those of execs before that of init;
//! - an exit that arrives while Start still runs is told after it (`early`);
//! - that memory ran out is told before the exit that it led to;
//! - init's exit is held until every exec that runs or starts was told, and, where the process namespace is shared,
//!   until the container's other processes were killed (`held`, `killing`);
//! - an exit code stays until Delete; a Delete that fails can be repeated;
//! - every call is answered exactly once, unless its client has gone.
//!
//! No clock, no descriptor, no process here: the driver performs the effects.

mod control;
mod deletion;
mod handover;

use std::collections::{BTreeMap, VecDeque};

use types::{Error, Result};

use crate::call::{Answer, Call, Event, Exit};
pub use crate::effect::{Control, Effect, Input};
use control::Verb;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The runtime is making the container.
    Creating,
    /// It exists and does not run yet.
    Created,
    /// The runtime is starting it; perhaps it has ended already.
    Starting {
        /// The exit that arrived before the start was done.
        early: Option<Exit>,
    },
    /// It runs.
    Running,
    /// It is frozen; an exec never is, by itself.
    Paused,
    /// It has ended and was told.
    Stopped(Exit),
}

/// Init, or an exec.
#[derive(Debug)]
pub struct Process {
    /// See [`Phase`].
    pub phase: Phase,
    /// Its number on the host, 0 before it has one.
    pub pid: u32,
    /// Whoever waits for the operation that runs (Create, Start).
    pending: Option<Call>,
    /// Whoever waits for its end.
    waits: Vec<Call>,
    /// Whoever waits for its deletion.
    deletes: Vec<Call>,
    /// Whether its output was delivered, or given up, since Delete asked.
    drained: bool,
}

impl Process {
    fn new(phase: Phase) -> Self {
        Self { phase, pid: 0, pending: None, waits: Vec::new(), deletes: Vec::new(), drained: false }
    }

    /// How it ended, once that was told.
    pub fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Stopped(exit) => Some(exit),
            Phase::Creating | Phase::Created | Phase::Starting { .. } | Phase::Running | Phase::Paused => {
                None
            }
        }
    }

    /// Whether the operation that runs is for this call.
    pub fn is_pending_for(&self, call: Call) -> bool {
        self.pending == Some(call)
    }

    fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Running | Phase::Paused)
    }
}

/// What the bundle says about how this container ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Its processes outlive init: kill them.
    pub kill_all_on_exit: bool,
    /// Nobody can tell whether the runtime forgets it when it ends or at Delete, so do it at once, when it costs no one time.
    pub eager_removal: bool,
    /// It is made out of a checkpoint: there is no process before Start.
    pub restored: bool,
}

/// How far a step of the container's deletion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Not,
    /// Somebody wants it, and something has to end first.
    Wanted,
    Running,
    Done,
}

/// One container.
#[derive(Debug)]
pub struct State {
    id: String,
    policy: Policy,
    /// The container's first process.
    pub init: Process,
    /// The processes added to it.
    pub execs: BTreeMap<String, Process>,
    held: Option<Exit>,
    killing: bool,
    /// The operation on the container that runs, and who waits for it.
    control: Option<(Verb, Call)>,
    /// Those that wait for their turn.
    controls: VecDeque<(Control, Call)>,
    /// The runtime lets go of the processes of a container that ended while it was paused.
    thawing: bool,
    /// The runtime forgets the container.
    removal: Step,
    removal_error: Option<Error>,
    /// The root filesystem is unmounted.
    unmount: Step,
    unmount_error: Option<Error>,
}

/// Of Linux, everywhere.
const SIGKILL: u32 = 9;

fn precondition(what: &str) -> Error {
    Error::precondition(what)
}

fn no_exec(exec: &str) -> Error {
    Error::not_found(format!("process does not exist {exec}: not found"))
}

impl State {
    /// A container that is being made for `call`.
    pub fn new(id: String, policy: Policy, call: Call) -> Self {
        let mut init = Process::new(Phase::Creating);
        init.pending = Some(call);
        Self {
            id,
            policy,
            init,
            execs: BTreeMap::new(),
            held: None,
            killing: false,
            control: None,
            controls: VecDeque::new(),
            thawing: false,
            removal: Step::Not,
            removal_error: None,
            unmount: Step::Not,
            unmount_error: None,
        }
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut todo = Vec::new();
        match input {
            Input::Created(result) => self.created(result, &mut todo),
            Input::Start { exec, call } => self.start(exec, call, &mut todo),
            Input::Started { exec, result } => self.started(&exec, result, &mut todo),
            Input::Exited { exec, exit } => self.exited(&exec, exit, &mut todo),
            Input::KilledAll => {
                self.killing = false;
                self.release(&mut todo);
            }
            Input::Kill { exec, signal, all, call } => {
                let is_end = exec.is_empty() && signal == SIGKILL && self.init.phase == Phase::Paused;
                todo.push(self.kill(exec, signal, all, call));
                // A process that is frozen does not even die, and not every runtime sees to that.
                if is_end && !self.init_ended() {
                    self.thaw(&mut todo);
                }
            }
            Input::Exec { exec, call } => self.exec(exec, call, &mut todo),
            Input::Wait { exec, call } => self.wait(&exec, call, &mut todo),
            Input::Delete { exec, call } => self.delete(&exec, call, &mut todo),
            Input::Drained { exec } => {
                if let Some(process) = self.process_mut(&exec) {
                    process.drained = true;
                    self.finish_delete(&exec, &mut todo);
                }
            }
            Input::Removed(result) => self.removed(result, &mut todo),
            Input::Control { what, call } => self.control(what, call, &mut todo),
            Input::Controlled(result) => self.controlled(result, &mut todo),
            Input::Thawed => self.thawed(&mut todo),
            Input::OutOfMemory if self.init.exit().is_none() => {
                todo.push(Effect::Publish(Event::OutOfMemory));
            }
            Input::OutOfMemory => {}
            Input::Unmounted(result) => self.unmounted(result, &mut todo),
        }
        todo
    }

    /// Forgets a parked Wait, whose client has gone or waited long enough. Whether there was one.
    pub fn cancel_wait(&mut self, call: Call) -> bool {
        let mut found = false;
        for process in self.execs.values_mut().chain([&mut self.init]) {
            let before = process.waits.len();
            process.waits.retain(|wait| *wait != call);
            found |= process.waits.len() != before;
        }
        found
    }

    /// Forgets all parked Waits of a client that has gone.
    pub fn cancel_client(&mut self, client: u64) {
        for process in self.execs.values_mut().chain([&mut self.init]) {
            process.waits.retain(|wait| wait.client != client);
        }
    }

    /// A process by exec id, init by an empty one.
    pub fn process(&self, exec: &str) -> Result<&Process> {
        if exec.is_empty() { Ok(&self.init) } else { self.execs.get(exec).ok_or_else(|| no_exec(exec)) }
    }

    /// Whether init has ended, told or not.
    pub fn init_ended(&self) -> bool {
        let early = matches!(self.init.phase, Phase::Starting { early: Some(_) });
        early || self.held.is_some() || self.init.exit().is_some()
    }

    fn process_mut(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec) }
    }

    fn created(&mut self, result: Result<u32>, todo: &mut Vec<Effect>) {
        let Some(call) = self.init.pending.take() else { return };
        match result {
            Ok(pid) => {
                self.init.pid = pid;
                self.init.phase = Phase::Created;
                todo.push(Effect::Publish(Event::Created { pid }));
                todo.push(Effect::Reply(call, Ok(Answer::Pid(pid))));
            }
            Err(error) => {
                todo.push(Effect::Reply(call, Err(error)));
                todo.push(Effect::Forget);
            }
        }
    }

    fn start(&mut self, exec: String, call: Call, todo: &mut Vec<Effect>) {
        let refuse = |why: Error| Effect::Reply(call, Err(why));
        if !exec.is_empty() && self.init_ended() {
            let why = format!("container {} init process is not running: failed precondition", self.id);
            todo.push(refuse(precondition(&why)));
            return;
        }
        let (restored, ended_untold) = (self.policy.restored, exec.is_empty() && self.held.is_some());
        let Some(process) = self.process_mut(&exec) else {
            todo.push(refuse(no_exec(&exec)));
            return;
        };
        let why = match process.phase {
            _ if ended_untold => "cannot start a stopped process",
            Phase::Created if process.deletes.is_empty() => {
                process.phase = Phase::Starting { early: None };
                process.pending = Some(call);
                todo.push(match exec.as_str() {
                    "" if restored => Effect::Restore,
                    "" => Effect::Start,
                    _ => Effect::StartExec(exec),
                });
                return;
            }
            Phase::Created => "cannot start a deleted process",
            Phase::Creating => "cannot start a process that is not created",
            Phase::Starting { .. } | Phase::Running => "cannot start a running process",
            Phase::Paused => "cannot start a paused process",
            Phase::Stopped(_) => "cannot start a stopped process",
        };
        todo.push(refuse(precondition(why)));
    }

    fn started(&mut self, exec: &str, result: Result<u32>, todo: &mut Vec<Effect>) {
        let Some(process) = self.process_mut(exec) else { return };
        let Phase::Starting { early } = process.phase else { return };
        let call = process.pending.take();
        match result {
            Ok(pid) => {
                process.phase = Phase::Running;
                process.pid = pid;
                let event = match exec {
                    "" => Event::Started { pid },
                    exec => Event::ExecStarted { exec: exec.to_owned(), pid },
                };
                todo.push(Effect::Publish(event));
                todo.extend(call.map(|call| Effect::Reply(call, Ok(Answer::Pid(pid)))));
            }
            Err(error) => {
                process.phase = Phase::Created;
                todo.extend(call.map(|call| Effect::Reply(call, Err(error))));
                if !exec.is_empty() {
                    // As upstream: whoever waited for a process that never ran learns that there is nothing to wait for.
                    let waits = std::mem::take(&mut process.waits);
                    todo.extend(waits.into_iter().map(|w| Effect::Reply(w, Ok(Answer::Exit(Exit::NEVER)))));
                }
            }
        }
        match early {
            Some(exit) => self.exited(exec, exit, todo),
            // An exec that could not start no longer holds init's exit back.
            None => self.release(todo),
        }
        self.next_control(todo);
    }

    fn exited(&mut self, exec: &str, exit: Exit, todo: &mut Vec<Effect>) {
        let Some(process) = self.process_mut(exec) else { return };
        match &mut process.phase {
            Phase::Starting { early } => *early = Some(exit),
            Phase::Creating | Phase::Stopped(_) => {}
            Phase::Created | Phase::Running | Phase::Paused if exec.is_empty() => {
                self.held = Some(exit);
                if self.policy.kill_all_on_exit {
                    self.killing = true;
                    todo.push(Effect::KillAll);
                }
                self.release(todo);
            }
            Phase::Created | Phase::Running | Phase::Paused => {
                self.tell_exit(exec, exit, todo);
                self.release(todo);
            }
        }
    }

    /// Tells init's exit, if nothing holds it back any more.
    fn release(&mut self, todo: &mut Vec<Effect>) {
        let waiting = self.killing || self.execs.values().any(Process::is_alive);
        if waiting {
            return;
        }
        let Some(exit) = self.held.take() else { return };
        let paused = self.init.phase == Phase::Paused;
        self.tell_exit("", exit, todo);
        if paused {
            self.thaw(todo);
        }
        if self.removal == Step::Not && self.policy.eager_removal {
            self.removal = Step::Wanted;
            self.remove_if_due(todo);
        }
        self.finish_delete("", todo);
    }

    fn tell_exit(&mut self, exec: &str, exit: Exit, todo: &mut Vec<Effect>) {
        let Some(process) = self.process_mut(exec) else { return };
        process.phase = Phase::Stopped(exit);
        todo.push(Effect::Publish(Event::Exited { exec: exec.to_owned(), pid: process.pid, exit }));
        let waits = std::mem::take(&mut process.waits);
        todo.extend(waits.into_iter().map(|wait| Effect::Reply(wait, Ok(Answer::Exit(exit)))));
    }

    fn kill(&self, exec: String, signal: u32, all: bool, call: Call) -> Effect {
        let refuse = |why: Error| Effect::Reply(call, Err(why));
        let finished = || refuse(Error::not_found("process already finished: not found"));
        if exec.is_empty() {
            return if self.init_ended() { finished() } else { Effect::Kill { signal, all, call } };
        }
        match self.execs.get(&exec).map(|p| (p.phase, p.pid)) {
            None => refuse(no_exec(&exec)),
            Some((Phase::Stopped(_) | Phase::Starting { early: Some(_) }, _)) => finished(),
            Some((_, 0)) => refuse(precondition("process not created: failed precondition")),
            Some(_) => Effect::Signal { exec, signal, call },
        }
    }

    fn exec(&mut self, exec: String, call: Call, todo: &mut Vec<Effect>) {
        let refused = if self.execs.contains_key(&exec) {
            Some(Error::already_exists(format!("id {exec}: already exists")))
        } else if self.init.exit().is_some() {
            // As long as init's exit is untold the container is running to everybody; starting the exec says otherwise.
            Some(Error::unknown("cannot exec in a stopped state"))
        } else if self.init.phase == Phase::Paused || self.is_pausing() {
            Some(Error::unknown("cannot exec in a paused state"))
        } else if self.policy.restored && self.init.phase == Phase::Created {
            Some(Error::unknown("cannot exec in a created state"))
        } else if !self.init.deletes.is_empty() {
            Some(Error::unknown("cannot exec in a deleted state"))
        } else {
            None
        };
        if let Some(error) = refused {
            todo.push(Effect::Reply(call, Err(error)));
            return;
        }
        self.execs.insert(exec.clone(), Process::new(Phase::Created));
        todo.push(Effect::Publish(Event::ExecAdded { exec }));
        todo.push(Effect::Reply(call, Ok(Answer::Empty)));
    }

    fn wait(&mut self, exec: &str, call: Call, todo: &mut Vec<Effect>) {
        match self.process_mut(exec) {
            None => todo.push(Effect::Reply(call, Err(no_exec(exec)))),
            Some(process) => match process.exit() {
                Some(exit) => todo.push(Effect::Reply(call, Ok(Answer::Exit(exit)))),
                None => process.waits.push(call),
            },
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
