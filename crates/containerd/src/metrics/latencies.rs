//! How long something takes: counts by upper bound, as Prometheus' histograms have them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::text::Page;

/// The upper bounds that are told apart, in milliseconds: the defaults of Go's client.
const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// The times that something took.
#[derive(Debug, Default)]
pub struct Latencies {
    /// By the first of [`BOUNDS`] that was enough; the last for those that took longer.
    took: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Latencies {
    /// Something took that long.
    pub fn add(&self, took: Duration) {
        let bound = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.took[bound.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Writes a histogram's numbers. `labels` stand in front of `le` in the alphabet.
    pub fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        let mut below = 0;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.took) {
            below += count.load(Ordering::Relaxed);
            page.sample(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), below);
        }
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        page.sample(&format!("{name}_sum"), labels, sum);
        page.sample(&format!("{name}_count"), labels, below);
    }
}

/// A bound as the label `le` has it.
fn seconds(milliseconds: u64) -> String {
    match milliseconds % 1000 {
        0 => (milliseconds / 1000).to_string(),
        rest => format!("{}.{rest:03}", milliseconds / 1000).trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        let bounds: Vec<_> = BOUNDS.iter().map(|bound| seconds(*bound)).collect();
        let go = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];
        assert_eq!(bounds, go);
    }

    #[test]
    fn a_time_is_in_its_bucket_and_in_those_above() {
        let latencies = Latencies::default();
        latencies.add(Duration::from_millis(20));
        latencies.add(Duration::from_secs(60));
        let mut page = Page::default();
        latencies.write(&mut page, "x", &[("a", "b")]);
        let text = page.finish();
        for line in [
            "x_bucket{a=\"b\",le=\"0.01\"} 0",
            "x_bucket{a=\"b\",le=\"0.025\"} 1",
            "x_bucket{a=\"b\",le=\"10\"} 1",
            "x_bucket{a=\"b\",le=\"+Inf\"} 2",
            "x_sum{a=\"b\"} 60.02",
            "x_count{a=\"b\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
