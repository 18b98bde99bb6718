//! ReopenContainerLog.

use api::cri::{ContainerState, ReopenContainerLogRequest, ReopenContainerLogResponse};
use types::{Error, Result, ResultExt};

use crate::cri::{Cri, blocking};

/// Answers the call: what is said from now on is in a new file.
pub async fn run(cri: &Cri, request: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse> {
    let id = &request.container_id;
    let container = cri.containers.get(id);
    let container = container.context(|| format!("an error occurred when try to find container {id:?}"))?;
    if container.status().state() != ContainerState::ContainerRunning {
        return Err(Error::precondition("container is not running"));
    }
    match container.log() {
        Some(log) => blocking(move || log.reopen()).await?,
        None if container.record.log_path.is_empty() => {}
        None => cri.runtime.reopen_log(&cri.namespace, container.id()).await?,
    }
    Ok(ReopenContainerLogResponse {})
}
