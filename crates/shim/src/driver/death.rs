//! Lets the record of a death be written: when memory runs out, and when init has ended.

use std::path::PathBuf;

use api::containerdrs::shim::v1 as wire;
use sys::pidfd::Ended;
use types::Result;

use super::Driver;
use crate::call::Exit;
use crate::children::{Purpose, Work};
use crate::context::Context;
use crate::death::{self, Moment, Record, Tail, Timeline};
use crate::offload;
use crate::timers::Deadline;

/// What is known of a death, and how far its record has come.
#[derive(Debug, Default)]
pub(super) struct Death {
    /// What happened before.
    pub(super) timeline: Timeline,
    /// How init ended.
    pub(super) ended: Option<Ended>,
    /// Forks that write.
    writing: u32,
    /// It is written, or is being written.
    begun: bool,
}

impl Death {
    /// Whether a fork writes at the moment.
    pub(super) fn is_being_written(&self) -> bool {
        self.writing > 0
    }
}

impl Death {
    /// Puts it into `container`.
    pub(super) fn write_down(&self, container: &mut wire::Container) {
        // A record that is being written is written by then; one that is wanted anew replaces it.
        let Self { timeline, ended, writing: _, begun: _ } = self;
        container.timeline = timeline.moments().map(write_down_moment).collect();
        container.timeline_omitted = timeline.omitted();
        container.ended = ended.map(|ended| match ended {
            Ended::Code(code) => code.cast_signed(),
            Ended::Signal(signal) => -signal.cast_signed(),
        });
    }

    /// The same, back. Of one that has ended the record is written already.
    pub(super) fn read_back(timeline: Vec<wire::Moment>, omitted: u64, ended: Option<i32>) -> Self {
        let ended = ended.map(|number| match u32::try_from(number) {
            Ok(code) => Ended::Code(code),
            Err(_) => Ended::Signal(number.unsigned_abs()),
        });
        let moments = timeline.into_iter().filter_map(read_back_moment);
        Self { timeline: Timeline::of(moments, omitted), begun: ended.is_some(), ended, writing: 0 }
    }
}

fn write_down_moment(moment: &Moment) -> wire::Moment {
    let Moment { at: (seconds, nanos), what, exec, pid, status } = moment.clone();
    wire::Moment { seconds, nanos, what: what.to_owned(), exec, pid, status }
}

/// A moment of a kind that we know.
fn read_back_moment(moment: wire::Moment) -> Option<Moment> {
    let wire::Moment { seconds, nanos, what, exec, pid, status } = moment;
    let what = death::WORDS.into_iter().find(|word| *word == what)?;
    Some(Moment { at: (seconds, nanos), what, exec, pid, status })
}

impl Driver {
    fn work(&self) -> PathBuf {
        self.bundle.join("work")
    }

    /// Memory ran out: what is there now will not be there for long.
    pub(super) fn record_oom(&mut self, cx: &mut Context) {
        // One scene is enough, and the first one is the one that counts.
        if self.death.is_being_written() || self.death.begun {
            return;
        }
        let begun =
            offload::start(|| death::write_oom(self.groups.as_ref(), &self.work()).map(|()| Vec::new()));
        self.write(cx, begun);
    }

    /// Init has ended and everybody was told: lets the record be written, once.
    pub(super) fn record_death(&mut self, cx: &mut Context) {
        let Some(exit) = self.state.init.exit() else { return };
        if self.death.begun || self.death.is_being_written() {
            return;
        }
        self.death.begun = true;
        let begun = offload::start(|| {
            let record = self.record(cx, exit);
            death::write_record(&record, &self.work()).map(|()| Vec::new())
        });
        self.write(cx, begun);
    }

    fn record<'a>(&'a self, cx: &'a Context, exit: Exit) -> Record<'a> {
        Record {
            namespace: &cx.namespace,
            id: &self.id,
            pid: self.state.init.pid,
            exit,
            ended: self.death.ended,
            groups: self.groups.as_ref(),
            timeline: &self.death.timeline,
            tails: self.tails(cx),
        }
    }

    /// Where what init said last can be found.
    fn tails<'a>(&'a self, cx: &'a Context) -> Vec<Tail<'a>> {
        let Some(live) = self.processes.get("") else { return Vec::new() };
        let first = if live.stdio.terminal { "terminal" } else { "stdout" };
        let named = [(first, live.stdio.stdout.as_str()), ("stderr", live.stdio.stderr.as_str())];
        named.into_iter().filter_map(|named| cx.streams.tail(&live.owner, named)).collect()
    }

    fn write(&mut self, cx: &mut Context, begun: Result<(sys::pidfd::PidFd, std::fs::File)>) {
        let container = self.id.clone();
        let tracked = begun.and_then(|(child, report)| {
            let serial = cx.track(child, Purpose::Offload { container, work: Work::Record, report })?;
            cx.timers.set(offload::LIMIT, Deadline::Offload(serial));
            Ok(())
        });
        match tracked {
            Ok(()) => self.death.writing += 1,
            Err(error) => cx.log.warn(&format!("no record of the death: {error}"), &self.id),
        }
    }

    /// A fork that wrote has ended.
    pub(super) fn recorded(&mut self, cx: &mut Context, result: Result<()>) {
        self.death.writing = self.death.writing.saturating_sub(1);
        if let Err(error) = result {
            cx.log.debug(&format!("no record of the death: {error}"), &self.id);
        }
        // Init may have ended while the first scene was written.
        self.record_death(cx);
        // A deletion may wait for it.
        self.stream_closed(cx, "");
    }
}
