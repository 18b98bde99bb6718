//! Operations on a container as a whole: pause, resume, update, checkpoint. One runs at a time, the others wait in order,
//! as upstream's wait for its lock; what the container's phase does not allow is refused when its turn comes.

use types::{Error, Result};

use super::{Phase, SIGKILL, State, Step};
use crate::call::{Answer, Call, Event};
use crate::effect::{Control, Effect};

/// Which operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Pause,
    Resume,
    Update,
    Checkpoint,
}

impl Control {
    fn verb(&self) -> Verb {
        match self {
            Self::Pause => Verb::Pause,
            Self::Resume => Verb::Resume,
            Self::Update(_) => Verb::Update,
            Self::Checkpoint(_) => Verb::Checkpoint,
        }
    }
}

impl State {
    /// Whether the runtime is pausing the container.
    pub fn is_pausing(&self) -> bool {
        matches!(self.control, Some((Verb::Pause, _)))
    }

    /// Whether a signal does without the runtime's help what it would do with it: it reaches init, which nothing freezes, and nobody
    /// else. Where the process namespace is shared the runtime kills all of the container's processes at once.
    pub fn is_plainly_signalled(&self, signal: u32) -> bool {
        let alive =
            matches!(self.init.phase, Phase::Created | Phase::Starting { early: None } | Phase::Running);
        let alone = !self.policy.kill_all_on_exit || signal != SIGKILL;
        alive && alone && self.control.is_none() && !self.thawing
    }

    pub(super) fn control(&mut self, what: Control, call: Call, todo: &mut Vec<Effect>) {
        self.controls.push_back((what, call));
        self.next_control(todo);
    }

    /// Begins what waits, if nothing runs that it has to wait for.
    pub(super) fn next_control(&mut self, todo: &mut Vec<Effect>) {
        while self.control.is_none() && !matches!(self.init.phase, Phase::Starting { .. }) {
            let Some((what, call)) = self.controls.pop_front() else { return };
            if let Some(why) = self.refuses(what.verb()) {
                todo.push(Effect::Reply(call, Err(Error::unknown(why))));
                continue;
            }
            self.control = Some((what.verb(), call));
            todo.push(Effect::Control(what));
        }
    }

    /// Why the container's phase does not allow an operation, in upstream's words.
    fn refuses(&self, verb: Verb) -> Option<&'static str> {
        let phase = if self.init_ended() { None } else { Some(self.init.phase) };
        let is_deleted = phase.is_some() && !self.init.deletes.is_empty();
        match (phase, verb) {
            (_, Verb::Pause) if is_deleted => Some("cannot pause a deleted process"),
            (_, Verb::Resume) if is_deleted => Some("cannot resume a deleted process"),
            (_, Verb::Update) if is_deleted => Some("cannot update a deleted process"),
            (_, Verb::Checkpoint) if is_deleted => Some("cannot checkpoint a deleted process"),
            (None, Verb::Pause) => Some("cannot pause a stopped container"),
            (None, Verb::Resume) => Some("cannot resume a stopped container"),
            (None, Verb::Update) => Some("cannot update a stopped container"),
            (None, Verb::Checkpoint) => Some("cannot checkpoint a stopped container"),
            (Some(Phase::Running | Phase::Paused), Verb::Update | Verb::Checkpoint) => None,
            (Some(Phase::Running), Verb::Pause) => None,
            (Some(Phase::Running), Verb::Resume) => Some("cannot resume a running process"),
            (Some(Phase::Paused), Verb::Pause) => Some("cannot pause a paused container"),
            (Some(Phase::Paused), Verb::Resume) => None,
            (Some(_), Verb::Pause) => Some("cannot pause task in created state"),
            (Some(_), Verb::Resume) => Some("cannot resume task in created state"),
            (Some(_), Verb::Update) => None,
            (Some(_), Verb::Checkpoint) => Some("cannot checkpoint a task in created state"),
        }
    }

    /// The operation that ran has come to its end.
    pub(super) fn controlled(&mut self, result: Result<()>, todo: &mut Vec<Effect>) {
        let Some((verb, call)) = self.control.take() else { return };
        if result.is_ok() {
            match (verb, self.init.phase) {
                (Verb::Pause, Phase::Running) if self.held.is_none() => {
                    self.init.phase = Phase::Paused;
                    todo.push(Effect::Publish(Event::Paused));
                }
                // Init has ended meanwhile; what it left behind must not stay frozen.
                (Verb::Pause, _) => self.thaw(todo),
                (Verb::Resume, Phase::Paused) => {
                    self.init.phase = Phase::Running;
                    todo.push(Effect::Publish(Event::Resumed));
                }
                (Verb::Resume | Verb::Update | Verb::Checkpoint, _) => {}
            }
        }
        todo.push(Effect::Reply(call, result.map(|()| Answer::Empty)));
        self.next_control(todo);
        // A removal waits for the operation that runs.
        self.remove_if_due(todo);
    }

    /// Lets a container that ended while it was paused be removed.
    pub(super) fn thaw(&mut self, todo: &mut Vec<Effect>) {
        if !self.thawing && self.removal == Step::Not {
            self.thawing = true;
            todo.push(Effect::Thaw);
        }
    }

    pub(super) fn thawed(&mut self, todo: &mut Vec<Effect>) {
        self.thawing = false;
        self.remove_if_due(todo);
    }

    /// Begins the removal that somebody wants, unless the runtime is still at work on the container.
    pub(super) fn remove_if_due(&mut self, todo: &mut Vec<Effect>) {
        let busy = self.thawing || self.control.is_some();
        if self.removal == Step::Wanted && !busy {
            self.removal = Step::Running;
            todo.push(Effect::Remove);
        }
    }
}
