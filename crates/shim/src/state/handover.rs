//! Where a container is in its life, handed over. What is only being made or started is not: that is over by then.

use std::collections::{BTreeMap, VecDeque};

use api::containerdrs::shim::v1 as wire;
use types::{Error, Result};

use super::{Phase, Policy, Process, State, Step};
use crate::call::Exit;
use crate::handover::{read_back_call, write_down_call};

/// Phases on the wire, without what is handed over with them.
const CREATED: u32 = 0;
const RUNNING: u32 = 1;
const STOPPED: u32 = 2;
const PAUSED: u32 = 3;

fn write_down_exit(exit: Exit) -> wire::Exit {
    wire::Exit { status: exit.status, seconds: exit.seconds, nanos: exit.nanos }
}

fn read_back_exit(exit: wire::Exit) -> Exit {
    Exit { status: exit.status, seconds: exit.seconds, nanos: exit.nanos }
}

fn write_down_error(error: &Error) -> wire::Failure {
    wire::Failure { code: api::status::code(error.class()), message: error.to_string() }
}

fn read_back_error(failure: wire::Failure) -> Error {
    Error::new(api::status::class(failure.code), failure.message)
}

/// The phase of a process that was written down.
pub fn phase(process: &wire::Process) -> Result<Phase> {
    match (process.phase, process.exit) {
        (CREATED, _) => Ok(Phase::Created),
        (RUNNING, _) => Ok(Phase::Running),
        (PAUSED, _) => Ok(Phase::Paused),
        (STOPPED, Some(exit)) => Ok(Phase::Stopped(read_back_exit(exit))),
        (other, _) => Err(Error::unimplemented(format!("a process in phase {other}: not implemented"))),
    }
}

impl Process {
    /// Whether an operation on it is under way.
    fn is_busy(&self) -> bool {
        self.pending.is_some() || matches!(self.phase, Phase::Creating | Phase::Starting { .. })
    }

    fn write_down(&self, exec: &str) -> wire::Process {
        // Whoever waits for an operation is answered by now.
        let Self { phase, pid, pending: _, waits, deletes, drained } = self;
        let (phase, exit) = match phase {
            Phase::Creating | Phase::Created => (CREATED, None),
            Phase::Starting { .. } | Phase::Running => (RUNNING, None),
            Phase::Paused => (PAUSED, None),
            Phase::Stopped(exit) => (STOPPED, Some(write_down_exit(*exit))),
        };
        wire::Process {
            exec: exec.to_owned(),
            phase,
            pid: *pid,
            waits: waits.iter().copied().map(write_down_call).collect(),
            deletes: deletes.iter().copied().map(write_down_call).collect(),
            drained: *drained,
            exit,
            ..wire::Process::default()
        }
    }

    fn read_back(process: &wire::Process) -> Result<Self> {
        Ok(Self {
            phase: phase(process)?,
            pid: process.pid,
            pending: None,
            waits: process.waits.iter().copied().map(read_back_call).collect(),
            deletes: process.deletes.iter().copied().map(read_back_call).collect(),
            drained: process.drained,
        })
    }
}

impl State {
    /// Whether nothing is under way that ends by itself.
    pub fn is_quiet(&self) -> bool {
        let going = |step| matches!(step, Step::Wanted | Step::Running);
        let controlled = self.control.is_some() || !self.controls.is_empty() || self.thawing;
        let steps = going(self.removal) || going(self.unmount) || controlled;
        !steps && !self.killing && !self.execs.values().chain([&self.init]).any(Process::is_busy)
    }

    /// Puts it into `container`.
    pub fn write_down(&self, container: &mut wire::Container) {
        let Self {
            id,
            policy,
            init,
            execs,
            held,
            // What runs is over by then.
            killing: _,
            control: _,
            controls: _,
            thawing: _,
            removal,
            removal_error,
            unmount,
            unmount_error,
        } = self;
        let Policy { kill_all_on_exit, eager_removal, restored } = policy;
        container.restored = *restored;
        container.id.clone_from(id);
        (container.kill_all_on_exit, container.eager_removal) = (*kill_all_on_exit, *eager_removal);
        container.processes = vec![init.write_down("")];
        container.processes.extend(execs.iter().map(|(exec, process)| process.write_down(exec)));
        container.held = held.map(write_down_exit);
        container.removal = u32::from(*removal == Step::Done);
        container.removal_error = removal_error.as_ref().map(write_down_error);
        container.unmount = u32::from(*unmount == Step::Done);
        container.unmount_error = unmount_error.as_ref().map(write_down_error);
    }

    /// The state of `container`.
    pub fn read_back(container: &wire::Container) -> Result<Self> {
        let mut execs = BTreeMap::new();
        let mut init = Process::new(Phase::Created);
        for process in &container.processes {
            let restored = Process::read_back(process)?;
            match process.exec.as_str() {
                "" => init = restored,
                exec => drop(execs.insert(exec.to_owned(), restored)),
            }
        }
        let step = |number| if number == 0 { Step::Not } else { Step::Done };
        Ok(Self {
            id: container.id.clone(),
            policy: Policy {
                kill_all_on_exit: container.kill_all_on_exit,
                eager_removal: container.eager_removal,
                restored: container.restored,
            },
            init,
            execs,
            held: container.held.map(read_back_exit),
            killing: false,
            control: None,
            controls: VecDeque::new(),
            thawing: false,
            removal: step(container.removal),
            removal_error: container.removal_error.clone().map(read_back_error),
            unmount: step(container.unmount),
            unmount_error: container.unmount_error.clone().map(read_back_error),
        })
    }
}
