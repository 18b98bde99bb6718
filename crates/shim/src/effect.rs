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
