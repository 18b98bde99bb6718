//! ContainerStats.

use std::sync::Arc;
use std::time::SystemTime;

use api::cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, CpuUsage, IoUsage, MemoryUsage, SwapUsage,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use types::Result;

use super::cgroup::{Cpu, Depth, Known, Measured, Memory, Place};
use super::{layer, number};
use crate::container::Container;
use crate::cri::Cri;

/// Writable layers that are measured at once.
const AT_ONCE: usize = 8;

/// A container's usage, and what it was made of.
pub struct Of {
    /// As the CRI tells it.
    pub stats: ContainerStats,
    /// Processes and threads, if they were asked for.
    pub pids: u64,
}

/// The usage of containers. Those that do not run have only what they have written.
pub async fn all(cri: &Cri, containers: Vec<Arc<Container>>, depth: Depth) -> Result<Vec<Of>> {
    let measured = measure(cri, &containers, depth).await?;
    let measured = containers.into_iter().zip(measured);
    stream::iter(measured.map(|(container, measured)| one(cri, container, measured)))
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// What the groups of containers have used; none of those that do not run.
async fn measure(cri: &Cri, containers: &[Arc<Container>], depth: Depth) -> Result<Vec<Option<Measured>>> {
    let running = |container: &Arc<Container>| (Arc::clone(container), pid(cri, container));
    let containers: Vec<(Arc<Container>, u32)> = containers.iter().map(running).collect();
    crate::blocking(move || {
        let measure = |(container, pid): &(Arc<Container>, u32)| {
            groups(container, *pid).map(|groups| groups.measure(depth))
        };
        Ok(containers.iter().map(measure).collect())
    })
    .await
}

/// The first process of a container that runs. What a sandboxer in another process tells may be the number of a process of another
/// machine: here it counts if it is in a group of the container's name.
pub fn pid(cri: &Cri, container: &Container) -> u32 {
    let status = container.status();
    let pod = cri.pods.find(&container.record.pod).ok().flatten();
    let is_told = pod.is_some_and(|pod| pod.sandboxer.is_proxy());
    match status.state() == api::cri::ContainerState::ContainerRunning {
        true if !is_told || is_in_group(status.pid, container.id()) => status.pid,
        _ => 0,
    }
}

fn is_in_group(pid: u32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(name))
}

/// The groups of a container whose first process this is: it stays where it was started.
fn groups(container: &Container, pid: u32) -> Option<&Known> {
    if pid == 0 {
        return None;
    }
    if let Some(groups) = container.groups.get() {
        return Some(groups);
    }
    let place = Place::of_process(pid).ok()?;
    Some(container.groups.get_or_init(|| Known::at(place)))
}

async fn one(cri: &Cri, container: Arc<Container>, measured: Option<Measured>) -> Result<Of> {
    let record = &container.record;
    let attributes = ContainerAttributes {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    };
    let writable_layer = Some(layer::of(cri, &record.id).await?);
    let measured = measured.unwrap_or_default();
    let timestamp = types::time::nanoseconds(SystemTime::now());
    let pids = measured.pids.map_or(0, |pids| pids.current);
    let stats = ContainerStats {
        attributes: Some(attributes),
        cpu: measured.cpu.as_ref().map(|cpu| self::cpu(cri, &record.id, cpu, timestamp)),
        memory: measured.memory.as_ref().map(|memory| self::memory(memory, timestamp)),
        writable_layer,
        swap: measured.memory.as_ref().and_then(|memory| swap(memory, timestamp)),
        io: measured.io_pressure.map(|psi| IoUsage { timestamp, psi: Some(psi) }),
    };
    Ok(Of { stats, pids })
}

/// Processors, of a container or pod.
pub fn cpu(cri: &Cri, id: &str, cpu: &Cpu, timestamp: i64) -> CpuUsage {
    let settings = &cri.config.runtime;
    let rate = cri.stats.rates.add(id, cpu.usage, settings.stats_period, settings.stats_retention);
    CpuUsage {
        timestamp,
        usage_core_nano_seconds: number(cpu.usage),
        usage_nano_cores: rate.and_then(number),
        psi: cpu.pressure,
    }
}

/// Memory, of a container or pod.
pub fn memory(memory: &Memory, timestamp: i64) -> MemoryUsage {
    MemoryUsage {
        timestamp,
        working_set_bytes: number(memory.working_set()),
        available_bytes: number(memory.available()),
        usage_bytes: number(memory.usage),
        rss_bytes: number(memory.rss),
        page_faults: number(memory.faults),
        major_page_faults: number(memory.major_faults),
        psi: memory.pressure,
    }
}

fn swap(memory: &Memory, timestamp: i64) -> Option<SwapUsage> {
    let used = memory.swap?;
    let available = memory.swap_limit.map(|limit| limit.saturating_sub(used));
    Some(SwapUsage {
        timestamp,
        swap_available_bytes: available.and_then(number),
        swap_usage_bytes: number(used),
    })
}

/// The containers that pass a filter.
pub fn chosen(cri: &Cri, filter: Option<ContainerStatsFilter>) -> Vec<Arc<Container>> {
    let ContainerStatsFilter { id, pod_sandbox_id, label_selector } = filter.unwrap_or_default();
    let id = cri.containers.find(&id).ok().flatten().map_or(id, |container| container.id().to_owned());
    let pod = cri.pods.find(&pod_sandbox_id).ok().flatten().map_or(pod_sandbox_id, |pod| pod.id().to_owned());
    let mut containers = cri.containers.list();
    containers.retain(|container| {
        let labels = &container.record.config.labels;
        (id.is_empty() || container.id() == id)
            && (pod.is_empty() || container.record.pod == pod)
            && label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    containers
}
