//! What NRI plugins were asked, `containerd_nri_*`: under upstream's names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::nri::Observed;

use super::latencies::Latencies;
use super::text::{Kind, Page};

/// Counted of plugins.
#[derive(Debug, Default)]
pub struct Plugins {
    active: AtomicUsize,
    asked: Mutex<Asked>,
}

/// A plugin and an operation.
type Of = (String, &'static str);

#[derive(Debug, Default)]
struct Asked {
    /// With the error, empty for none.
    invocations: BTreeMap<(Of, &'static str), u64>,
    /// With what was wanted of other containers.
    adjustments: BTreeMap<(Of, &'static str), u64>,
    took: BTreeMap<Of, Latencies>,
}

impl Plugins {
    /// Counts.
    pub fn observe(&self, observed: Observed) {
        match observed {
            Observed::Active(count) => self.active.store(count, Ordering::Relaxed),
            Observed::Asked { plugin, operation, took, error } => {
                let mut asked = self.lock();
                let of = (plugin, operation);
                asked.took.entry(of.clone()).or_default().add(took);
                *asked.invocations.entry((of, error.unwrap_or_default())).or_default() += 1;
            }
            Observed::Wanted { plugin, operation, updates, evictions } => {
                let mut asked = self.lock();
                for (kind, count) in [("update", updates), ("evict", evictions)] {
                    if count > 0 {
                        let wanted =
                            asked.adjustments.entry(((plugin.clone(), operation), kind)).or_default();
                        *wanted = wanted.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                    }
                }
            }
        }
    }

    /// Writes the families of what has happened.
    pub fn write(&self, page: &mut Page) {
        const ACTIVE: &str = "containerd_nri_active_plugins_total";
        const INVOCATIONS: &str = "containerd_nri_plugin_invocations_total";
        const ADJUSTMENTS: &str = "containerd_nri_plugin_adjustments_total";
        const TOOK: &str = "containerd_nri_plugin_latency_seconds";
        page.single(ACTIVE, Kind::Gauge, "NRI plugins that are there.", self.active.load(Ordering::Relaxed));
        let asked = self.lock();
        if !asked.invocations.is_empty() {
            page.family(INVOCATIONS, Kind::Counter, "What NRI plugins were asked, by outcome.");
        }
        for (((plugin, operation), error), count) in &asked.invocations {
            let status = if error.is_empty() { "success" } else { "error" };
            let labels =
                [("error", *error), ("operation", operation), ("plugin", plugin), ("status", status)];
            page.sample(INVOCATIONS, &labels, count);
        }
        if !asked.adjustments.is_empty() {
            page.family(ADJUSTMENTS, Kind::Counter, "What NRI plugins wanted of other containers.");
        }
        for (((plugin, operation), kind), count) in &asked.adjustments {
            let labels = [("operation", *operation), ("plugin", plugin), ("type", kind)];
            page.sample(ADJUSTMENTS, &labels, count);
        }
        if !asked.took.is_empty() {
            page.family(TOOK, Kind::Histogram, "Seconds that NRI plugins took, by operation.");
        }
        for ((plugin, operation), took) in &asked.took {
            took.write(page, TOOK, &[("operation", operation), ("plugin", plugin)]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_plugins_were_asked_is_told_under_upstreams_names() {
        let plugins = Plugins::default();
        let asked = |error| Observed::Asked {
            plugin: "10-a".to_owned(),
            operation: "CreateContainer",
            took: Duration::from_millis(20),
            error,
        };
        plugins.observe(Observed::Active(2));
        plugins.observe(asked(None));
        plugins.observe(asked(None));
        plugins.observe(asked(Some("deadline_exceeded")));
        let plugin = "10-a".to_owned();
        plugins.observe(Observed::Wanted { plugin, operation: "CreateContainer", updates: 3, evictions: 0 });
        let mut page = Page::default();
        plugins.write(&mut page);
        let text = page.finish();
        for line in [
            "containerd_nri_active_plugins_total 2",
            r#"containerd_nri_plugin_invocations_total{error="",operation="CreateContainer",plugin="10-a",status="success"} 2"#,
            r#"containerd_nri_plugin_invocations_total{error="deadline_exceeded",operation="CreateContainer",plugin="10-a",status="error"} 1"#,
            r#"containerd_nri_plugin_adjustments_total{operation="CreateContainer",plugin="10-a",type="update"} 3"#,
            r#"containerd_nri_plugin_latency_seconds_count{operation="CreateContainer",plugin="10-a"} 3"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(!text.contains(r#"type="evict""#), "{text}");
    }
}
