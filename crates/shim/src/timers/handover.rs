//! Deadlines, handed over as what is left of them.

use std::time::{Duration, Instant};

use api::containerdrs::shim::v1 as wire;
use api::containerdrs::shim::v1::timer::About;

use super::{Deadline, Timers};
use crate::handover::{read_back_call, write_down_call};
use crate::streams::{read_owner, write_owner};

impl Timers {
    /// Those that mean something to whoever goes on.
    pub fn write_down(&self) -> Vec<wire::Timer> {
        let now = Instant::now();
        let left =
            |at: &Instant| u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
        let timer = |(at, deadline): &(Instant, Deadline)| {
            let about = match deadline {
                Deadline::Wait(call) => About::Wait(write_down_call(*call)),
                Deadline::Drain { container, exec } => {
                    About::Drain(wire::Owner { container: container.clone(), exec: exec.clone() })
                }
                Deadline::Quiet(serial) => About::Quiet(*serial),
                Deadline::Carry(serial) => About::Carry(*serial),
                Deadline::Logger(owner) => About::Logger(write_owner(owner)),
                Deadline::Kill(child) => About::Kill(*child),
                Deadline::Removal(container) => About::Removal(container.clone()),
                Deadline::Stop(sandbox) => About::Stop(sandbox.clone()),
                Deadline::Publish => About::Publish(true),
                Deadline::End => About::End(true),
                // Of what is over when it counts, or begins anew.
                Deadline::Create(_) | Deadline::GiveUp(_) | Deadline::Offload(_) => return None,
                Deadline::Tidy | Deadline::Trial(_) | Deadline::Handover => return None,
            };
            Some(wire::Timer { milliseconds: left(at), about: Some(about) })
        };
        self.0.iter().filter_map(timer).collect()
    }

    /// The same, back.
    pub fn read_back(timers: Vec<wire::Timer>) -> Self {
        let mut restored = Self::default();
        for timer in timers {
            let deadline = match timer.about {
                Some(About::Wait(call)) => Deadline::Wait(read_back_call(call)),
                Some(About::Drain(wire::Owner { container, exec })) => Deadline::Drain { container, exec },
                Some(About::Quiet(serial)) => Deadline::Quiet(serial),
                Some(About::Carry(serial)) => Deadline::Carry(serial),
                Some(About::Logger(owner)) => Deadline::Logger(read_owner(owner)),
                Some(About::Kill(child)) => Deadline::Kill(child),
                Some(About::Removal(container)) => Deadline::Removal(container),
                Some(About::Stop(sandbox)) => Deadline::Stop(sandbox),
                Some(About::Publish(_)) => Deadline::Publish,
                Some(About::End(_)) => Deadline::End,
                None => continue,
            };
            restored.set(Duration::from_millis(timer.milliseconds), deadline);
        }
        restored
    }
}
