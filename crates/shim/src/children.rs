//! The processes that are ours to collect: what each is for, and those that nobody asked for.
//!
//! Each known child has a pidfd in the loop; it stays a zombie until it is collected through it, so its number is not
//! given away and no exit is lost. Orphans of containers become our children as well (we are their subreaper): they are
//! collected on SIGCHLD, but not while a runtime call is under way that will name one of them in a pid file.

mod handover;

pub use handover::check;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;

use sys::epoll::{Epoll, Ready};
use sys::pidfd::{Ended, PidFd};

use crate::call::Call;
use crate::runtime::{Run, Task};
use crate::streams::Owner;
use crate::token::{Kind, Token};

/// What a child is for.
pub enum Purpose {
    /// A container's init (empty `exec`) or exec.
    Process {
        /// The container.
        container: String,
        /// The exec id.
        exec: String,
    },
    /// A call of the OCI runtime.
    Runtime {
        /// The container.
        container: String,
        /// The call.
        run: Run,
    },
    /// A fork of ours that does what may block.
    Offload {
        /// The container.
        container: String,
        /// What it does.
        work: Work,
        /// Where it writes its error.
        report: File,
    },
    /// A fork of ours that carries a stream.
    Carrier,
    /// A program that takes the output of this process.
    Logger(Owner),
    /// A program that tells the daemon of an event.
    Teller,
    /// A program that tries to read our state.
    Trial,
    /// A fork of ours that nobody waits for: it hung, or it answers a debugger.
    Abandoned,
}

/// What is done in a forked child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Mount the root filesystem.
    Mount,
    /// Unmount it, as a container is deleted.
    Unmount,
    /// Unmount it, as a container could not be created.
    Discard,
    /// Measure what the container uses, and answer the call.
    Stats(Call),
    /// Let the container's group have all controllers; the number of its init.
    Controllers(u32),
    /// Make the directory in which CRIU works at a checkpoint.
    CheckpointPlace,
    /// Clear up after a checkpoint.
    Checkpoint,
    /// Write down how the container died.
    Record,
    /// Open a log file anew, and answer the call.
    Reopen(Call),
}

impl Work {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "mounting of the root filesystem",
            Self::Unmount | Self::Discard => "unmounting of the root filesystem",
            Self::Stats(_) => "measuring",
            Self::Controllers(_) => "delegating controllers",
            Self::Record => "recording of a death",
            Self::CheckpointPlace => "making of a checkpoint's directory",
            Self::Reopen(_) => "opening of a log file",
            Self::Checkpoint => "clearing up after a checkpoint",
        }
    }
}

/// How a runtime call is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// What it waits for is killed, hooks and the container's init: it fails, and takes back itself what it has made.
    Hooks,
    /// It is killed with what it has started, and its cgroups stay.
    Group,
}

struct Child {
    process: PidFd,
    purpose: Purpose,
}

/// All of them.
#[derive(Default)]
pub struct Children {
    known: BTreeMap<u64, Child>,
    next: u64,
}

impl Purpose {
    /// Whether a process that we do not know yet will be named by this call when it ends.
    fn names_a_process(&self) -> bool {
        matches!(self, Self::Runtime { run, .. } if run.task.names_a_process())
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { container, exec } if exec.is_empty() => write!(f, "init of {container}"),
            Self::Process { container, exec } => write!(f, "exec {exec} of {container}"),
            Self::Runtime { container, run } => write!(f, "the runtime's {:?} of {container}", run.task),
            Self::Offload { container, work, .. } => write!(f, "{} of {container}", work.name()),
            Self::Carrier => f.write_str("carries a stream"),
            Self::Logger(owner) => write!(f, "takes the output of {} {}", owner.0, owner.1),
            Self::Teller => f.write_str("tells the daemon of an event"),
            Self::Trial => f.write_str("tries to read our state"),
            Self::Abandoned => f.write_str("nobody waits for it"),
        }
    }
}

impl Children {
    /// Each with its serial number, its process's, and what it is for.
    pub fn all(&self) -> impl Iterator<Item = (u64, u32, &Purpose)> {
        self.known.iter().map(|(serial, child)| (*serial, child.process.pid(), &child.purpose))
    }

    /// Watches over a child from now on; the serial number names it in the loop.
    pub fn track(&mut self, process: PidFd, purpose: Purpose, epoll: &Epoll) -> io::Result<u64> {
        self.next += 1;
        let serial = self.next;
        epoll.add(&process, Token { kind: Kind::Child, serial }.pack(), Ready::IN)?;
        self.known.insert(serial, Child { process, purpose });
        Ok(serial)
    }

    /// Collects a child that has ended.
    pub fn collect(&mut self, serial: u64) -> Option<(Purpose, Ended)> {
        let ended = match self.known.get(&serial)?.process.collect() {
            Ok(None) => return None,
            Ok(Some(ended)) => ended,
            // Only a bug could have collected it before us; its owner must hear of an end all the same.
            Err(_) => Ended::Code(255),
        };
        self.known.remove(&serial).map(|child| (child.purpose, ended))
    }

    /// Kills forked work that hangs. It is collected when the kernel lets go of it; nobody waits for that.
    pub fn abandon(&mut self, serial: u64) -> Option<Purpose> {
        let child = self.known.get_mut(&serial)?;
        // One that cannot be killed has ended, and is then collected all the same.
        let _ = child.process.kill();
        Some(std::mem::replace(&mut child.purpose, Purpose::Abandoned))
    }

    /// Ends the runtime call that makes a container; forked work for it, if there is any, is the caller's to abandon.
    pub fn interrupt(&self, container: &str, how: Interrupt) -> Option<u64> {
        let mut forked = None;
        for (serial, child) in &self.known {
            match &child.purpose {
                Purpose::Runtime { container: of, run } if of == container && run.task == Task::Create => {
                    // One that cannot be killed has ended.
                    let _ = match how {
                        Interrupt::Hooks => child.process.kill_children(),
                        Interrupt::Group => child.process.kill_group(),
                    };
                }
                Purpose::Offload { container: of, .. } if of == container => forked = Some(*serial),
                Purpose::Runtime { .. } | Purpose::Offload { .. } => {}
                Purpose::Process { .. } | Purpose::Carrier | Purpose::Logger(_) => {}
                Purpose::Teller | Purpose::Trial | Purpose::Abandoned => {}
            }
        }
        forked
    }

    /// Kills the runtime calls that work on a container which has been made: they end, and fail.
    pub fn end_calls(&self, container: &str) {
        for child in self.known.values() {
            if let Purpose::Runtime { container: of, run } = &child.purpose
                && of == container
                && !run.task.names_a_process()
            {
                // One that cannot be killed has ended.
                let _ = child.process.kill_group();
            }
        }
    }

    /// The child `serial`, to be signalled.
    pub fn process(&self, serial: u64) -> Option<&PidFd> {
        self.known.get(&serial).map(|c| &c.process)
    }

    /// Collects ended children that nobody knows; returns a known one that has ended, if that is what comes first.
    pub fn reap_orphans(&self) -> io::Result<Option<u64>> {
        while let Some(pid) = sys::reaper::ended_child()? {
            if let Some((serial, _)) = self.known.iter().find(|(_, c)| c.process.pid() == pid) {
                return Ok(Some(*serial));
            }
            if self.known.values().any(|c| c.purpose.names_a_process()) {
                // It may be the one that the pid file will name: look again when the call has ended.
                return Ok(None);
            }
            sys::reaper::discard(pid)?;
        }
        Ok(None)
    }
}
