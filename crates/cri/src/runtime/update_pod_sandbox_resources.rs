//! UpdatePodSandboxResources: what a pod's containers may use together, as the kubelet tells it. The kubelet sets the pod's
//! control group itself; here it is kept, shown and handed on.

use api::cri::{ContainerResources, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use types::Result;
use types::fields::FieldPaths;

use crate::cri::Cri;
use crate::pod::resources::{EXTENSION, Updated};
use crate::proxysandbox;
use crate::sandboxer::Sandboxer;

/// Answers the call.
pub async fn run(
    cri: &Cri,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse> {
    let pod = cri.pods.get(&request.pod_sandbox_id).map_err(|e| e.context("failed to find sandbox"))?;
    let (overhead, resources) = (request.overhead.as_ref(), request.resources.as_ref());
    crate::nri::update_pod_sandbox(cri, &pod, overhead, resources).await?;
    let updated = Updated { overhead: request.overhead, resources: request.resources };
    let sandboxes = cri.db.sandboxes(&cri.namespace);
    let mut row = sandboxes.get(pod.id())?;
    row.extensions.insert(EXTENSION.to_owned(), updated.to_any()?);
    let row = sandboxes.update(row, &FieldPaths(vec![format!("extensions.{EXTENSION}")])).await?;
    let of = |linux| Some(ContainerResources { linux, ..ContainerResources::default() });
    pod.update(|status| {
        status.overhead = of(updated.overhead);
        status.resources = of(updated.resources);
    });
    if let Sandboxer::Proxy(name) = &pod.sandboxer {
        proxysandbox::update(cri, name, row).await?;
    }
    crate::nri::post_update_pod_sandbox(cri, &pod).await;
    Ok(UpdatePodSandboxResourcesResponse {})
}
