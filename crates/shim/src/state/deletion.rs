//! Deletion: of an exec, which is forgotten when its output is delivered; of the container, step by step.
//!
//! ```text
//!  Delete --> output delivered, or given up --+
//!         --> the runtime forgets it ---------+--> root filesystem unmounted --> told, answered, forgotten
//! ```
//!
//! Each step is tried; the first error is the answer, and what failed is tried again by the next Delete.

use types::{Error, Result};

use super::{Phase, State, Step, no_exec, precondition};
use crate::call::{Answer, Call, Event, Exit};
use crate::effect::Effect;

fn again(error: &Error) -> Error {
    Error::new(error.class(), error.to_string())
}

impl State {
    pub(super) fn delete(&mut self, exec: &str, call: Call, todo: &mut Vec<Effect>) {
        let Some(process) = self.process_mut(exec) else {
            todo.push(Effect::Reply(call, Err(no_exec(exec))));
            return;
        };
        match process.phase {
            Phase::Created | Phase::Stopped(_) => {}
            Phase::Creating | Phase::Starting { .. } | Phase::Running | Phase::Paused => {
                let paused = process.phase == Phase::Paused;
                let why =
                    if paused { "cannot delete a paused process" } else { "cannot delete a running process" };
                todo.push(Effect::Reply(call, Err(precondition(why))));
                return;
            }
        }
        process.deletes.push(call);
        if process.deletes.len() > 1 {
            return;
        }
        process.drained = false;
        todo.push(Effect::Drain(exec.to_owned()));
        if exec.is_empty() {
            (self.removal_error, self.unmount_error) = (None, None);
            if self.removal == Step::Not {
                self.removal = Step::Wanted;
                self.remove_if_due(todo);
            }
            // Where nothing runs after the container's end, nothing needs its root filesystem while it is removed.
            if self.unmount == Step::Not && self.policy.eager_removal && self.init.exit().is_some() {
                self.unmount = Step::Running;
                todo.push(Effect::Unmount);
            }
        }
    }

    pub(super) fn removed(&mut self, result: Result<()>, todo: &mut Vec<Effect>) {
        self.removal = if result.is_ok() { Step::Done } else { Step::Not };
        self.removal_error = result.err();
        self.finish_delete("", todo);
    }

    /// Goes on with a deletion when all that it waits for has happened.
    pub(super) fn finish_delete(&mut self, exec: &str, todo: &mut Vec<Effect>) {
        let Some(process) = self.process_mut(exec) else { return };
        if process.deletes.is_empty() || !process.drained {
            return;
        }
        if !exec.is_empty() {
            self.forget_exec(exec, todo);
            return;
        }
        // Deleting a container that never ran kills its init: wait for that exit too, it is told before the deletion.
        let ended = self.init.exit().is_some() || self.removal_error.is_some() || self.init.pid == 0;
        if matches!(self.removal, Step::Wanted | Step::Running) || !ended {
            return;
        }
        match (self.unmount, &self.unmount_error) {
            (Step::Not, None) => {
                self.unmount = Step::Running;
                todo.push(Effect::Unmount);
            }
            (Step::Wanted | Step::Running, _) => {}
            (Step::Done, _) | (Step::Not, Some(_)) => self.deleted(todo),
        }
    }

    /// Answers whoever asked for an exec's deletion, or still waits for one that never ran.
    fn forget_exec(&mut self, exec: &str, todo: &mut Vec<Effect>) {
        let Some(process) = self.execs.remove(exec) else { return };
        let exit = process.exit();
        todo.push(Effect::ForgetExec(exec.to_owned()));
        let reply = |call: Call, answer: Answer| Effect::Reply(call, Ok(answer));
        todo.extend(process.waits.into_iter().map(|c| reply(c, Answer::Exit(exit.unwrap_or(Exit::NEVER)))));
        todo.extend(
            process.deletes.into_iter().map(|c| reply(c, Answer::Deleted { pid: process.pid, exit })),
        );
    }

    pub(super) fn unmounted(&mut self, result: Result<()>, todo: &mut Vec<Effect>) {
        self.unmount = if result.is_ok() { Step::Done } else { Step::Not };
        self.unmount_error = result.err().map(|e| e.context("failed rootfs umount"));
        self.finish_delete("", todo);
    }

    /// All steps of the deletion were tried.
    fn deleted(&mut self, todo: &mut Vec<Effect>) {
        let calls = std::mem::take(&mut self.init.deletes);
        if let Some(error) = self.removal_error.take().or_else(|| self.unmount_error.take()) {
            todo.extend(calls.into_iter().map(|call| Effect::Reply(call, Err(again(&error)))));
            return;
        }
        while let Some(exec) = self.execs.keys().next().cloned() {
            self.forget_exec(&exec, todo);
        }
        let (pid, exit) = (self.init.pid, self.init.exit());
        todo.push(Effect::Publish(Event::Deleted { pid, exit: exit.unwrap_or(Exit::NEVER) }));
        todo.extend(calls.into_iter().map(|call| Effect::Reply(call, Ok(Answer::Deleted { pid, exit }))));
        todo.push(Effect::Forget);
    }
}
