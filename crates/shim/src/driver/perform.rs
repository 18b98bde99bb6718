//! What the state asks for, done or begun.

use std::collections::VecDeque;

use sys::cgroup::Groups;
use sys::mount::UnmountFlags;
use sys::pidfd::PidFd;
use types::{Error, Result};

use super::{Driver, REMOVAL};
use crate::call::{Answer, Call, Event};
use crate::children::{Purpose, Work};
use crate::context::Context;
use crate::runtime::{Run, Task};
use crate::state::{Effect, Input};
use crate::timers::Deadline;
use crate::{exit_file, message, offload};

/// The name of init.
const INIT: &str = "";

impl Driver {
    /// Takes an input, performs what follows from it.
    pub fn feed(&mut self, cx: &mut Context, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.state.step(input) {
                if let Err(failed) = self.perform(cx, effect, &mut inputs) {
                    inputs.push_back(failed);
                }
            }
        }
        self.record_death(cx);
    }

    /// Performs one effect. What fails to begin is an input at once.
    fn perform(
        &mut self,
        cx: &mut Context,
        effect: Effect,
        inputs: &mut VecDeque<Input>,
    ) -> Result<(), Input> {
        let not_started = |exec: String| |e| Input::Started { exec, result: Err(e) };
        match effect {
            Effect::Reply(call, result) => cx.reply(call, result.map(|answer| message::answer(&answer))),
            Effect::Publish(event) => self.publish(cx, &event),
            Effect::Start => self.follow(cx, self.runtime.start()).map_err(not_started(INIT.to_owned()))?,
            Effect::Restore => self.start_restored(cx).map_err(not_started(INIT.to_owned()))?,
            Effect::Control(what) => self.control(cx, what).map_err(|e| Input::Controlled(Err(e)))?,
            Effect::Thaw => self.follow(cx, self.runtime.thaw()).map_err(|_| Input::Thawed)?,
            Effect::StartExec(exec) => self.start_exec(cx, &exec).map_err(not_started(exec))?,
            Effect::Kill { signal, all, call } => self.kill(cx, signal, all, call),
            Effect::KillAll => self.kill_all(cx)?,
            Effect::Signal { exec, signal, call } => {
                let result = self.signal(cx, &exec, signal);
                cx.reply(call, result.map(|()| message::answer(&Answer::Empty)));
            }
            Effect::Drain(exec) => {
                if exec.is_empty() {
                    cx.timers.set(REMOVAL, Deadline::Removal(self.id.clone()));
                }
                self.drain(cx, exec, inputs);
            }
            Effect::Remove => {
                // The container's group goes with it.
                self.record_death(cx);
                self.follow(cx, self.runtime.delete()).map_err(|e| Input::Removed(Err(e)))?;
            }
            Effect::Unmount if self.rootfs.is_none() => inputs.push_back(Input::Unmounted(Ok(()))),
            Effect::Unmount => self.unmount(cx, Work::Unmount).map_err(|e| Input::Unmounted(Err(e)))?,
            Effect::ForgetExec(exec) => self.forget_exec(cx, &exec),
            Effect::Forget => self.forget(cx),
        }
        Ok(())
    }

    /// Tells the world of an event. Init's end is kept in the bundle before.
    fn publish(&mut self, cx: &mut Context, event: &Event) {
        if let Event::Exited { exec, exit, .. } = event
            && exec.is_empty()
        {
            if let Err(error) = exit_file::save(&self.bundle, *exit) {
                cx.log.warn(&format!("keep the exit status: {error}"), &self.id);
            }
            cx.watches.remove(&self.id);
        }
        self.death.timeline.note(event);
        let about = message::About {
            id: &self.id,
            bundle: &self.bundle,
            mounts: &self.mounts,
            stdio: self.processes.get(INIT).map(|live| &live.stdio),
            checkpoint: &self.restore,
        };
        let (topic, told) = message::event(event, &about);
        cx.publish(&self.bundle, topic, told);
        if *event == Event::OutOfMemory {
            self.record_oom(cx);
        }
    }

    /// Has the runtime do what it was asked for, and watches over it.
    fn follow(&self, cx: &mut Context, call: Result<(PidFd, Run)>) -> Result<()> {
        self.track(cx, call?)
    }

    pub(super) fn track(&self, cx: &mut Context, (process, run): (PidFd, Run)) -> Result<()> {
        let container = self.id.clone();
        cx.track(process, Purpose::Runtime { container, run }).map(drop)
    }

    /// A signal for init, or for all processes.
    fn kill(&self, cx: &mut Context, signal: u32, all: bool, call: Call) {
        // Init is our child: no runtime has to find it where it would do nothing else than send the signal.
        let init = self.processes.get(INIT).and_then(|live| live.child);
        let direct = !all && self.runtime.only_sends_signals() && self.state.is_plainly_signalled(signal);
        let init = init.and_then(|child| cx.children.process(child)).filter(|_| direct);
        match init.map(|init| init.signal(signal)) {
            Some(Ok(())) => cx.reply(call, Ok(message::answer(&Answer::Empty))),
            Some(Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => {
                cx.reply(call, Err(Error::not_found("process already finished: not found")));
            }
            // Why a signal cannot be sent the runtime says in its own words.
            Some(Err(_)) | None => {
                if let Err(error) = self.follow(cx, self.runtime.kill(Task::Kill(call), signal, all)) {
                    cx.reply(call, Err(error));
                }
            }
        }
    }

    /// Kills what outlives init; most often that is nothing, and then no runtime is needed to find that out.
    fn kill_all(&self, cx: &mut Context) -> Result<(), Input> {
        if self.groups.as_ref().is_some_and(Groups::are_deserted) {
            return Err(Input::KilledAll);
        }
        let begun = self.runtime.kill(Task::KillAll, libc::SIGKILL.unsigned_abs(), true);
        self.follow(cx, begun).map_err(|error| {
            cx.log.error(&error.to_string(), &self.id);
            Input::KilledAll
        })
    }

    fn signal(&self, cx: &Context, exec: &str, signal: u32) -> Result<()> {
        let process = self.processes.get(exec).and_then(|live| cx.children.process(live.child?));
        match process.map(|p| p.signal(signal)) {
            None => Err(Error::not_found("process already finished: not found")),
            Some(Ok(())) => Ok(()),
            Some(Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => {
                Err(Error::not_found("exec kill error: process already finished: not found"))
            }
            Some(Err(e)) => {
                let why = types::error::os_text(&e);
                Err(Error::unknown(format!("exec kill error: unknown error after kill: {why}")))
            }
        }
    }

    pub(super) fn unmount(&self, cx: &mut Context, work: Work) -> Result<()> {
        let Some(rootfs) = self.rootfs.clone() else { return Ok(()) };
        self.offload(cx, work, move || {
            sys::mount::unmount_recursive(&rootfs, UnmountFlags::empty()).map(|()| Vec::new())
        })
    }

    pub(super) fn offload(
        &self,
        cx: &mut Context,
        work: Work,
        job: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<()> {
        let (child, report) = offload::start(job)?;
        let container = self.id.clone();
        let serial = cx.track(child, Purpose::Offload { container, work, report })?;
        cx.timers.set(offload::LIMIT, Deadline::Offload(serial));
        Ok(())
    }

    fn forget(&mut self, cx: &mut Context) {
        cx.timers.clear(&Deadline::Removal(self.id.clone()));
        for live in self.processes.values() {
            cx.abandon(&live.owner);
        }
        self.gone = true;
    }
}
