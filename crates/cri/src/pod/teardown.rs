//! The end of a pod, in steps that may be done again: whatever state a pod is in, whether it was ever ready, whichever daemon
//! has begun, the same steps end it.
//!
//! ```text
//!  stop      containers | sandbox and network, side by side | namespace | mounts      one after the other, if it is another process's
//!  undo      sandbox | network | namespace | mounts | as remove        of a pod that nobody has been told of
//!  remove    stop | containers | sandbox's container and files, lease | record | name
//! ```
//!
//! The record goes last: a daemon that is killed before finds it, and what is left. What fails leaves the pod as it is, for
//! the next Stop or Remove. An undo goes one step after another, and ends at the first that fails: as long as the sandbox is there
//! so is its network. A Stop succeeds although a pod cannot be taken out of networks of which it never had an answer, as upstream's
//! does: the kubelet goes on with its pod. The Remove insists, so that no address is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::cri::ContainerEventType;
use futures_util::future::{self, join_all};
use types::{Error, Result, ResultExt};

use super::{Pod, State};
use crate::container::{Container, Phase, images};
use crate::cri::{Cri, blocking, gone};
use crate::network::namespace;
use crate::runtime::{remove_container, stop_container};
use crate::timers;
use crate::{events, podsandbox};

/// How long the event of an end may still be on its way.
const ORDER: Duration = Duration::from_secs(1);

/// How long starts that are under way are waited for.
const TAKEN_BACK: Duration = Duration::from_secs(5);

/// Why a pod is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Stop,
    Remove,
    Undo,
}

/// Ends all that runs of a pod, and takes it out of its networks.
pub async fn stop(cri: &Cri, pod: &Arc<Pod>) -> Result<()> {
    let _alone = pod.teardown.lock().await;
    stop_steps(cri, pod, Purpose::Stop).await
}

/// Ends the sandbox of a pod alone: its networks stay until it is stopped.
pub async fn end(cri: &Cri, pod: &Arc<Pod>) -> Result<()> {
    let _alone = pod.teardown.lock().await;
    pod.begin_to_stop();
    end_sandbox(cri, pod, Purpose::Stop).await
}

async fn stop_steps(cri: &Cri, pod: &Arc<Pod>, purpose: Purpose) -> Result<()> {
    pod.begin_to_stop();
    let containers = containers(cri, pod);
    let stopping = containers.iter().map(async |container| {
        let stopped = stop_container::stop(cri, container, Duration::ZERO).await;
        stopped.context(|| format!("failed to stop container {:?}", container.id()))
    });
    all(join_all(stopping).await)?;
    crate::nri::stop_pod_sandbox(cri, pod).await;
    let id = pod.id();
    let ended = async {
        let ended = end_sandbox(cri, pod, purpose).await;
        ended.context(|| format!("failed to stop sandbox {id:?}"))
    };
    let detached = async {
        match detach(cri, pod).await {
            Err(error) if purpose == Purpose::Stop && pod.record.cni_result.is_null() => {
                tracing::warn!(id, %error, "a pod that never was in its networks stays in part until it is removed");
                Ok(())
            }
            detached => detached.context(|| format!("failed to destroy network for sandbox {id:?}")),
        }
    };
    match purpose {
        // Another process's sandbox, which may be a machine, has its interfaces until it has ended.
        Purpose::Stop | Purpose::Remove if pod.sandboxer.is_proxy() => {
            starts_taken_back(&containers).await;
            ended.await?;
            detached.await?;
        }
        Purpose::Stop | Purpose::Remove => {
            let (ended, detached, ()) = future::join3(ended, detached, starts_taken_back(&containers)).await;
            all(vec![ended, detached])?;
        }
        Purpose::Undo => {
            ended.await?;
            detached.await?;
        }
    }
    images::unmount(cri, id, &snapshotter(cri, pod))
        .await
        .context(|| format!("failed to cleanup image mounts for sandbox {id:?}"))?;
    podsandbox::unmount(cri, id).await
}

/// Waits for starts that see in the end that the pod is being stopped, but not for ever: they do so whenever they get there.
async fn starts_taken_back(containers: &[Arc<Container>]) {
    let starting = containers.iter().filter(|container| container.status().phase == Phase::Starting);
    let starts = starting.map(async |container| drop(container.limits.lock().await));
    drop(tokio::time::timeout(TAKEN_BACK, join_all(starts)).await);
}

/// Whose snapshots the images are that are mounted for a pod.
fn snapshotter(cri: &Cri, pod: &Pod) -> String {
    let name = &pod.record.runtime_handler;
    // A handler that was taken away had the default one, as far as anybody knows.
    let handler = super::handler(cri, &pod.record.config, name).ok();
    cri.config.snapshotter(handler, name).to_owned()
}

/// Ends the sandbox, unless it is known to have ended.
async fn end_sandbox(cri: &Cri, pod: &Pod, purpose: Purpose) -> Result<()> {
    if pod.status().state != State::NotReady {
        let record = &pod.record;
        let runtime = crate::pod::handler(cri, &record.config, &record.runtime_handler).ok();
        let label = ("sandbox_runtime_stop", runtime.map(|handler| handler.runtime_type.as_str()));
        let end = async {
            match purpose {
                Purpose::Stop | Purpose::Remove => pod.sandboxer.end(cri, pod.id()).await,
                Purpose::Undo => pod.sandboxer.end_half_made(cri, pod.id()).await,
            }
        };
        timers::step(cri, label, end).await?;
        // Whoever watches may not have seen it yet; nobody may be watching.
        pod.update(|status| {
            status.state = State::NotReady;
            status.pid = 0;
        });
    }
    Ok(())
}

async fn detach(cri: &Cri, pod: &Pod) -> Result<()> {
    if pod.record.netns.is_empty() || pod.status().network_gone {
        return Ok(());
    }
    if pod.abandoned {
        cri.network.end_abandoned(&pod.record).await?;
    }
    let detach = cri.network.detach(&pod.record);
    timers::network(cri, ("sandbox_delete_network", "tear_down_pod"), detach).await?;
    types::crash::point("network-detached");
    let path = PathBuf::from(&pod.record.netns);
    blocking(move || namespace::remove(&path)).await?;
    pod.update(|status| status.network_gone = true);
    Ok(())
}

/// Ends a pod that is in the store, and removes all that there is of it.
pub async fn remove(cri: &Cri, pod: &Arc<Pod>) -> Result<()> {
    let _alone = pod.teardown.lock().await;
    if cri.pods.find(pod.id())?.is_none() {
        // Somebody else has, while we waited.
        return Ok(());
    }
    remove_steps(cri, pod, Purpose::Remove).await
}

/// The same for a pod that was never ready, and of which nobody was told.
pub async fn undo(cri: &Cri, pod: &Arc<Pod>) -> Result<()> {
    let _alone = pod.teardown.lock().await;
    remove_steps(cri, pod, Purpose::Undo).await
}

async fn remove_steps(cri: &Cri, pod: &Arc<Pod>, purpose: Purpose) -> Result<()> {
    let id = pod.id();
    stop_steps(cri, pod, purpose).await.context(|| format!("failed to forcibly stop sandbox {id:?}"))?;
    for container in containers(cri, pod) {
        let removed = remove_container::remove(cri, &container).await;
        removed.context(|| format!("failed to remove container {:?}", container.id()))?;
    }
    if !pod.sandboxer.is_proxy() {
        // Its task may have ended by itself, and still be there.
        pod.sandboxer.end(cri, id).await.context(|| format!("failed to delete sandbox {id:?}"))?;
    }
    let leases = cri.db.leases(&cri.namespace);
    let (removed, released) = future::join(pod.sandboxer.remove(cri, id), leases.delete(id)).await;
    removed.context(|| format!("failed to delete sandbox {id:?}"))?;
    pod.sandbox_is_gone();
    gone(released).context(|| format!("failed to delete lease for sandbox {id:?}"))?;
    if purpose == Purpose::Remove {
        // In this order, if it can be had.
        drop(tokio::time::timeout(ORDER, pod.end_told()).await);
        events::tell(cri, id, id, ContainerEventType::ContainerDeletedEvent);
    }
    crate::nri::remove_pod_sandbox(cri, pod).await;
    gone(cri.db.sandboxes(&cri.namespace).delete(id).await)
        .context(|| "failed to remove sandbox metadata from store")?;
    cri.pods.remove(id);
    cri.pod_names.release_id(id);
    Ok(())
}

fn containers(cri: &Cri, pod: &Pod) -> Vec<Arc<Container>> {
    let mut containers = cri.containers.list();
    containers.retain(|container| container.record.pod == pod.id());
    containers
}

/// All errors as one.
fn all(results: Vec<Result<()>>) -> Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let Some(first) = errors.next() else { return Ok(()) };
    Err(errors.fold(first, |first, next| {
        let text = format!("{first}; {next}");
        Error::new(first.class(), text)
    }))
}
