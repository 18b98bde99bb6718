//! PodSandboxStats.

use api::cri::{PodSandboxStatsRequest, PodSandboxStatsResponse};
use types::{Result, ResultExt};

use crate::cri::Cri;
use crate::stats::pod;

/// Answers the call.
pub async fn run(cri: &Cri, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
    let id = &request.pod_sandbox_id;
    let pod = cri.pods.get(id).context(|| format!("an error occurred when trying to find sandbox {id}"))?;
    let stats = pod::one(cri, &pod).await.context(|| format!("failed to decode pod sandbox metrics {id}"))?;
    Ok(PodSandboxStatsResponse { stats: Some(stats) })
}
