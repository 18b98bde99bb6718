//! What garbage collection has done, `containerd_gc_*`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::grpc::seconds;
use super::text::{Kind, Page};
use crate::calls::BOUNDS;

/// The collections of this daemon's life. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Collections(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    took: [AtomicU64; BOUNDS.len()],
    nanoseconds: AtomicU64,
}

impl Collections {
    /// A collection has ended after `took`, well or badly. Only those that ended well are in the histogram, as by
    /// upstream.
    pub fn ended(&self, took: Duration, well: bool) {
        let counters = &self.0;
        if !well {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counters.succeeded.fetch_add(1, Ordering::Relaxed);
        if let Some(bound) = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound)) {
            counters.took[bound].fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        counters.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Writes the families.
    pub fn write(&self, page: &mut Page) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (succeeded, failed) = (load(&self.0.succeeded), load(&self.0.failed));
        // A status is not there before it has happened, as by upstream.
        if succeeded + failed > 0 {
            const NAME: &str = "containerd_gc_collections_total";
            page.family(NAME, Kind::Counter, "Garbage collections by outcome.");
            for (status, count) in [("fail", failed), ("success", succeeded)] {
                if count > 0 {
                    page.sample(NAME, &[("status", status)], count);
                }
            }
        }
        const NAME: &str = "containerd_gc_gc_seconds";
        page.family(NAME, Kind::Histogram, "Seconds that garbage collections took.");
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&self.0.took) {
            below += load(count);
            page.sample("containerd_gc_gc_seconds_bucket", &[("le", &seconds(*bound))], below);
        }
        let count = succeeded.max(below);
        page.sample("containerd_gc_gc_seconds_bucket", &[("le", "+Inf")], count);
        page.sample("containerd_gc_gc_seconds_sum", &[], super::seconds(load(&self.0.nanoseconds)));
        page.sample("containerd_gc_gc_seconds_count", &[], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_in_the_bucket_of_its_time_and_in_those_above() {
        let collections = Collections::default();
        collections.ended(Duration::from_millis(20), true);
        collections.ended(Duration::from_secs(60), true);
        collections.ended(Duration::from_secs(60), false);
        let mut page = Page::default();
        collections.write(&mut page);
        let text = page.finish();
        for line in [
            "containerd_gc_collections_total{status=\"fail\"} 1",
            "containerd_gc_collections_total{status=\"success\"} 2",
            "containerd_gc_gc_seconds_bucket{le=\"0.01\"} 0",
            "containerd_gc_gc_seconds_bucket{le=\"0.025\"} 1",
            "containerd_gc_gc_seconds_bucket{le=\"10\"} 1",
            "containerd_gc_gc_seconds_bucket{le=\"+Inf\"} 2",
            "containerd_gc_gc_seconds_sum 60.02",
            "containerd_gc_gc_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
