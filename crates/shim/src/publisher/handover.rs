//! Events that wait, handed over with the connection on which one of them may be under way.

use std::time::Duration;

use api::containerdrs::shim::v1 as wire;
use sys::epoll::{Epoll, Ready};
use sys::handover::Inherited;
use types::{Result, ResultExt};

use super::{Publisher, TOKEN, Way};
use crate::handover::Kept;
use crate::journal::Journal;
use crate::wire::Wire;

impl Publisher {
    /// All of it.
    pub fn write_down<'a>(&'a self, kept: &mut Kept<'a>) -> wire::Publisher {
        let Self {
            // The shim's settings say both.
            way: _,
            namespace: _,
            journals,
            count,
            wire,
            in_flight,
            stream,
            attempts,
            delay,
            complaints,
            complained,
        } = self;
        wire::Publisher {
            journals: journals.iter().map(|journal| journal.write_down(kept)).collect(),
            count: *count,
            wire: wire.as_ref().map(|wire| wire.write_down(kept)),
            in_flight: *in_flight,
            stream: *stream,
            attempts: *attempts,
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            complained: *complained,
            complaints: complaints.clone(),
        }
    }

    /// The same, back.
    pub fn read_back(
        state: wire::Publisher,
        (way, namespace): (Way, &str),
        inherited: &mut Inherited,
        epoll: &Epoll,
    ) -> Result<Self> {
        let mut publisher = Self::new(way, namespace);
        for journal in state.journals {
            publisher.journals.push(Journal::read_back(journal, inherited)?);
        }
        publisher.wire = state.wire.map(|wire| Wire::read_back(wire, inherited)).transpose()?;
        if let Some(wire) = &publisher.wire {
            epoll.add(wire, TOKEN.pack(), Ready::IN | Ready::OUT).context(|| "watch the daemon")?;
        }
        publisher.count = state.count;
        publisher.in_flight = state.in_flight;
        publisher.stream = state.stream;
        publisher.attempts = state.attempts;
        publisher.delay = Duration::from_millis(state.delay_ms);
        publisher.complained = state.complained;
        publisher.complaints = state.complaints;
        Ok(publisher)
    }
}
