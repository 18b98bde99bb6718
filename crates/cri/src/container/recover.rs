//! Containers that a daemon before has left: what each was, by its record and its status file, and what has become of it, by
//! its task.
//!
//! ```text
//!  status file \ task    none              created           running            stopped
//!  created               created           ended, created    running            exited
//!  running               exited, 255       unknown           running            exited
//!  exited                exited            exited            unknown            exited
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::cri::ContainerState;
use tokio::task::JoinSet;
use types::filters::Filters;
use types::task;
use types::{Error, Result, ResultExt, time};

use super::exits::{self, Backoff};
use super::files::Writer;
use super::{Container, EXTENSION, KIND, KIND_CONTAINER, Record, Status, StatusFile};
use crate::cri::{Cri, blocking};
use crate::runtime::start_container;

/// So long one container may take; the others do not wait for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Finds all containers and puts them into the store; those that run are watched. One that could not be found out is unknown
/// until it can.
pub async fn all(cri: &Cri) -> Result<()> {
    tokio::spawn(exits::follow_oom(cri.clone()));
    let mut found = JoinSet::new();
    for row in rows(cri)? {
        let cri = cri.clone();
        found.spawn(async move {
            let id = row.id.clone();
            if let Err(error) = add(&cri, row).await {
                tracing::error!(container = id, %error, "recover container");
            }
        });
    }
    tokio::spawn(remove_all(orphans(cri)));
    while found.join_next().await.is_some() {}
    Ok(())
}

/// What has become of the container with this record. It is in no store yet, and nobody waits for its end.
pub async fn one(cri: &Cri, row: types::container::Container) -> Result<Container> {
    let extension = row.extensions.get(EXTENSION);
    let extension = extension.ok_or_else(|| {
        Error::not_found(format!("container {:?}: metadata extension {EXTENSION:?} not found", row.id))
    })?;
    let record = Record::from_any(extension).context(|| format!("container {:?}", row.id))?;
    let dir = cri.dirs.container(&row.id);
    let file = StatusFile::load(&dir).unwrap_or_else(|error| {
        tracing::warn!(container = row.id, %error, "its status cannot be read");
        StatusFile::unread(&dir, unreadable())
    });
    let container = Container::new(record, file);
    match in_time(cri, &row.id, container.status()).await {
        Ok(status) => {
            let learn = |known: &mut Status| {
                known.clone_from(&status);
                Ok(())
            };
            container.update(learn).await?;
        }
        Err(error) => {
            tracing::error!(container = row.id, %error, "it could not be found out what has become of it");
            container.status.enter(|status| {
                status.unknown = true;
                Ok(())
            })?;
        }
    }
    Ok(container)
}

async fn add(cri: &Cri, row: types::container::Container) -> Result<()> {
    let container = Arc::new(one(cri, row).await?);
    let id = container.id();
    cri.container_names.reserve(&container.record.name, id)?;
    cri.containers.add(id, Arc::clone(&container))?;
    match container.status().state() {
        ContainerState::ContainerRunning => {
            follow(cri, &container).await;
            exits::watch(cri, container);
        }
        ContainerState::ContainerUnknown => drop(tokio::spawn(find_out(cri.clone(), container))),
        ContainerState::ContainerCreated | ContainerState::ContainerExited => {}
    }
    Ok(())
}

/// Goes on with the log of a container whose shim writes none.
async fn follow(cri: &Cri, container: &Container) {
    if start_container::writer(cri, &container.record.pod).await == Writer::Shim {
        return;
    }
    let Ok(task) = cri.tasks.get(&cri.namespace, container.id(), "").await else { return };
    if task.stdio.stdout.starts_with('/')
        && let Err(error) = start_container::follow(cri, container, &task.stdio)
    {
        tracing::error!(container = container.id(), %error, "what a container says is not logged");
    }
}

/// Asks again about a container that nothing could be found out about, until it is known or gone.
async fn find_out(cri: Cri, container: Arc<Container>) {
    let mut backoff = Backoff::default();
    loop {
        backoff.pause().await;
        let status = container.status();
        if !status.unknown || matches!(cri.containers.find(container.id()), Ok(None)) {
            return;
        }
        let Ok(found) = in_time(&cri, container.id(), status).await else { continue };
        let known = container.update(|status| {
            // Whoever stops it meanwhile knows better.
            if status.unknown {
                status.clone_from(&found);
            }
            Ok(())
        });
        if known.await.is_ok() {
            if container.status().state() == ContainerState::ContainerRunning {
                follow(&cri, &container).await;
                exits::watch(&cri, container);
            }
            return;
        }
    }
}

fn rows(cri: &Cri) -> Result<Vec<types::container::Container>> {
    let mut ids = Vec::new();
    let filters = Filters::parse(&[format!("labels.\"{KIND}\"=={KIND_CONTAINER}")])?;
    let containers = cri.db.containers(&cri.namespace);
    containers.list(&filters, "", &mut |container| {
        ids.push(container.id.to_owned());
        Ok(ControlFlow::Continue(()))
    })?;
    ids.iter().map(|id| containers.get(id)).collect()
}

/// A status when there is none to read.
fn unreadable() -> Status {
    let (code, reason) = (exits::UNKNOWN_CODE, exits::UNKNOWN_REASON.to_owned());
    Status { exit_code: code, reason, unknown: true, ..Status::default() }
}

/// What a container's task says of it, if it can be had in time. What was begun goes on either way.
async fn in_time(cri: &Cri, id: &str, status: Status) -> Result<Status> {
    let (of, id) = (cri.clone(), id.to_owned());
    let asked = tokio::spawn(async move { look(&of, &id, status).await });
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(found) => found.map_err(|e| Error::internal(e.to_string()))?,
        Err(_) => Err(Error::deadline(format!("no answer in {} s", LIMIT.as_secs()))),
    }
}

async fn look(cri: &Cri, id: &str, status: Status) -> Result<Status> {
    if status.unknown {
        // Without a status file only an end can be told, by whoever stops it.
        return Err(Error::unknown("its status is lost"));
    }
    let task = match cri.tasks.get(&cri.namespace, id, "").await {
        Err(error) if error.is_not_found() => None,
        task => Some(task?),
    };
    let found = judge(status, task.as_ref())?;
    if found.cleanup {
        match cri.tasks.delete(&cri.namespace, id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(found.status)
}

/// What a container is now.
#[derive(Debug, PartialEq)]
struct Found {
    status: Status,
    /// Whether its task is of no use any more.
    cleanup: bool,
}

fn judge(mut status: Status, task: Option<&task::Process>) -> Result<Found> {
    let state = status.state();
    let unexpected = |task: &str| {
        Err(Error::unknown(format!("unexpected container state for {task} task: {:?}", state.as_str_name())))
    };
    let ended = |status: &mut Status, code: i32, at: SystemTime| {
        if status.finished_at == 0 {
            (status.pid, status.exit_code, status.finished_at) = (0, code, time::nanoseconds(at));
        }
    };
    let Some(task) = task else {
        if state == ContainerState::ContainerRunning {
            ended(&mut status, exits::UNKNOWN_CODE, SystemTime::now());
            exits::UNKNOWN_REASON.clone_into(&mut status.reason);
        }
        return Ok(Found { status, cleanup: false });
    };
    match task.status {
        task::Status::Created => match state {
            ContainerState::ContainerRunning | ContainerState::ContainerUnknown => unexpected("created"),
            ContainerState::ContainerCreated | ContainerState::ContainerExited => {
                Ok(Found { status, cleanup: true })
            }
        },
        task::Status::Running | task::Status::Paused | task::Status::Pausing => match state {
            ContainerState::ContainerExited | ContainerState::ContainerUnknown => unexpected("running"),
            ContainerState::ContainerRunning => Ok(Found { status, cleanup: false }),
            ContainerState::ContainerCreated => {
                (status.pid, status.started_at) = (task.pid, time::nanoseconds(SystemTime::now()));
                Ok(Found { status, cleanup: false })
            }
        },
        task::Status::Stopped => {
            let exit = task.exit.unwrap_or_else(exits::unknown);
            ended(&mut status, i32::try_from(exit.status).unwrap_or(exits::UNKNOWN_CODE), exit.at);
            Ok(Found { status, cleanup: true })
        }
        task::Status::Unknown => Err(Error::unknown("unexpected task status \"unknown\"")),
    }
}

/// Directories of containers that have no record: they were half made, or half removed. Looked for before anybody can make a
/// new one.
fn orphans(cri: &Cri) -> Vec<PathBuf> {
    let records = cri.db.containers(&cri.namespace);
    let dirs = [cri.dirs.container(""), cri.dirs.container_state("")];
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let orphan = |path: &PathBuf| {
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        is_id(id) && records.get(id).is_err_and(|error| error.is_not_found())
    };
    entries.map(|entry| entry.path()).filter(orphan).collect()
}

/// Only what is called as we call it is ours.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

async fn remove_all(dirs: Vec<PathBuf>) {
    for dir in dirs {
        tracing::warn!(dir = %dir.display(), "removing files of a container that is not on record");
        if let Err(error) = blocking(move || remove(&dir)).await {
            tracing::error!(%error, "remove files of a container that is not on record");
        }
    }
}

/// Removes a directory with what is mounted in it.
fn remove(dir: &std::path::Path) -> Result<()> {
    sys::mount::unmount_recursive(dir, sys::mount::UnmountFlags::DETACH)?;
    sys::fs::remove_tree(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: task::Status) -> task::Process {
        let exit = task::Exit { status: 3, at: time::from_unix(9, 0) };
        task::Process {
            container: "c".to_owned(),
            exec: String::new(),
            pid: 42,
            status,
            stdio: task::Stdio::default(),
            exit: (status == task::Status::Stopped).then_some(exit),
        }
    }

    fn status(started_at: i64, finished_at: i64) -> Status {
        Status { created_at: 1, started_at, finished_at, ..Status::default() }
    }

    #[test]
    fn a_container_whose_task_is_gone_has_ended_somehow_if_it_ran() {
        let found = judge(status(2, 0), None).unwrap();
        assert_eq!((found.status.exit_code, found.status.reason.as_str()), (255, "Unknown"));
        assert_eq!(found.status.state(), ContainerState::ContainerExited);
        for same in [status(0, 0), status(2, 3)] {
            assert_eq!(judge(same.clone(), None).unwrap(), Found { status: same, cleanup: false });
        }
    }

    #[test]
    fn a_task_that_was_not_started_goes_and_its_container_stays_created() {
        let found = judge(status(0, 0), Some(&task(task::Status::Created))).unwrap();
        assert_eq!(found, Found { status: status(0, 0), cleanup: true });
        assert!(judge(status(2, 0), Some(&task(task::Status::Created))).is_err());
    }

    #[test]
    fn a_task_that_runs_is_a_container_that_runs() {
        let found = judge(status(0, 0), Some(&task(task::Status::Running))).unwrap();
        assert_eq!((found.status.pid, found.cleanup), (42, false));
        assert_eq!(found.status.state(), ContainerState::ContainerRunning);
        assert!(judge(status(2, 3), Some(&task(task::Status::Running))).is_err());
        assert!(judge(status(2, 0), Some(&task(task::Status::Unknown))).is_err());
    }

    #[test]
    fn a_task_that_has_ended_tells_how_unless_that_is_known() {
        let found = judge(status(2, 0), Some(&task(task::Status::Stopped))).unwrap();
        assert_eq!((found.status.exit_code, found.status.finished_at), (3, 9_000_000_000));
        let known = Status { exit_code: 7, ..status(2, 5) };
        let found = judge(known.clone(), Some(&task(task::Status::Stopped))).unwrap();
        assert_eq!(found, Found { status: known, cleanup: true });
    }
}
