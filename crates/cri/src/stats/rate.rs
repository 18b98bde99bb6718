//! How many cores something uses: two measurements of the time that it has used. The first one is made by the first request.

use std::time::{Duration, Instant};

use super::recent::{Found, Recent};

/// The last measurements by id.
#[derive(Debug, Default)]
pub struct Rates(Recent<Samples>);

/// Nanoseconds of processors used until then.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    used: u64,
}

/// The last measurement, and the one before it.
#[derive(Clone, Copy, Debug)]
struct Samples {
    last: Sample,
    before: Option<Sample>,
}

impl Found for Samples {
    fn at(&self) -> Instant {
        self.last.at
    }
}

impl Rates {
    /// Takes a measurement; answers with the nanoseconds of processors that are used in a second, if there is one to compare it
    /// with. Measurements that are closer together than `period` count as one; those older than `retention` are forgotten.
    pub fn add(&self, id: &str, used: u64, period: Duration, retention: Duration) -> Option<u64> {
        let (mut known, now) = (self.0.known(), Instant::now());
        known.sweep(now, retention);
        let is_kept = |samples: &Samples| now.duration_since(samples.at()) < retention;
        let new = Sample { at: now, used };
        let Some(samples) = known.by_id.get_mut(id).filter(|samples| is_kept(samples)) else {
            known.by_id.insert(id.to_owned(), Samples { last: new, before: None });
            return None;
        };
        samples.add(new, period)
    }
}

impl Samples {
    fn add(&mut self, new: Sample, period: Duration) -> Option<u64> {
        let before = if new.at.duration_since(self.last.at) >= period {
            let before = std::mem::replace(&mut self.last, new);
            self.before = Some(before);
            before
        } else {
            self.before.unwrap_or(self.last)
        };
        let nanoseconds =
            u64::try_from(new.at.duration_since(before.at).as_nanos()).ok().filter(|time| *time > 0)?;
        // A group that was made anew begins at nothing.
        let used = new.used.checked_sub(before.used)?;
        u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(nanoseconds)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_measurements_that_are_not_too_close() {
        let begun = Instant::now();
        let sample = |milliseconds, used| Sample { at: begun + Duration::from_millis(milliseconds), used };
        let period = Duration::from_secs(1);
        let mut samples = Samples { last: sample(0, 0), before: None };
        assert_eq!(samples.add(sample(0, 7), period), None);
        // Close to the first one: compared with it, and not kept.
        assert_eq!(samples.add(sample(500, 250_000_000), period), Some(500_000_000));
        assert_eq!(samples.add(sample(2000, 1_000_000_000), period), Some(500_000_000));
        assert_eq!(samples.add(sample(2100, 2_100_000_000), period), Some(1_000_000_000));
        assert_eq!(samples.add(sample(4000, 5), period), None);
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let rates = Rates::default();
        assert_eq!(rates.add("a", 1, Duration::ZERO, Duration::from_secs(60)), None);
        std::thread::sleep(Duration::from_millis(2));
        assert!(rates.add("a", 2, Duration::ZERO, Duration::from_secs(60)).is_some());
        assert_eq!(rates.add("a", 3, Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn what_nobody_asks_for_does_not_stay_in_memory() {
        let (rates, retention) = (Rates::default(), Duration::from_millis(20));
        for n in 0..100 {
            rates.add(&n.to_string(), 1, Duration::ZERO, retention);
        }
        std::thread::sleep(2 * retention);
        rates.add("a", 1, Duration::ZERO, retention);
        assert_eq!(rates.0.known().by_id.len(), 1);
    }
}
