//! ListPodSandboxMetrics.

use api::cri::{ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse};
use types::Result;

use crate::cri::Cri;
use crate::stats::metrics;

/// Answers the call.
pub async fn run(cri: &Cri, _request: ListPodSandboxMetricsRequest) -> Result<ListPodSandboxMetricsResponse> {
    Ok(ListPodSandboxMetricsResponse { pod_metrics: metrics::all(cri).await })
}
