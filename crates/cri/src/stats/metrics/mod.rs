//! ListPodSandboxMetrics: usage of pods and containers by cAdvisor's names, for who scrapes kubelets.

mod files;
mod spec;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use api::cri::{ContainerMetrics, Metric, PodSandboxMetrics};
use serde_json::Value;
use types::Result;

use super::cgroup::{Cpu, Depth, Device, Measured, Memory, Pids, Place};
use super::descriptors::kind;
use super::{layer, network, number, pod};
use crate::container::Container;
use crate::cri::Cri;
use crate::pod::{Pod, State};

use files::Descriptors;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The metrics of all pods that are ready.
pub async fn all(cri: &Cri) -> Vec<PodSandboxMetrics> {
    let mut by_pod: HashMap<String, Vec<Arc<Container>>> = HashMap::new();
    for container in cri.containers.list() {
        by_pod.entry(container.record.pod.clone()).or_default().push(container);
    }
    let mut all = Vec::new();
    for pod in cri.pods.list().into_iter().filter(|pod| pod.status().state == State::Ready) {
        let containers = by_pod.remove(pod.id()).unwrap_or_default();
        match one(cri, &pod, containers).await {
            Ok(metrics) => all.push(metrics),
            // It has ended meanwhile, most often.
            Err(error) => tracing::debug!(id = pod.id(), %error, "a pod could not be measured"),
        }
    }
    all
}

async fn one(cri: &Cri, pod: &Pod, containers: Vec<Arc<Container>>) -> Result<PodSandboxMetrics> {
    let metadata = pod.record.config.metadata.clone().unwrap_or_default();
    let names = [metadata.name, metadata.namespace];
    let mut metrics = Metrics::new(&names, ["", pod.id(), ""]);
    if let Some(first) = network::first(&pod::interfaces(pod).await?) {
        metrics.interface(first);
    }
    let mut container_metrics = Vec::new();
    for container in containers {
        let running = container.status().state() == api::cri::ContainerState::ContainerRunning;
        if running && let Some(metrics) = of_container(cri, &names, &container).await? {
            container_metrics.push(ContainerMetrics { container_id: container.id().to_owned(), metrics });
        }
    }
    Ok(PodSandboxMetrics { pod_sandbox_id: pod.id().to_owned(), metrics: metrics.list, container_metrics })
}

/// None if the container has ended meanwhile.
async fn of_container(cri: &Cri, names: &[String; 2], container: &Container) -> Result<Option<Vec<Metric>>> {
    let (record, status) = (&container.record, container.status());
    let config = &record.config;
    let name = config.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
    let image = config.image.as_ref().map(|image| image.user_specified_image.as_str()).unwrap_or_default();
    let mut metrics = Metrics::new(names, [name, &record.id, image]);
    let Ok(row) = cri.db.containers(&cri.namespace).get(&record.id) else { return Ok(None) };
    let root = (cri.doors.snapshotter_root)(&row.snapshotter);
    let Some(seen) = look(super::container::pid(cri, container), root).await? else { return Ok(None) };
    let (now, _) = types::time::unix(SystemTime::now());
    metrics.add("container_last_seen", now.unsigned_abs());
    metrics.add("container_start_time_seconds", status.started_at.unsigned_abs() / SECOND);
    metrics.measured(&seen.measured);
    metrics.filesystem(&seen, &layer::of(cri, &record.id).await?);
    metrics.add("container_file_descriptors", seen.descriptors.files);
    metrics.add("container_sockets", seen.descriptors.sockets);
    let spec: Value = row.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).unwrap_or_default();
    spec::add(&mut metrics, &spec);
    Ok(Some(metrics.list))
}

/// What was seen of a container.
struct Seen {
    measured: Measured,
    descriptors: Descriptors,
    filesystem: Option<rustix::fs::StatVfs>,
}

async fn look(pid: u32, root: PathBuf) -> Result<Option<Seen>> {
    crate::blocking(move || {
        let Ok(place) = Place::of_process(pid) else { return Ok(None) };
        let measured = place.measure(Depth::All);
        let descriptors = Descriptors::count(&place.processes());
        Ok(Some(Seen { measured, descriptors, filesystem: rustix::fs::statvfs(&root).ok() }))
    })
    .await
}

/// Metrics with the same labels.
pub struct Metrics {
    labels: Vec<String>,
    timestamp: i64,
    list: Vec<Metric>,
}

impl Metrics {
    fn new(pod: &[String; 2], container: [&str; 3]) -> Self {
        let labels = pod.iter().cloned().chain(container.map(str::to_owned)).collect();
        Self { labels, timestamp: types::time::nanoseconds(SystemTime::now()), list: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, value: u64) {
        self.add_with(name, &[], value);
    }

    /// Adds one with more labels.
    pub fn add_with(&mut self, name: &str, more: &[&str], value: u64) {
        let label_values = self.labels.iter().cloned().chain(more.iter().map(|label| (*label).to_owned()));
        self.list.push(Metric {
            name: name.to_owned(),
            timestamp: self.timestamp,
            metric_type: kind(name).into(),
            label_values: label_values.collect(),
            value: number(value),
        });
    }

    fn interface(&mut self, interface: &network::Interface) {
        for (way, counters) in [("receive", interface.rx), ("transmit", interface.tx)] {
            for (what, value) in [
                ("bytes", counters.bytes),
                ("packets", counters.packets),
                ("packets_dropped", counters.dropped),
                ("errors", counters.errors),
            ] {
                self.add_with(&format!("container_network_{way}_{what}_total"), &[&interface.name], value);
            }
        }
    }

    fn measured(&mut self, measured: &Measured) {
        measured.cpu.iter().for_each(|cpu| self.cpu(cpu));
        measured.memory.iter().for_each(|memory| self.memory(memory));
        measured.devices.iter().for_each(|device| self.device(device));
        measured.pids.iter().for_each(|pids| self.pids(*pids));
    }

    fn cpu(&mut self, cpu: &Cpu) {
        self.add("container_cpu_usage_seconds_total", cpu.usage / SECOND);
        self.add("container_cpu_user_seconds_total", cpu.user / SECOND);
        self.add("container_cpu_system_seconds_total", cpu.system / SECOND);
        self.add("container_cpu_cfs_periods_total", cpu.periods);
        self.add("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods);
        self.add("container_cpu_cfs_throttled_seconds_total", cpu.throttled / SECOND);
    }

    fn memory(&mut self, memory: &Memory) {
        self.add("container_memory_usage_bytes", memory.usage);
        self.add("container_memory_max_usage_bytes", memory.max_usage);
        self.add("container_memory_working_set_bytes", memory.working_set());
        self.add("container_memory_rss", memory.rss);
        self.add("container_memory_cache", memory.cache);
        self.add("container_memory_kernel_usage", memory.kernel);
        self.add("container_memory_mapped_file", memory.mapped_file);
        self.add("container_memory_swap", memory.swap.unwrap_or_default());
        self.add("container_memory_failcnt", memory.failures);
        self.add("container_memory_total_active_file_bytes", memory.active_file);
        self.add("container_memory_total_inactive_file_bytes", memory.inactive_file);
        self.add_with("container_memory_failures_total", &["pgfault", "container"], memory.faults);
        self.add_with("container_memory_failures_total", &["pgmajfault", "container"], memory.major_faults);
        memory.oom_kills.iter().for_each(|kills| self.add("container_oom_events_total", *kills));
    }

    fn device(&mut self, device: &Device) {
        let (major, minor) = (device.major.to_string(), device.minor.to_string());
        let name = format!("{major}:{minor}");
        self.add_with("container_fs_reads_bytes_total", &[&name], device.read_bytes);
        self.add_with("container_fs_writes_bytes_total", &[&name], device.written_bytes);
        self.add_with("container_fs_reads_total", &[&name], device.reads);
        self.add_with("container_fs_writes_total", &[&name], device.writes);
        if sys::cgroup::mode() == sys::cgroup::Mode::Legacy {
            let usage = "container_blkio_device_usage_total";
            self.add_with(usage, &[&name, &major, &minor, "Read"], device.read_bytes);
            self.add_with(usage, &[&name, &major, &minor, "Write"], device.written_bytes);
        }
    }

    fn pids(&mut self, pids: Pids) {
        self.add("container_processes", pids.current);
        self.add("container_threads_max", pids.limit);
        self.add("container_threads", pids.current);
    }

    fn filesystem(&mut self, seen: &Seen, layer: &api::cri::FilesystemUsage) {
        let used = layer.used_bytes.map(|bytes| bytes.value).unwrap_or_default();
        self.add_with("container_fs_usage_bytes", &["/"], used);
        let Some(filesystem) = &seen.filesystem else { return };
        let limit = filesystem.f_blocks.saturating_mul(filesystem.f_frsize);
        self.add_with("container_fs_limit_bytes", &["/"], limit);
        self.add_with("container_fs_inodes_total", &["/"], filesystem.f_files);
        self.add_with("container_fs_inodes_free", &["/"], filesystem.f_ffree);
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::{ALL, list};
    use super::*;

    #[test]
    fn what_is_told_is_described_with_as_many_labels() {
        let mut metrics = Metrics::new(&["p".into(), "n".into()], ["c", "id", "image"]);
        let memory = Memory { oom_kills: Some(1), ..Memory::default() };
        let measured = Measured {
            cpu: Some(Cpu { usage: 3 * SECOND, ..Cpu::default() }),
            memory: Some(memory),
            pids: Some(Pids::default()),
            devices: vec![Device { major: 8, ..Device::default() }],
            io_pressure: None,
        };
        metrics.measured(&measured);
        metrics.interface(&network::Interface { name: "eth0".into(), ..network::Interface::default() });
        let spec = serde_json::json!({
            "process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}]},
            "linux": {"resources": {"cpu": {"shares": 2, "period": 3}, "memory": {"limit": 4, "reservation": 5, "swap": 6}}},
        });
        spec::add(&mut metrics, &spec);
        assert!(metrics.list.len() > 30);
        let described = list();
        for metric in &metrics.list {
            let descriptor = described.iter().find(|known| known.name == metric.name);
            let descriptor = descriptor.unwrap_or_else(|| panic!("{} is not described", metric.name));
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        let usage = metrics.list.iter().find(|metric| metric.name == ALL[2].0).unwrap();
        assert_eq!(usage.value.unwrap().value, 3);
        assert_eq!(usage.label_values, ["p", "n", "c", "id", "image"]);
    }
}
