//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long anything may take that does not say otherwise. Generous, because CI machines are slow; a test that
/// passes does not wait.
pub const DEFAULT: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`DEFAULT`]; `what` is in the message.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(DEFAULT, what, condition);
}

/// Waits until `condition` holds, for `limit` at most.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
