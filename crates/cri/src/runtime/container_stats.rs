//! ContainerStats.

use api::cri::{ContainerState, ContainerStatsRequest, ContainerStatsResponse};
use types::{Error, Result};

use crate::cri::Cri;
use crate::stats::cgroup::{Depth, Known};
use crate::stats::container;

/// Answers the call.
pub async fn run(cri: &Cri, request: ContainerStatsRequest) -> Result<ContainerStatsResponse> {
    let found = cri.containers.get(&request.container_id);
    let container = found.map_err(|error| error.context("failed to find container"))?;
    // As upstream: what has ended has no figures, and the call no answer.
    if container.status().state() == ContainerState::ContainerExited {
        let why = format!("unexpected metrics response: container {:?} has ended", container.id());
        return Err(Error::not_found(why));
    }
    // Who asks for one has its limits of now.
    container.groups.get().into_iter().for_each(Known::forget_limits);
    let stats = container::all(cri, vec![container], Depth::Usage).await?.pop().map(|of| of.stats);
    Ok(ContainerStatsResponse { stats })
}
