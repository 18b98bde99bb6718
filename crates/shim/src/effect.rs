//! What happens to a container, and what is then to be done: the words between its state and its driver.

use types::Result;

use crate::call::{Answer, Call, Event, Exit};

/// What happens to a container.
#[derive(Debug)]
pub enum Input {
    /// The runtime has made it (the pid), or could not.
    Created(Result<u32>),
    /// A client wants a process to be started; an empty `exec` is init, here and everywhere.
    Start { exec: String, call: Call },
    /// The runtime has started it (the pid), or could not.
    Started { exec: String, result: Result<u32> },
    /// A process has ended.
    Exited { exec: String, exit: Exit },
    /// The processes that outlived init were killed, as far as possible.
    KilledAll,
    /// A client wants a signal to be sent.
    Kill { exec: String, signal: u32, all: bool, call: Call },
    /// A client adds a process.
    Exec { exec: String, call: Call },
    /// A client waits for a process to end.
    Wait { exec: String, call: Call },
    /// A client wants a process, or the container, to be forgotten.
    Delete { exec: String, call: Call },
    /// The output of a process that is being deleted was delivered, or given up.
    Drained { exec: String },
    /// The runtime has forgotten the container, or could not.
    Removed(Result<()>),
    /// The root filesystem is unmounted, or could not be.
    Unmounted(Result<()>),
    /// A client wants something done to the container as a whole.
    Control { what: Control, call: Call },
    /// What was to be done to the container is done, or could not be.
    Controlled(Result<()>),
    /// The container that ended while it was paused is frozen no more, as far as possible.
    Thawed,
    /// The kernel ran out of the memory that the container may have.
    OutOfMemory,
}

/// What can be done to a container as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Freeze its processes.
    Pause,
    /// Let them go on.
    Resume,
    /// Give it other limits: resources of the runtime specification, as JSON.
    Update(Vec<u8>),
    /// Write its processes to disk.
    Checkpoint(Checkpoint),
}

/// Where a checkpoint goes, and what it may contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The directory of the image.
    pub image: String,
    /// The working directory of CRIU, kept; empty for one of ours.
    pub work: String,
    /// Whether the container ends with it.
    pub exit: bool,
    /// What else the runtime is to be told, in upstream's order.
    pub flags: Vec<String>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Answer a call.
    Reply(Call, Result<Answer>),
    /// Tell the world.
    Publish(Event),
    /// Let the runtime start init.
    Start,
    /// Let the runtime start init out of a checkpoint; answered as a start is.
    Restore,
    /// Let the runtime do something to the container; answered by [`Input::Controlled`].
    Control(Control),
    /// Let the runtime resume the container, which has ended; answered by [`Input::Thawed`].
    Thaw,
    /// Let the runtime start an exec.
    StartExec(String),
    /// Let the runtime signal init, or all processes, and answer the call.
    Kill { signal: u32, all: bool, call: Call },
    /// Let the runtime kill all processes; answered by [`Input::KilledAll`].
    KillAll,
    /// Signal an exec, and answer the call.
    Signal { exec: String, signal: u32, call: Call },
    /// Deliver the rest of a process's output; answered by [`Input::Drained`].
    Drain(String),
    /// Let the runtime forget the container; answered by [`Input::Removed`].
    Remove,
    /// Unmount the root filesystem; answered by [`Input::Unmounted`].
    Unmount,
    /// Forget an exec.
    ForgetExec(String),
    /// Forget the container.
    Forget,
}
