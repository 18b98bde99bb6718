//! What calls tell plugins and ask them. What is said to fail the call does; of everything else that fails, the log is told.

use api::cri::LinuxContainerResources;
use serde_json::Value;
use types::{Labels, Result};

use super::{adjust, limits, messages};
use crate::container::{Container, Record};
use crate::cri::Cri;
use crate::pod::{self, Pod};

/// RunPodSandbox: the pod runs, and is not in the store yet. A plugin may refuse.
pub async fn run_pod_sandbox(cri: &Cri, pod: &pod::Record, pid: u32) -> Result<()> {
    let Some(nri) = cri.nri.active() else { return Ok(()) };
    nri.run_pod_sandbox(messages::pod(cri, pod, pid)).await
}

/// UpdatePodSandboxResources, before and after. A plugin may refuse before.
pub async fn update_pod_sandbox(
    cri: &Cri,
    pod: &Pod,
    overhead: Option<&LinuxContainerResources>,
    resources: Option<&LinuxContainerResources>,
) -> Result<()> {
    let Some(nri) = cri.nri.active() else { return Ok(()) };
    let told = messages::of_pod(cri, pod);
    let (overhead, resources) = (overhead.map(limits::from_cri), resources.map(limits::from_cri));
    let asked = nri.update_pod_sandbox(told, overhead, resources).await;
    asked.map_err(|error| error.context("NRI sandbox update failed"))
}

/// See [`update_pod_sandbox`].
pub async fn post_update_pod_sandbox(cri: &Cri, pod: &Pod) {
    let Some(nri) = cri.nri.active() else { return };
    log(pod.id(), "post-update", nri.post_update_pod_sandbox(messages::of_pod(cri, pod)).await);
}

/// A pod ends; its sandbox and its networks are there still.
pub async fn stop_pod_sandbox(cri: &Cri, pod: &Pod) {
    let Some(nri) = cri.nri.active() else { return };
    log(pod.id(), "sandbox stop", nri.stop_pod_sandbox(messages::of_pod(cri, pod)).await);
}

/// A pod is gone but for its record.
pub async fn remove_pod_sandbox(cri: &Cri, pod: &Pod) {
    let Some(nri) = cri.nri.active() else { return };
    log(pod.id(), "pod removal", nri.remove_pod_sandbox(messages::of_pod(cri, pod)).await);
}

/// A container that is being made.
#[derive(Clone, Copy)]
pub struct New<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// What is known of it.
    pub record: &'a Record,
    /// Its labels.
    pub labels: &'a Labels,
}

/// CreateContainer: gives the spec as plugins want it.
pub async fn create_container(cri: &Cri, new: New<'_>, spec: Value) -> Result<Value> {
    let Some(nri) = cri.nri.active() else { return Ok(spec) };
    let container = messages::new_container(new.record, new.labels, &spec);
    let adjustment = nri.create_container(messages::of_pod(cri, new.pod), container).await;
    let adjustment =
        adjustment.map_err(|error| error.context("failed to get NRI adjustment for container"))?;
    adjust::adjust(cri, spec, adjustment).await
}

/// A container that was to be made is not.
pub async fn undo_create_container(cri: &Cri, pod: &Pod, id: &str) {
    let Some(nri) = cri.nri.active() else { return };
    let container = ::nri::wire::Container { id: id.to_owned(), ..messages::unknown(pod.id()) };
    log(id, "container creation undo", nri.remove_container(messages::of_pod(cri, pod), container).await);
}

/// It was made.
pub async fn post_create_container(cri: &Cri, pod: &Pod, id: &str) {
    let Some(nri) = cri.nri.active() else { return };
    // It may have been removed already.
    let Ok(container) = cri.containers.get(id) else { return };
    let (told, pod) = (messages::container(cri, &container, 0), messages::of_pod(cri, pod));
    log(id, "post-create", nri.post_create_container(pod, told).await);
}

/// StartContainer: its init waits to be started. A plugin may refuse.
pub async fn start_container(cri: &Cri, pod: &Pod, container: &Container, pid: u32) -> Result<()> {
    let Some(nri) = cri.nri.active() else { return Ok(()) };
    nri.start_container(messages::of_pod(cri, pod), messages::container(cri, container, pid)).await
}

/// It runs.
pub async fn post_start_container(cri: &Cri, container: &Container) {
    let Some(nri) = cri.nri.active() else { return };
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    log(container.id(), "post-start", nri.post_start_container(pod, told).await);
}

/// UpdateContainerResources: gives the limits as plugins want them.
pub async fn update_container(
    cri: &Cri,
    container: &Container,
    asked: LinuxContainerResources,
) -> Result<LinuxContainerResources> {
    let Some(nri) = cri.nri.active() else { return Ok(asked) };
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    let updated = nri.update_container(pod, told, limits::from_cri(&asked)).await?;
    Ok(updated.map_or(asked, |updated| limits::to_cri(&updated)))
}

/// They hold.
pub async fn post_update_container(cri: &Cri, container: &Container) {
    let Some(nri) = cri.nri.active() else { return };
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    log(container.id(), "post-update", nri.post_update_container(pod, told).await);
}

/// It has ended.
pub async fn stop_container(cri: &Cri, container: &Container) {
    let Some(nri) = cri.nri.active() else { return };
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    log(container.id(), "stop", nri.stop_container(pod, told).await);
}

/// It has ended by itself, or in the course of a call that is a plugin's: whoever sees it must not wait for plugins.
pub fn container_exited(cri: &Cri, container: &Container) {
    if cri.nri.active().is_none() {
        return;
    }
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    let cri = cri.clone();
    tokio::spawn(async move {
        let Some(nri) = cri.nri.active() else { return };
        let id = told.id.clone();
        log(&id, "exit", nri.stop_container(pod, told).await);
    });
}

/// It is about to be removed.
pub async fn remove_container(cri: &Cri, container: &Container) {
    let Some(nri) = cri.nri.active() else { return };
    let (told, pod) = (messages::container(cri, container, 0), messages::pod_of(cri, container));
    log(container.id(), "removal", nri.remove_container(pod, told).await);
}

fn log(id: &str, what: &str, told: Result<()>) {
    if let Err(error) = told {
        tracing::error!(id, %error, what, "NRI notification failed");
    }
}
