//! ListPodSandboxStats.

use api::cri::{ListPodSandboxStatsRequest, ListPodSandboxStatsResponse};
use types::Result;

use crate::cri::Cri;
use crate::stats::pod;

/// Answers the call.
pub async fn run(cri: &Cri, request: ListPodSandboxStatsRequest) -> Result<ListPodSandboxStatsResponse> {
    let stats = pod::all(cri, pod::chosen(cri, request.filter)).await?;
    Ok(ListPodSandboxStatsResponse { stats })
}
