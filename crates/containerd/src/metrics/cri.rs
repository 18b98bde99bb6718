//! What the CRI has done, `containerd_cri_*`: under upstream's names, which say twice what they count in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::cri::Observed;

use super::latencies::Latencies;
use super::nri::Plugins;
use super::text::{Kind, Page};

/// Counted of the CRI. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Pods(Arc<Counts>);

/// A step, and the type of the runtime where it makes a difference.
type Step = (&'static str, Option<String>);

#[derive(Debug, Default)]
struct Counts {
    /// How long they took.
    steps: Mutex<BTreeMap<Step, Arc<Latencies>>>,
    /// By operation: how often, how often in vain, how long.
    networks: Mutex<BTreeMap<&'static str, Arc<Network>>>,
    /// Events of containers that nobody has heard.
    dropped: AtomicU64,
    plugins: Plugins,
    pulling: AtomicI64,
    pulled: AtomicU64,
    failed: AtomicU64,
    /// Megabytes a second, in place of seconds.
    throughput: Latencies,
}

#[derive(Debug, Default)]
struct Network {
    all: AtomicU64,
    errors: AtomicU64,
    took: Latencies,
}

impl Pods {
    /// Counts.
    pub fn observe(&self, observed: Observed) {
        let counts = &self.0;
        match observed {
            Observed::Took { what, runtime, took } => {
                let mut steps = counts.steps.lock().unwrap_or_else(PoisonError::into_inner);
                steps.entry((what, runtime)).or_default().add(took);
            }
            Observed::Network { operation, took, well } => {
                let mut networks = counts.networks.lock().unwrap_or_else(PoisonError::into_inner);
                let network = networks.entry(operation).or_default();
                network.all.fetch_add(1, Ordering::Relaxed);
                network.errors.fetch_add(u64::from(!well), Ordering::Relaxed);
                network.took.add(took);
            }
            Observed::Plugin(observed) => counts.plugins.observe(observed),
            Observed::EventsDropped(count) => {
                counts.dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Observed::PullBegun => drop(counts.pulling.fetch_add(1, Ordering::Relaxed)),
            Observed::PullEnded { brought } => {
                counts.pulling.fetch_sub(1, Ordering::Relaxed);
                let ended = if brought.is_some() { &counts.pulled } else { &counts.failed };
                ended.fetch_add(1, Ordering::Relaxed);
                if let Some((bytes, took)) = brought {
                    let megabytes = bytes as f64 / f64::from(1 << 20);
                    let rate = megabytes / took.as_secs_f64().max(1e-3);
                    counts.throughput.add(std::time::Duration::from_secs_f64(rate.min(1e9)));
                }
            }
        }
    }

    /// Writes the families of what has happened.
    pub fn write(&self, page: &mut Page) {
        self.steps(page);
        self.networks(page);
        self.pulls(page);
        const DROPPED: &str = "containerd_cri_container_events_dropped_total";
        let dropped = self.0.dropped.load(Ordering::Relaxed);
        page.single(DROPPED, Kind::Counter, "Events of containers that nobody has heard in time.", dropped);
        self.0.plugins.write(page);
    }

    fn steps(&self, page: &mut Page) {
        let steps = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut family = "";
        for ((what, runtime), took) in &steps {
            let name = format!("containerd_cri_{what}_seconds");
            if family != *what {
                page.family(&name, Kind::Histogram, "Seconds that a step of pods or containers took.");
                family = what;
            }
            let labels = runtime.iter().map(|runtime| ("runtime", runtime.as_str())).collect::<Vec<_>>();
            took.write(page, &name, &labels);
        }
    }

    fn networks(&self, page: &mut Page) {
        let networks = self.0.networks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if networks.is_empty() {
            return;
        }
        const NAME: &str = "containerd_cri_network_plugin_operations";
        let (all, errors) = (format!("{NAME}_total_total"), format!("{NAME}_errors_total_total"));
        page.family(&all, Kind::Counter, "What network plugins were asked, by operation.");
        for (operation, network) in &networks {
            page.sample(&all, &[("operation_type", operation)], network.all.load(Ordering::Relaxed));
        }
        page.family(&errors, Kind::Counter, "What network plugins were asked in vain, by operation.");
        for (operation, network) in &networks {
            page.sample(&errors, &[("operation_type", operation)], network.errors.load(Ordering::Relaxed));
        }
        let took = format!("{NAME}_duration_seconds_seconds");
        page.family(&took, Kind::Histogram, "Seconds that network plugins took, by operation.");
        for (operation, network) in &networks {
            network.took.write(page, &took, &[("operation_type", operation)]);
        }
    }

    fn pulls(&self, page: &mut Page) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (pulled, failed) = (load(&self.0.pulled), load(&self.0.failed));
        const PULLS: &str = "containerd_cri_sandboxed_image_pulls_total";
        if pulled + failed > 0 {
            page.family(PULLS, Kind::Counter, "Pulls by outcome.");
            for (status, count) in [("failure", failed), ("success", pulled)] {
                if count > 0 {
                    page.sample(PULLS, &[("status", status)], count);
                }
            }
        }
        const NOW: &str = "containerd_cri_sandboxed_in_progress_image_pulls_total";
        page.single(NOW, Kind::Gauge, "Pulls under way.", self.0.pulling.load(Ordering::Relaxed));
        const RATE: &str = "containerd_cri_sandboxed_image_pulling_throughput";
        page.family(RATE, Kind::Histogram, "Megabytes that a pull brought in a second.");
        self.0.throughput.write(page, RATE, &[]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_has_happened_is_told_under_upstreams_names() {
        let pods = Pods::default();
        let took = Duration::from_millis(20);
        let runtime = Some("io.containerd.runc.v2".to_owned());
        pods.observe(Observed::Took { what: "container_create", runtime, took });
        pods.observe(Observed::Took { what: "sandbox_list", runtime: None, took });
        pods.observe(Observed::Network { operation: "set_up_pod", took, well: false });
        pods.observe(Observed::EventsDropped(3));
        pods.observe(Observed::PullBegun);
        pods.observe(Observed::PullBegun);
        pods.observe(Observed::PullEnded { brought: Some((3 << 20, Duration::from_secs(1))) });
        let mut page = Page::default();
        pods.write(&mut page);
        let text = page.finish();
        for line in [
            "containerd_cri_container_create_seconds_bucket{runtime=\"io.containerd.runc.v2\",le=\"0.025\"} 1",
            "containerd_cri_sandbox_list_seconds_count 1",
            "containerd_cri_network_plugin_operations_total_total{operation_type=\"set_up_pod\"} 1",
            "containerd_cri_network_plugin_operations_errors_total_total{operation_type=\"set_up_pod\"} 1",
            "containerd_cri_network_plugin_operations_duration_seconds_seconds_count{operation_type=\"set_up_pod\"} 1",
            "containerd_cri_sandboxed_image_pulls_total{status=\"success\"} 1",
            "containerd_cri_container_events_dropped_total 3",
            "containerd_cri_sandboxed_in_progress_image_pulls_total 1",
            "containerd_cri_sandboxed_image_pulling_throughput_bucket{le=\"2.5\"} 0",
            "containerd_cri_sandboxed_image_pulling_throughput_bucket{le=\"5\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
