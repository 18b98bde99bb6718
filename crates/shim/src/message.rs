//! Answers and events as messages of the wire.

use std::path::Path;

use api::containerd::events;
use api::containerd::task::v3 as wire;
use prost::Message;
use types::Any;
use types::mount::Mount;

use crate::call::{Answer, Event, Exit};
use crate::io::Stdio;

/// A time of exit.
pub fn exited_at(exit: Exit) -> Option<api::Timestamp> {
    Some(api::Timestamp { seconds: exit.seconds, nanos: exit.nanos })
}

/// The payload of an answer.
pub fn answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Empty => Vec::new(),
        // CreateTaskResponse and StartResponse are the same message under two names.
        Answer::Pid(pid) => wire::StartResponse { pid: *pid }.encode_to_vec(),
        Answer::Exit(exit) => {
            wire::WaitResponse { exit_status: exit.status, exited_at: exited_at(*exit) }.encode_to_vec()
        }
        Answer::Deleted { pid, exit } => {
            let exit = exit.unwrap_or(Exit::NEVER);
            wire::DeleteResponse { pid: *pid, exit_status: exit.status, exited_at: exited_at(exit) }
                .encode_to_vec()
        }
    }
}

/// What an event says about its container.
pub struct About<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// The mounts of its root filesystem.
    pub mounts: &'a [Mount],
    /// The streams of its init.
    pub stdio: Option<&'a Stdio>,
    /// The checkpoint that it is made out of, or empty.
    pub checkpoint: &'a str,
}

/// The topic and payload of an event.
pub fn event(event: &Event, about: &About<'_>) -> (&'static str, Any) {
    let container_id = about.id.to_owned();
    match event {
        Event::Created { pid } => ("/tasks/create", api::any::pack(&created(*pid, about))),
        Event::Started { pid } => {
            ("/tasks/start", api::any::pack(&events::TaskStart { container_id, pid: *pid }))
        }
        Event::ExecAdded { exec } => {
            let exec_id = exec.clone();
            ("/tasks/exec-added", api::any::pack(&events::TaskExecAdded { container_id, exec_id }))
        }
        Event::ExecStarted { exec, pid } => {
            let exec_id = exec.clone();
            (
                "/tasks/exec-started",
                api::any::pack(&events::TaskExecStarted { container_id, exec_id, pid: *pid }),
            )
        }
        Event::Paused => ("/tasks/paused", api::any::pack(&events::TaskPaused { container_id })),
        Event::Resumed => ("/tasks/resumed", api::any::pack(&events::TaskResumed { container_id })),
        Event::OutOfMemory => ("/tasks/oom", api::any::pack(&events::TaskOom { container_id })),
        Event::Exited { exec, pid, exit } => {
            let event = events::TaskExit {
                id: if exec.is_empty() { container_id.clone() } else { exec.clone() },
                container_id,
                pid: *pid,
                exit_status: exit.status,
                exited_at: exited_at(*exit),
            };
            ("/tasks/exit", api::any::pack(&event))
        }
        Event::Deleted { pid, exit } => {
            let event = events::TaskDelete {
                container_id,
                pid: *pid,
                exit_status: exit.status,
                exited_at: exited_at(*exit),
                id: String::new(),
            };
            ("/tasks/delete", api::any::pack(&event))
        }
    }
}

fn created(pid: u32, about: &About<'_>) -> events::TaskCreate {
    let stdio = about.stdio.cloned().unwrap_or_default();
    events::TaskCreate {
        container_id: about.id.to_owned(),
        bundle: about.bundle.to_string_lossy().into_owned(),
        rootfs: about.mounts.iter().cloned().map(api::convert::mount_to_wire).collect(),
        io: Some(events::TaskIo {
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
        }),
        checkpoint: about.checkpoint.to_owned(),
        pid,
    }
}
