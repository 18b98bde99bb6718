//! Deadlines, a handful at a time: when the loop must wake up at the latest, and what for.

mod handover;

use std::time::{Duration, Instant};

use crate::call::Call;
use crate::streams::Owner;

/// What a deadline is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// A parked Wait of a client that set a limit.
    Wait(Call),
    /// A Create of a client that set a limit.
    Create(Call),
    /// A container whose making was ended should not be there any more.
    GiveUp(String),
    /// The output of a process that is being deleted should have been delivered by now.
    Drain {
        /// The container.
        container: String,
        /// The process, empty for init.
        exec: String,
    },
    /// A terminal whose process has ended says nothing more.
    Quiet(u64),
    /// A stream should be carried again, as its carrier failed.
    Carry(u64),
    /// A program that takes the output of this process, and has died, is to be started again.
    Logger(Owner),
    /// A child that was asked to end should have done so.
    Kill(u64),
    /// A container that is being deleted should be gone: whatever of the runtime still works on it hangs.
    Removal(String),
    /// A sandbox that was told to end should have done so.
    Stop(String),
    /// A forked child should have reported by now.
    Offload(u64),
    /// The program that the shim is to go on as should have read its state by now.
    Trial(u64),
    /// Everything that is under way should have come to its end, so that it can.
    Handover,
    /// Try to reach the daemon again.
    Publish,
    /// Nothing has happened for a while, perhaps: give memory back.
    Tidy,
    /// Events should have been sent by now: end all the same.
    End,
}

/// The deadlines that have not passed.
#[derive(Debug, Default)]
pub struct Timers(Vec<(Instant, Deadline)>);

impl Timers {
    /// Adds a deadline.
    pub fn set(&mut self, after: Duration, deadline: Deadline) {
        self.0.push((Instant::now() + after, deadline));
    }

    /// Removes all equal to `deadline`.
    pub fn clear(&mut self, deadline: &Deadline) {
        self.0.retain(|(_, d)| d != deadline);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// Whether `deadline` is set.
    pub fn has(&self, deadline: &Deadline) -> bool {
        self.0.iter().any(|(_, d)| d == deadline)
    }

    /// How long until each.
    pub fn all(&self) -> impl Iterator<Item = (Duration, &Deadline)> {
        let now = Instant::now();
        self.0.iter().map(move |(at, deadline)| (at.saturating_duration_since(now), deadline))
    }

    /// How long until the next one; none if there is none, and then the loop sleeps for ever.
    pub fn next(&self) -> Option<Duration> {
        self.0.iter().map(|(at, _)| *at).min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Takes one that has passed.
    pub fn take_due(&mut self) -> Option<Deadline> {
        if self.0.is_empty() {
            return None;
        }
        let now = Instant::now();
        let index = self.0.iter().position(|(at, _)| *at <= now)?;
        Some(self.0.swap_remove(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_once_and_not_before_its_time() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Duration::ZERO, Deadline::Publish);
        timers.set(Duration::from_secs(100), Deadline::End);
        assert_eq!(timers.take_due(), Some(Deadline::Publish));
        assert_eq!(timers.take_due(), None);
        assert!(timers.next() > Some(Duration::from_secs(90)));
        timers.clear(&Deadline::End);
        assert_eq!(timers.next(), None);
    }
}
