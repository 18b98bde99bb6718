//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long anything may take that does not say otherwise. Generous, because CI machines are slow; a test that
/// passes does not wait.
const DEFAULT: Duration = Duration::from_secs(60);

/// The same on this machine.
#[must_use]
pub fn default() -> Duration {
    patient(DEFAULT)
}

/// A limit for this machine: `TEST_PATIENCE` says how many times slower than others it may be.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    let times = std::env::var("TEST_PATIENCE").ok().and_then(|times| times.parse().ok());
    limit * times.unwrap_or(1)
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`default`]; `what` is in the message.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(DEFAULT, what, condition);
}

/// Waits until `condition` holds, for `limit` at most, on a machine that is not slow.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let limit = patient(limit);
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
