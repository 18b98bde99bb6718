//! RemovePodSandbox: done again it is a success, and so it is for a pod that nobody knows. What runs is ended.

use api::cri::{RemovePodSandboxRequest, RemovePodSandboxResponse};
use types::Result;

use crate::cri::Cri;
use crate::pod::teardown;

/// Answers the call.
pub async fn run(cri: &Cri, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
    if let Some(pod) = cri.pods.find(&request.pod_sandbox_id)? {
        teardown::remove(cri, &pod).await?;
    }
    Ok(RemovePodSandboxResponse {})
}
