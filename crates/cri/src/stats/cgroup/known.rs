//! A group that is measured again and again: its limits are remembered, as each file that is opened costs as much as all of the
//! numbers in it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Depth, Limits, Measured, Place};

/// How long limits are taken for what they were: somebody may have changed them without asking us.
const GOOD: Duration = Duration::from_secs(60);

/// A group, and what is known of it.
#[derive(Debug)]
pub struct Known {
    place: Place,
    limits: Mutex<Option<(Instant, Limits)>>,
}

impl Known {
    /// The group that is there.
    pub fn at(place: Place) -> Self {
        Self { place, limits: Mutex::default() }
    }

    /// Reads what it has used. Blocks as long as the kernel does.
    pub fn measure(&self, depth: Depth) -> Measured {
        self.place.measure_within(depth, self.limits())
    }

    /// Its limits are others now.
    pub fn forget_limits(&self) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn limits(&self) -> Limits {
        // Held while they are read: what was read before a change never comes after it.
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, limits) = match *limits {
            Some(known) if known.0.elapsed() < GOOD => known,
            _ => *limits.insert((Instant::now(), self.place.limits())),
        };
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_once_and_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        let known = Known::at(Place::Second(dir.path().to_owned()));
        let limit = || known.measure(Depth::Usage).memory.unwrap().limit;
        put("memory.current", "1\n");
        put("memory.max", "100\n");
        assert_eq!(limit(), Some(100));
        put("memory.max", "200\n");
        assert_eq!(limit(), Some(100));
        known.forget_limits();
        assert_eq!(limit(), Some(200));
    }
}
