//! What changes about a container: a file of JSON, as upstream's, replaced as a whole at each change.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::cri::{ContainerResources, ContainerState};
use serde::{Deserialize, Serialize};
use types::{Error, Result, ResultExt};

use crate::cri::blocking;

/// The version of the file that is written, and read.
const VERSION: &str = "v1";

/// What is being done to a container at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Quiet,
    /// It is being started.
    Starting,
    /// It is being removed.
    Removing,
}

/// What changes about a container. Times are nanoseconds since 1970, 0 for never.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Status {
    /// The pid of init, 0 when it does not run.
    pub pid: u32,
    /// When it was created.
    pub created_at: i64,
    /// When it was started.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// How it ended.
    pub exit_code: i32,
    /// One word about its state: `Completed`, `Error`, `OOMKilled`, `Unknown`...
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Not kept.
    #[serde(skip)]
    pub phase: Phase,
    /// Not kept: the state could not be found out.
    #[serde(skip)]
    pub unknown: bool,
    /// Limits as they are now.
    pub resources: Option<ContainerResources>,
    /// Whether it goes on from a checkpoint when it is started.
    pub restore: bool,
}

impl Status {
    /// In the kubelet's words.
    pub fn state(&self) -> ContainerState {
        if self.unknown {
            ContainerState::ContainerUnknown
        } else if self.finished_at != 0 {
            ContainerState::ContainerExited
        } else if self.started_at != 0 {
            ContainerState::ContainerRunning
        } else if self.created_at != 0 {
            ContainerState::ContainerCreated
        } else {
            ContainerState::ContainerUnknown
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    #[serde(rename = "Version")]
    version: String,
    #[serde(flatten)]
    status: Status,
}

/// A status, and the file that keeps it.
///
/// The file may know more than is shown: how a container has ended is written before what is left of it is cleaned up, and
/// shown afterwards.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    kept: Mutex<Kept>,
    /// One change at a time. Who only looks never waits for a disk.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Kept {
    shown: Status,
    written: Status,
}

impl StatusFile {
    /// Writes the first status of a container whose files are in `dir`.
    pub async fn create(dir: &Path, status: Status) -> Result<Self> {
        let file = Self::unread(dir, Status::default());
        file.update(|empty| {
            empty.clone_from(&status);
            Ok(())
        })
        .await?;
        Ok(file)
    }

    /// A status that was not read, for a container whose files are in `dir`; it is written with the next change.
    pub fn unread(dir: &Path, status: Status) -> Self {
        let kept = Kept { shown: status, written: Status::default() };
        Self { path: dir.join("status"), kept: Mutex::new(kept), changing: tokio::sync::Mutex::default() }
    }

    /// Reads the status of a container whose files are in `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("status");
        let json = std::fs::read(&path).context(|| format!("read status {}", path.display()))?;
        let read: Versioned = serde_json::from_slice(&json)
            .map_err(|e| Error::invalid(format!("decode status {}: {e}", path.display())))?;
        if read.version != VERSION {
            return Err(Error::invalid(format!("status {}: unsupported version", path.display())));
        }
        let kept = Kept { shown: read.status.clone(), written: read.status };
        Ok(Self { path, kept: Mutex::new(kept), changing: tokio::sync::Mutex::default() })
    }

    /// A copy.
    pub fn get(&self) -> Status {
        self.lock().shown.clone()
    }

    /// Changes it, on disk first, unless `change` refuses. Not cancel safe.
    pub async fn update(&self, change: impl Fn(&mut Status) -> Result<()>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let mut shown = self.get();
        change(&mut shown)?;
        self.write(&change).await?;
        // What is not kept may have changed meanwhile.
        change(&mut self.lock().shown)
    }

    /// Changes it on disk alone, unless `change` refuses. Not cancel safe.
    pub async fn foresee(&self, change: impl Fn(&mut Status) -> Result<()>) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.write(&change).await
    }

    /// Changes it in memory alone, unless `change` refuses: what is not kept.
    pub fn enter(&self, change: impl FnOnce(&mut Status) -> Result<()>) -> Result<()> {
        let mut kept = self.lock();
        let mut changed = kept.shown.clone();
        change(&mut changed)?;
        kept.shown = changed;
        Ok(())
    }

    async fn write(&self, change: impl Fn(&mut Status) -> Result<()>) -> Result<()> {
        let before = self.lock().written.clone();
        let mut status = before.clone();
        change(&mut status)?;
        if status == before {
            return Ok(());
        }
        let doing = || format!("write status {}", self.path.display());
        let json = serde_json::to_vec(&Versioned { version: VERSION.to_owned(), status: status.clone() })
            .map_err(|e| Error::internal(e.to_string()).context(doing()))?;
        let path = self.path.clone();
        blocking(move || sys::fs::atomic_write(&path, &json, 0o600)).await.context(doing)?;
        self.lock().written = status;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(status: &mut Status) -> Result<()> {
        status.finished_at = 7;
        Ok(())
    }

    #[tokio::test]
    async fn what_is_foreseen_is_on_disk_and_shown_later() {
        let dir = tempfile::tempdir().unwrap();
        let created = Status { created_at: 1, phase: Phase::Starting, ..Status::default() };
        let file = StatusFile::create(dir.path(), created).await.unwrap();
        file.foresee(exited).await.unwrap();
        assert_eq!(file.get().state(), ContainerState::ContainerCreated);
        assert_eq!(StatusFile::load(dir.path()).unwrap().get().finished_at, 7);
        let resources = |status: &mut Status| {
            status.pid = 3;
            Ok(())
        };
        file.update(resources).await.unwrap();
        assert_eq!((file.get().pid, file.get().finished_at), (3, 0));
        let read = StatusFile::load(dir.path()).unwrap().get();
        assert_eq!((read.pid, read.finished_at, read.phase), (3, 7, Phase::Quiet));
        file.update(exited).await.unwrap();
        assert_eq!(file.get().state(), ContainerState::ContainerExited);
    }

    #[tokio::test]
    async fn a_change_that_is_refused_leaves_everything() {
        let dir = tempfile::tempdir().unwrap();
        let status = Status { created_at: 1, ..Status::default() };
        let file = StatusFile::create(dir.path(), status.clone()).await.unwrap();
        let refuse = |status: &mut Status| {
            status.pid = 1;
            Err(Error::precondition("no"))
        };
        assert!(file.update(refuse).await.is_err());
        assert!(file.enter(refuse).is_err());
        assert_eq!(file.get(), status);
        assert_eq!(StatusFile::load(dir.path()).unwrap().get(), status);
    }
}
