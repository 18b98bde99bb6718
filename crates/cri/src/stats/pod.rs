//! PodSandboxStats: the pod's own group, its interfaces, and its containers.

use std::sync::Arc;
use std::time::SystemTime;

use api::cri::{
    ContainerStatsFilter, IoUsage, LinuxPodSandboxStats, PodSandboxAttributes, PodSandboxStats,
    PodSandboxStatsFilter, ProcessUsage,
};
use types::{Error, Result};

use super::cgroup::{Depth, Measured, Place};
use super::network::Interface;
use super::{container, network, number};
use crate::cri::Cri;
use crate::pod::{Pod, State};

/// The usage of a pod. One that is not ready cannot be measured.
pub async fn one(cri: &Cri, pod: &Pod) -> Result<PodSandboxStats> {
    let config = &pod.record.config;
    let (measured, interfaces) = measure(pod).await?;
    let timestamp = types::time::nanoseconds(SystemTime::now());
    let filter =
        ContainerStatsFilter { pod_sandbox_id: pod.id().to_owned(), ..ContainerStatsFilter::default() };
    let containers = container::all(cri, container::chosen(cri, Some(filter)), Depth::Processes).await?;
    let pids = containers.iter().map(|of| of.pids).sum();
    let linux = LinuxPodSandboxStats {
        cpu: measured.cpu.as_ref().map(|cpu| container::cpu(cri, pod.id(), cpu, timestamp)),
        memory: measured.memory.as_ref().map(|memory| container::memory(memory, timestamp)),
        network: interfaces.map(|interfaces| network::usage(&interfaces, timestamp)),
        process: Some(ProcessUsage { timestamp, process_count: number(pids) }),
        containers: containers.into_iter().map(|of| of.stats).collect(),
        io: measured.io_pressure.map(|psi| IoUsage { timestamp, psi: Some(psi) }),
    };
    let attributes = PodSandboxAttributes {
        id: pod.id().to_owned(),
        metadata: config.metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
    };
    Ok(PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None })
}

/// What the pod's group has used, and its interfaces; none on the host's network.
async fn measure(pod: &Pod) -> Result<(Measured, Option<Vec<Interface>>)> {
    let id = pod.id();
    let status = pod.status();
    if status.state != State::Ready {
        return Err(Error::unavailable(format!(
            "failed to get pod sandbox stats since sandbox container {id:?} is not in ready state"
        )));
    }
    let group = pod.record.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    if group.is_empty() {
        return Err(Error::unknown(format!(
            "failed getting metrics for sandbox {id}: failed to get cgroup metrics for sandbox {id} because cgroupPath is empty"
        )));
    }
    let own_network = !pod.record.netns.is_empty() && is_inside(pod, status.pid);
    crate::blocking(move || {
        let interfaces = own_network.then(|| network::read(status.pid)).transpose();
        let interfaces = interfaces.map_err(|error| error.context("failed to obtain network stats"))?;
        Ok((Place::named(&group).measure(Depth::Usage), interfaces))
    })
    .await
}

/// The interfaces of a pod that is ready; none on the host's network.
pub async fn interfaces(pod: &Pod) -> Result<Vec<Interface>> {
    let pid = pod.status().pid;
    if pod.record.netns.is_empty() || !is_inside(pod, pid) {
        return Ok(Vec::new());
    }
    crate::blocking(move || network::read(pid)).await
}

/// Whether the sandbox's process is in the pod's network. What a sandboxer in another process tells may be the number of a process of
/// another machine.
fn is_inside(pod: &Pod, pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &str| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    !pod.sandboxer.is_proxy() || identity(&pod.record.netns) == identity(&format!("/proc/{pid}/ns/net"))
}

/// The pods that pass a filter. Where there is one, as upstream, those that are not ready do not.
pub fn chosen(cri: &Cri, filter: Option<PodSandboxStatsFilter>) -> Vec<Arc<Pod>> {
    let mut pods = cri.pods.list();
    let Some(PodSandboxStatsFilter { id, label_selector }) = filter else { return pods };
    let id = cri.pods.find(&id).ok().flatten().map_or(id, |pod| pod.id().to_owned());
    pods.retain(|pod| {
        let labels = &pod.record.config.labels;
        (id.is_empty() || pod.id() == id)
            && label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && pod.status().state == State::Ready
    });
    pods
}

/// The usage of pods. Those that end meanwhile, or are not ready, are left out.
pub async fn all(cri: &Cri, pods: Vec<Arc<Pod>>) -> Result<Vec<PodSandboxStats>> {
    let (mut stats, mut errors) = (Vec::new(), Vec::new());
    for pod in pods {
        match one(cri, &pod).await {
            Ok(of) => stats.push(of),
            Err(error) if matches!(error.class(), types::Class::Unavailable | types::Class::NotFound) => {
                tracing::debug!(id = pod.id(), %error, "a pod could not be measured");
            }
            Err(error) => {
                let id = pod.id();
                errors
                    .push(format!("failed to decode sandbox container metrics for sandbox {id:?}: {error}"));
            }
        }
    }
    if errors.is_empty() { Ok(stats) } else { Err(Error::unknown(errors.join("\n"))) }
}
