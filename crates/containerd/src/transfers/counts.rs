//! How many pulls and pushes there were, what came of them, and how many bytes they moved: `containerd_transfer_*`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use types::Class;

use crate::metrics::{Kind, Latencies, Text as Page};

/// What has become of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Pulled,
    /// A verifier was against it.
    Vetoed,
    /// It failed.
    Failed(Class),
}

impl Outcome {
    /// In a word, for metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::Pulled => "",
            Self::Vetoed => "vetoed",
            Self::Failed(class) => match class {
                Class::NotFound => "not_found",
                Class::Unauthenticated | Class::PermissionDenied => "denied",
                Class::Unavailable => "unavailable",
                Class::DeadlineExceeded => "timeout",
                Class::DataLoss => "corrupt",
                Class::ResourceExhausted => "limit",
                Class::Canceled | Class::Aborted => "canceled",
                Class::InvalidArgument | Class::OutOfRange => "invalid",
                Class::Unimplemented => "unsupported",
                Class::AlreadyExists | Class::FailedPrecondition => "precondition",
                Class::Internal | Class::Unknown => "other",
            },
        }
    }
}

/// The pulls and pushes of this daemon's life.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) running: AtomicU64,
    pub(super) bytes: AtomicU64,
    pulled: AtomicU64,
    failed: Mutex<BTreeMap<&'static str, u64>>,
    took: Latencies,
    pushed: AtomicU64,
    not_pushed: AtomicU64,
}

impl Counts {
    /// A pull has ended.
    pub(super) fn ended(&self, outcome: Outcome, took: Duration) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        if outcome == Outcome::Pulled {
            self.pulled.fetch_add(1, Ordering::Relaxed);
            self.took.add(took);
            return;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed.entry(outcome.reason()).or_default() += 1;
    }

    /// A push has ended, well or badly.
    pub(super) fn pushed(&self, well: bool) {
        let count = if well { &self.pushed } else { &self.not_pushed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the families.
    pub fn write(&self, page: &mut Page) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        const NOW: &str = "containerd_transfer_pulls_in_progress";
        page.single(NOW, Kind::Gauge, "Pulls that are under way.", load(&self.running));
        const BYTES: &str = "containerd_transfer_pulled_bytes_total";
        page.single(BYTES, Kind::Counter, "Bytes that came from registries.", load(&self.bytes));
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        const PULLS: &str = "containerd_transfer_pulls_total";
        page.family(PULLS, Kind::Counter, "Pulls that have ended, by outcome.");
        page.sample(PULLS, &[("status", "fail")], failed.values().sum::<u64>());
        page.sample(PULLS, &[("status", "success")], load(&self.pulled));
        const FAILURES: &str = "containerd_transfer_pull_failures_total";
        page.family(FAILURES, Kind::Counter, "Pulls that have failed, by reason.");
        for (reason, count) in failed {
            page.sample(FAILURES, &[("reason", reason)], count);
        }
        const SECONDS: &str = "containerd_transfer_pull_seconds";
        page.family(SECONDS, Kind::Histogram, "Seconds that successful pulls took.");
        self.took.write(page, SECONDS, &[]);
        const PUSHES: &str = "containerd_transfer_pushes_total";
        page.family(PUSHES, Kind::Counter, "Pushes that have ended, by outcome.");
        page.sample(PUSHES, &[("status", "fail")], load(&self.not_pushed));
        page.sample(PUSHES, &[("status", "success")], load(&self.pushed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_and_only_what_came_is_timed() {
        let counts = Counts::default();
        for outcome in [Outcome::Pulled, Outcome::Failed(Class::NotFound), Outcome::Vetoed, Outcome::Vetoed] {
            counts.running.fetch_add(1, Ordering::Relaxed);
            counts.ended(outcome, Duration::from_secs(1));
        }
        counts.bytes.fetch_add(7, Ordering::Relaxed);
        counts.pushed(false);
        let mut page = Page::default();
        counts.write(&mut page);
        let text = page.finish();
        for line in [
            "containerd_transfer_pulls_in_progress 0",
            "containerd_transfer_pulled_bytes_total 7",
            "containerd_transfer_pulls_total{status=\"fail\"} 3",
            "containerd_transfer_pulls_total{status=\"success\"} 1",
            "containerd_transfer_pull_failures_total{reason=\"not_found\"} 1",
            "containerd_transfer_pull_failures_total{reason=\"vetoed\"} 2",
            "containerd_transfer_pull_seconds_count 1",
            "containerd_transfer_pushes_total{status=\"fail\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
