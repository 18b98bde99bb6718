//! ListContainerStats.

use api::cri::{ContainerStats, ContainerStatsFilter, ListContainerStatsRequest, ListContainerStatsResponse};
use types::{Result, ResultExt};

use crate::cri::Cri;
use crate::stats::cgroup::Depth;
use crate::stats::container;

/// Answers the call.
pub async fn run(cri: &Cri, request: ListContainerStatsRequest) -> Result<ListContainerStatsResponse> {
    Ok(ListContainerStatsResponse { stats: list(cri, request.filter).await? })
}

/// The usage of the containers that pass a filter.
pub async fn list(cri: &Cri, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>> {
    let all = container::all(cri, container::chosen(cri, filter), Depth::Usage).await;
    let all = all.context(|| "failed to fetch containers and stats")?;
    Ok(all.into_iter().map(|of| of.stats).collect())
}
