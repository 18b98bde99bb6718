//! RemoveContainer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::containerd::events::ContainerDelete;
use api::cri::{ContainerEventType, ContainerState, RemoveContainerRequest, RemoveContainerResponse};
use types::{Result, ResultExt, crash};

use super::stop_container;
use crate::container::Container;
use crate::cri::{Cri, blocking, gone};

/// Answers the call. A container that is not there has been removed.
pub async fn run(cri: &Cri, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
    let id = &request.container_id;
    let found = cri.containers.find(id);
    let found = found.context(|| format!("an error occurred when try to find container {id:?}"))?;
    if let Some(container) = found {
        remove(cri, &container).await?;
    }
    Ok(RemoveContainerResponse {})
}

/// Ends a container by force if it runs, and removes all of it.
pub async fn remove(cri: &Cri, container: &Arc<Container>) -> Result<()> {
    let id = container.id();
    if let ContainerState::ContainerRunning | ContainerState::ContainerUnknown = container.status().state() {
        let stopped = stop_container::stop(cri, container, Duration::ZERO).await;
        stopped.context(|| format!("failed to forcibly stop container {id:?}"))?;
    }
    let removing = container.removing()?;
    crate::nri::remove_container(cri, container).await;
    remove_records(cri, id).await.context(|| format!("failed to delete containerd container {id:?}"))?;
    crash::point("cri-container-records-removed");
    remove_files([cri.dirs.container(id), cri.dirs.container_state(id)]).await?;
    cri.containers.remove(id);
    cri.container_names.release_id(id);
    removing.for_good();
    let deleted = ContainerEventType::ContainerDeletedEvent;
    crate::events::tell(cri, id, &container.record.pod, deleted);
    Ok(())
}

/// Removes the snapshot, and then the record, which is what a daemon after this one would find it by. What is not there is fine.
pub async fn remove_records(cri: &Cri, id: &str) -> Result<()> {
    let containers = cri.db.containers(&cri.namespace);
    let row = match containers.get(id) {
        Err(error) if error.is_not_found() => return Ok(()),
        row => row?,
    };
    if !row.snapshot_key.is_empty() {
        let snapshots = cri.db.snapshotter(cri.scope(None), &row.snapshotter)?;
        gone(snapshots.remove(&row.snapshot_key).await)?;
    }
    crash::point("cri-container-snapshot-removed");
    gone(containers.delete(id).await)?;
    cri.announce("/containers/delete", &ContainerDelete { id: id.to_owned() });
    Ok(())
}

/// Removes directories, with what somebody has mounted in them.
pub async fn remove_files<const N: usize>(dirs: [PathBuf; N]) -> Result<()> {
    blocking(move || dirs.iter().try_for_each(|dir| remove_dir(dir))).await
}

fn remove_dir(dir: &Path) -> Result<()> {
    let doing = || format!("failed to remove container directory {:?}", dir.display().to_string());
    match gone(sys::fs::remove_tree(dir)) {
        Ok(()) => Ok(()),
        // Busy, most likely.
        Err(_) => {
            let unmounted = sys::mount::unmount_recursive(dir, sys::mount::UnmountFlags::DETACH);
            unmounted.and_then(|()| gone(sys::fs::remove_tree(dir))).context(doing)
        }
    }
}
