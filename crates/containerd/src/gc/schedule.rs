//! When the next collection is due. No clock, no I/O: instants come in.

use std::time::{Duration, SystemTime};

use metadata::Changed;
use tokio::time::Instant;

use crate::config::Gc as Settings;

/// What a collection is taken to cost at least, so that quick ones do not follow each other at once.
const MINIMUM: Duration = Duration::from_millis(5);
/// The interval where nothing says how much of real time collections may take.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after its expiry something is collected: what expires together then goes together.
const AFTER_EXPIRY: Duration = Duration::from_millis(100);
/// The longest sleep towards an expiry; clocks are set, and then it is nearer than it was.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The next collection, and what it takes to find the one after it.
#[derive(Debug)]
pub(super) struct Schedule {
    pause: f64,
    mutations: u64,
    deletions: u64,
    delay: Duration,
    interval: Duration,
    spent: Duration,
    collections: u32,
    next: Option<Instant>,
    /// When something expires; another reason to collect, which does not make others wait.
    expiry: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            pause: settings.pause_threshold,
            mutations: settings.mutation_threshold,
            deletions: settings.deletion_threshold,
            delay: settings.schedule_delay,
            interval: interval(MINIMUM, settings.pause_threshold),
            spent: Duration::ZERO,
            collections: 0,
            // Without a delay the first one comes with the first reason for it, as upstream.
            next: (!settings.startup_delay.is_zero()).then(|| now + settings.startup_delay),
            expiry: None,
        }
    }

    /// When to collect next, if at all.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.expiry).min()
    }

    /// So much has changed since the last collection.
    pub(super) fn changed(&mut self, changed: Changed, now: Instant, wall: SystemTime) {
        let Changed { mutations, deletions, expiry } = changed;
        if let Some(expiry) = expiry {
            let at = self.after(expiry, now, wall);
            self.expiry = Some(self.expiry.map_or(at, |before| before.min(at)));
        }
        if self.deletions > 0 && deletions >= self.deletions {
            self.at(now + self.delay);
        } else if deletions > 0 || (self.mutations > 0 && mutations >= self.mutations) {
            self.at(now + self.interval.max(self.delay));
        }
    }

    /// Somebody waits for one.
    pub(super) fn requested(&mut self, now: Instant) {
        self.at(now + self.delay);
    }

    /// One is over, which took so long.
    pub(super) fn succeeded(&mut self, took: Duration) {
        self.spent += took;
        self.collections += 1;
        self.interval = interval(self.spent / self.collections, self.pause);
        self.next = None;
        self.expiry = None;
    }

    /// One has failed. It is tried again.
    pub(super) fn failed(&mut self, now: Instant) {
        self.expiry = None;
        self.next = Some(now + self.interval + INTERVAL);
    }

    /// When to collect what expires at `expiry`, seen at `wall`.
    fn after(&self, expiry: SystemTime, now: Instant, wall: SystemTime) -> Instant {
        now + (expiry.duration_since(wall).unwrap_or_default() + AFTER_EXPIRY).min(LONGEST)
    }

    /// Not later than `time`.
    fn at(&mut self, time: Instant) {
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }
}

/// How long to wait between collections that take so long on average.
fn interval(average: Duration, pause: f64) -> Duration {
    if pause > 0.0 { average.max(MINIMUM).mul_f64(1.0 / pause - 1.0) } else { INTERVAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }

    const WALL: SystemTime = SystemTime::UNIX_EPOCH;

    fn changed(mutations: u64, deletions: u64) -> Changed {
        Changed { mutations, deletions, expiry: None }
    }

    const MS: Duration = Duration::from_millis(1);

    /// A schedule whose start is over.
    fn started(settings: &Settings, now: Instant) -> Schedule {
        let mut schedule = Schedule::new(settings, now);
        schedule.succeeded(MS);
        schedule
    }

    #[test]
    fn the_first_comes_after_the_start_and_then_there_is_silence() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&settings(), now);
        assert_eq!(schedule.next(), Some(now + 100 * MS));
        schedule.succeeded(MS);
        assert_eq!(schedule.next(), None);
        let never = Settings { startup_delay: Duration::ZERO, ..settings() };
        assert_eq!(Schedule::new(&never, now).next(), None);
    }

    #[test]
    fn a_deletion_is_collected_within_an_interval_and_further_ones_do_not_put_it_off() {
        let now = Instant::now();
        let mut schedule = started(&settings(), now);
        schedule.changed(changed(99, 0), now, WALL);
        assert_eq!(schedule.next(), None);
        schedule.changed(changed(100, 1), now, WALL);
        assert_eq!(schedule.next(), Some(now + 245 * MS), "five milliseconds are two percent of 250");
        schedule.changed(changed(101, 2), now + 100 * MS, WALL);
        assert_eq!(schedule.next(), Some(now + 245 * MS));
        schedule.succeeded(195 * MS);
        schedule.changed(changed(100, 0), now, WALL);
        assert_eq!(schedule.next(), Some(now + 98 * 49 * MS), "the average counts");
    }

    #[test]
    fn enough_deletions_and_whoever_waits_come_at_once_or_after_the_delay() {
        let now = Instant::now();
        let settings = Settings { deletion_threshold: 3, schedule_delay: 7 * MS, ..settings() };
        let mut schedule = started(&settings, now);
        schedule.changed(changed(2, 2), now, WALL);
        assert_eq!(schedule.next(), Some(now + 245 * MS));
        schedule.changed(changed(3, 3), now, WALL);
        assert_eq!(schedule.next(), Some(now + 7 * MS));
        let mut schedule = started(&settings, now);
        schedule.requested(now);
        assert_eq!(schedule.next(), Some(now + 7 * MS));
    }

    #[test]
    fn what_expires_is_collected_soon_after_and_a_set_clock_is_noticed() {
        let now = Instant::now();
        let mut schedule = started(&settings(), now);
        let expires = |after| Changed { expiry: Some(WALL + after), ..changed(0, 0) };
        schedule.changed(expires(2000 * MS), now, WALL);
        schedule.changed(expires(1000 * MS), now, WALL);
        schedule.changed(expires(3000 * MS), now, WALL);
        assert_eq!(schedule.next(), Some(now + 1100 * MS));
        schedule.requested(now);
        assert_eq!(schedule.next(), Some(now));
        schedule.succeeded(MS);
        schedule.changed(expires(24 * LONGEST), now, WALL);
        assert_eq!(schedule.next(), Some(now + LONGEST));
    }

    #[test]
    fn a_failed_one_is_tried_again() {
        let now = Instant::now();
        let mut schedule = started(&settings(), now);
        schedule.failed(now);
        assert_eq!(schedule.next(), Some(now + 1245 * MS));
    }
}
