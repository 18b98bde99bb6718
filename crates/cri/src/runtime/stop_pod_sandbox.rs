//! StopPodSandbox: done again it is a success, and so it is for a pod that nobody knows.

use api::cri::{StopPodSandboxRequest, StopPodSandboxResponse};
use types::Result;

use crate::cri::Cri;
use crate::pod::teardown;

/// Answers the call.
pub async fn run(cri: &Cri, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
    if let Some(pod) = cri.pods.find(&request.pod_sandbox_id)? {
        teardown::stop(cri, &pod).await?;
    }
    Ok(StopPodSandboxResponse {})
}
