//! What garbage collection has done, `containerd_gc_*`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latencies::Latencies;
use super::text::{Kind, Page};

/// The collections of this daemon's life. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Collections(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Of those that ended well, as by upstream.
    took: Latencies,
}

impl Collections {
    /// A collection has ended after `took`, well or badly.
    pub fn ended(&self, took: Duration, well: bool) {
        if well {
            self.0.succeeded.fetch_add(1, Ordering::Relaxed);
            self.0.took.add(took);
        } else {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
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
        self.0.took.write(page, NAME, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_once_it_has_happened() {
        let collections = Collections::default();
        let text = || {
            let mut page = Page::default();
            collections.write(&mut page);
            page.finish()
        };
        assert!(!text().contains("status") && text().contains("containerd_gc_gc_seconds_count 0\n"));
        collections.ended(Duration::from_millis(20), true);
        collections.ended(Duration::from_secs(60), false);
        for outcome in ["fail", "success"] {
            let line = format!("containerd_gc_collections_total{{status=\"{outcome}\"}} 1\n");
            assert!(text().contains(&line), "{}", text());
        }
        assert!(text().contains("containerd_gc_gc_seconds_count 1\n"), "{}", text());
    }
}
