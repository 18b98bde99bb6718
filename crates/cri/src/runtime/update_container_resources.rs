//! UpdateContainerResources: what is written down and what holds are the same, or neither changes.

use api::containerd::events::ContainerUpdate;
use api::cri::{
    ContainerState, LinuxContainerResources, UpdateContainerResourcesRequest,
    UpdateContainerResourcesResponse,
};
use runtime::Update;
use serde_json::Value;
use types::fields::FieldPaths;
use types::{Any, Error, Result, ResultExt, any};

use crate::container::{Container, Phase, spec};
use crate::cri::Cri;
use crate::spec::Machine;
use crate::stats::cgroup::Known;

/// Answers the call.
pub async fn run(
    cri: &Cri,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse> {
    let container = cri.containers.get(&request.container_id).context(|| "failed to find container")?;
    let asked = request.linux.unwrap_or_default();
    let _whole = crate::nri::hold(cri).await;
    // A plugin may want this very container changed while it is asked: the lock comes after it.
    let asked = crate::nri::update_container(cri, &container, asked).await?;
    // Neither a start nor another change comes in between.
    let limits = container.limits.lock().await;
    change(cri, &container, &asked).await?;
    drop(limits);
    crate::nri::post_update_container(cri, &container).await;
    Ok(UpdateContainerResourcesResponse {})
}

/// Has other limits hold. Who calls holds the container's.
pub async fn change(cri: &Cri, container: &Container, asked: &LinuxContainerResources) -> Result<()> {
    if container.status().phase == Phase::Removing {
        let text = format!("failed to update resources: container {:?} is in removing state", container.id());
        return Err(Error::precondition(text));
    }
    let before = cri.db.containers(&cri.namespace).get(container.id())?.spec.unwrap_or_default();
    let decoded: Value = serde_json::from_slice(&before.value)
        .map_err(|e| Error::invalid(format!("failed to get container spec: {e}")))?;
    let updated = crate::spec::resources(&decoded, asked, &cri.config.runtime, Machine::here());
    let updated = updated.context(|| "failed to update resources: failed to update resource in spec")?;
    let json = serde_json::to_vec(&updated.spec).map_err(|e| Error::internal(format!("encode spec: {e}")))?;
    write(cri, container, Any::new(any::RUNTIME_SPEC, json)).await?;
    if let Err(error) = apply(cri, container, updated.resources, &updated.spec).await {
        if let Err(left) = write(cri, container, before).await {
            tracing::error!(container = container.id(), error = %left, "limits that do not hold stay written down");
        }
        return Err(error.context("failed to update resources"));
    }
    Ok(())
}

async fn write(cri: &Cri, container: &Container, spec: Any) -> Result<()> {
    let containers = cri.db.containers(&cri.namespace);
    let mut row = containers.get(container.id())?;
    row.spec = Some(spec);
    let row = containers.update(row, &FieldPaths(vec!["spec".to_owned()])).await;
    let row = row.context(|| "failed to update container spec")?;
    let (id, image) = (row.id, row.image);
    let event = ContainerUpdate { id, image, labels: row.labels, snapshot_key: row.snapshot_key };
    cri.announce("/containers/update", &event);
    Ok(())
}

/// Has the limits hold for what runs, and tells them.
async fn apply(cri: &Cri, container: &Container, resources: Any, spec: &Value) -> Result<()> {
    if container.status().state() == ContainerState::ContainerRunning {
        let update = Update { resources: Some(resources), ..Update::default() };
        match cri.tasks.update(&cri.namespace, container.id(), update).await {
            // It has ended meanwhile.
            Err(error) if error.is_not_found() => {}
            updated => updated?,
        }
        container.groups.get().into_iter().for_each(Known::forget_limits);
    }
    let told = spec::resources(spec)?;
    container
        .update(|status| {
            status.resources = Some(told.clone());
            Ok(())
        })
        .await
}
