//! What plugins want of containers that are there.

use std::sync::Weak;
use std::time::Duration;

use ::nri::wire::{ContainerEviction, ContainerUpdate};
use ::nri::{Domain, Pending, Snapshot};
use api::cri::ContainerState;
use types::{Error, Result, ResultExt};

use super::{limits, messages};
use crate::container::Phase;
use crate::cri::{Cri, Inner};
use crate::pod::State;
use crate::runtime::{stop_container, update_container_resources};

/// How long a container may be busy with something else: a start that waits for the very plugin waits longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// All pods and containers of this machine, for as long as the CRI is there.
pub struct Node(Weak<Inner>);

impl Node {
    /// Those of `cri`.
    pub fn of(cri: &Cri) -> Self {
        Self(cri.downgrade())
    }

    fn cri(&self) -> Result<Cri> {
        Cri::upgrade(&self.0).ok_or_else(|| Error::unavailable("the CRI ends"))
    }

    async fn change(&self, update: ContainerUpdate) -> Result<()> {
        let cri = self.cri()?;
        let Ok(container) = cri.containers.get(&update.container_id) else { return Ok(()) };
        let Some(resources) = update.linux.and_then(|linux| linux.resources) else { return Ok(()) };
        let limits = tokio::time::timeout(PATIENCE, container.limits.lock()).await;
        let _limits = limits.map_err(|_| {
            Error::unavailable(format!("container {:?} is being started or updated", container.id()))
        })?;
        update_container_resources::change(&cri, &container, &limits::to_cri(&resources)).await
    }

    async fn end(&self, eviction: ContainerEviction) -> Result<()> {
        let cri = self.cri()?;
        let Ok(container) = cri.containers.get(&eviction.container_id) else { return Ok(()) };
        let stopped = stop_container::stop(&cri, &container, Duration::ZERO).await;
        stopped.context(|| format!("failed to evict container {:?}", container.id()))
    }
}

impl Domain for Node {
    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(async { self.cri().map(|cri| snapshot(&cri)).unwrap_or_default() })
    }

    fn update(&self, update: ContainerUpdate) -> Pending<'_, Result<()>> {
        Box::pin(self.change(update))
    }

    fn evict(&self, eviction: ContainerEviction) -> Pending<'_, Result<()>> {
        Box::pin(self.end(eviction))
    }
}

fn snapshot(cri: &Cri) -> Snapshot {
    let pods = cri.pods.list().into_iter().filter(|pod| pod.status().state != State::Unknown);
    let lives = |status: crate::container::Status| match status.state() {
        ContainerState::ContainerCreated | ContainerState::ContainerRunning => {
            status.phase != Phase::Removing
        }
        ContainerState::ContainerExited | ContainerState::ContainerUnknown => false,
    };
    let containers = cri.containers.list().into_iter().filter(|container| lives(container.status()));
    Snapshot {
        pods: pods.map(|pod| messages::of_pod(cri, &pod)).collect(),
        containers: containers.map(|container| messages::container(cri, &container, 0)).collect(),
    }
}
