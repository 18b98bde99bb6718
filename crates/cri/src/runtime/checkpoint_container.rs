//! CheckpointContainer: the container goes on, and what it was is in an archive.

use std::path::{Component, Path, PathBuf};

use api::containerd::runc::v1::CheckpointOptions;
use api::cri::{CheckpointContainerRequest, CheckpointContainerResponse, ContainerState};
use runtime::Checkpoint;
use types::task;
use types::{Error, Result, ResultExt};

use crate::container::Container;
use crate::container::checkpoint::{Dump, archive, criu};
use crate::cri::{Cri, blocking};

/// Answers the call. What is asked for beside the archive's place means nothing, as upstream.
pub async fn run(cri: &Cri, request: CheckpointContainerRequest) -> Result<CheckpointContainerResponse> {
    let id = &request.container_id;
    if !cri.config.runtime.enable_criu {
        let text =
            format!("failed to checkpoint container {id:?}: criu support is disabled by configuration");
        return Err(Error::precondition(text));
    }
    blocking(criu::check).await.context(|| format!("failed to checkpoint container {id:?}"))?;
    let container = cri.containers.get(id);
    let container =
        container.context(|| format!("an error occurred when trying to find container {id:?}"))?;
    let location = location(&request.location)?;
    running(&container)?;
    let dump = Dump::begin(cri, &container).await?;
    let written = write(cri, &container, &dump, location).await;
    if let Err(error) = dump.remove().await {
        tracing::warn!(container = container.id(), %error, "remove what is left of a checkpoint");
    }
    written.map(|()| CheckpointContainerResponse {})
}

fn location(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    let upwards = path.components().any(|part| part == Component::ParentDir);
    let control = path.to_string_lossy().chars().any(char::is_control);
    if !path.is_absolute()
        || upwards
        || control
        || path.file_name().is_none()
        || path.as_os_str().len() > 4096
    {
        return Err(Error::invalid("location: must be the absolute path of a file"));
    }
    Ok(path.to_owned())
}

fn running(container: &Container) -> Result<()> {
    match container.status().state() {
        ContainerState::ContainerRunning => Ok(()),
        state => Err(Error::precondition(format!(
            "container {:?} is in {} state. only {} containers can be checkpointed",
            container.id(),
            state.as_str_name(),
            ContainerState::ContainerRunning.as_str_name()
        ))),
    }
}

async fn write(cri: &Cri, container: &Container, dump: &Dump, location: PathBuf) -> Result<()> {
    dump.describe(cri, container).await?;
    let frozen = Frozen::new(cri, container).await?;
    let taken = async {
        take(cri, container, dump).await?;
        dump.add_changes(cri, container).await
    };
    let taken = taken.await;
    let thawed = frozen.thaw(cri, container).await;
    taken.and(thawed)?;
    let dir = dump.dir().to_owned();
    blocking(move || archive::write(&dir, &location)).await
}

/// Has the shim write the processes. Logs of CRIU come beside them.
async fn take(cri: &Cri, container: &Container, dump: &Dump) -> Result<()> {
    let work_path = dump.dir().to_string_lossy().into_owned();
    let options = CheckpointOptions { exit: false, work_path, ..CheckpointOptions::default() };
    let path = dump.images().to_string_lossy().into_owned();
    let checkpoint = Checkpoint { path, options: Some(api::any::pack(&options)) };
    let taken = cri.tasks.checkpoint(&cri.namespace, container.id(), checkpoint).await;
    taken.context(|| format!("checkpointing container {:?} failed", container.id()))
}

/// Whether we have frozen it: processes and files are of one moment.
enum Frozen {
    ByUs,
    ByOthers,
}

impl Frozen {
    async fn new(cri: &Cri, container: &Container) -> Result<Self> {
        let id = container.id();
        let task = cri.tasks.get(&cri.namespace, id, "").await;
        let task = task.context(|| format!("failed to get task for container {id:?}"))?;
        if task.status == task::Status::Paused {
            return Ok(Self::ByOthers);
        }
        cri.tasks.pause(&cri.namespace, id).await.context(|| format!("freeze container {id:?}"))?;
        Ok(Self::ByUs)
    }

    async fn thaw(self, cri: &Cri, container: &Container) -> Result<()> {
        match self {
            Self::ByOthers => Ok(()),
            Self::ByUs => {
                let thawed = cri.tasks.resume(&cri.namespace, container.id()).await;
                thawed.context(|| format!("thaw container {:?}", container.id()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_file_with_an_absolute_path() {
        assert_eq!(location("/var/lib/kubelet/checkpoints/a.tar").unwrap().file_name().unwrap(), "a.tar");
        for bad in ["", "a.tar", "/", "/a/../b", "/a\0b", "/a\nb"] {
            assert!(location(bad).is_err(), "{bad:?}");
        }
    }
}
