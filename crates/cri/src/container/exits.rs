//! How containers end: waited for, written down, cleaned up after, and told.
//!
//! ```text
//!  the end   -->  out of memory?  -->  on disk  -->  task deleted  -->  shown  -->  told
//! ```
//!
//! So a daemon that dies at any point leaves the exit code: with the shim, or on disk. A step that fails is done again after a
//! while, for as long as the container is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use api::cgroups;
use api::containerd::events::TaskOom;
use api::cri::ContainerEventType;
use types::events::Envelope;
use types::task::Exit;
use types::{Any, Result, ResultExt, time};

use super::{Container, Status};
use crate::cri::Cri;

/// The exit code of a container whose own nobody knows.
pub const UNKNOWN_CODE: i32 = 255;
/// What is said of it.
pub const UNKNOWN_REASON: &str = "Unknown";
/// What is said of one that the kernel has killed because there was no memory.
const OOM_REASON: &str = "OOMKilled";
/// How a process ends that SIGKILL has ended.
const KILLED: u32 = 137;

/// The first pause before something that failed is done again; each is twice the one before.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Waits for the end of a container that runs, on a task of its own. Once is enough, and the second time is fine.
pub fn watch(cri: &Cri, container: Arc<Container>) {
    if !container.watched.swap(true, Ordering::Relaxed) {
        tokio::spawn(run(cri.clone(), container));
    }
}

/// Writes down that containers were out of memory, as shims tell it. Ends never.
pub async fn follow_oom(cri: Cri) {
    loop {
        let mut events = cri.bus.subscribe();
        // Who was cut off for being too slow begins anew; each end is looked at once more.
        while let Ok(event) = events.next().await {
            out_of_memory(&cri, &event).await;
        }
    }
}

/// Writes down how a container has ended, and removes its task. The same end twice is fine. Not cancel safe.
pub async fn ended(cri: &Cri, container: &Container, exit: Exit) -> Result<()> {
    let id = container.id();
    if was_out_of_memory(cri, container, exit).await {
        container.update(oom_killed).await?;
    }
    let change = exited(exit);
    container.foresee(&change).await?;
    match cri.tasks.delete(&cri.namespace, id).await {
        Err(error) if !error.is_not_found() => return Err(error).context(|| format!("delete task {id}")),
        _ => {}
    }
    if let Some(log) = container.log() {
        log.ended().await;
    }
    container.update(&change).await?;
    let stopped = ContainerEventType::ContainerStoppedEvent;
    crate::events::tell(cri, id, &container.record.pod, stopped);
    crate::nri::container_exited(cri, container);
    Ok(())
}

/// The end of a container that left no trace of it.
pub fn unknown() -> Exit {
    Exit { status: UNKNOWN_CODE.unsigned_abs(), at: SystemTime::now() }
}

/// Longer with each time.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// Waits. Cancel safe.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}

async fn run(cri: Cri, container: Arc<Container>) {
    let exit = end(&cri, &container).await;
    tracing::debug!(container = container.id(), status = exit.status, "container has ended");
    let mut backoff = Backoff::default();
    while let Err(error) = ended(&cri, &container, exit).await {
        tracing::error!(container = container.id(), %error, "the end of a container could not be handled yet");
        backoff.pause().await;
        if is_gone(&cri, &container) {
            return;
        }
    }
}

/// Waits for the end. A shim that cannot be asked is asked again.
async fn end(cri: &Cri, container: &Container) -> Exit {
    let mut backoff = Backoff::default();
    loop {
        match cri.tasks.wait(&cri.namespace, container.id(), "").await {
            Ok(exit) => return exit,
            Err(error) if error.is_not_found() => return unknown(),
            Err(error) => {
                tracing::error!(container = container.id(), %error, "wait for the end of a container");
            }
        }
        backoff.pause().await;
        if is_gone(cri, container) {
            return unknown();
        }
    }
}

fn is_gone(cri: &Cri, container: &Container) -> bool {
    matches!(cri.containers.find(container.id()), Ok(None))
}

fn exited(exit: Exit) -> impl Fn(&mut Status) -> Result<()> {
    move |status| {
        if status.finished_at == 0 {
            status.pid = 0;
            status.finished_at = time::nanoseconds(exit.at);
            status.exit_code = i32::try_from(exit.status).unwrap_or(UNKNOWN_CODE);
        }
        status.unknown = false;
        Ok(())
    }
}

fn oom_killed(status: &mut Status) -> Result<()> {
    OOM_REASON.clone_into(&mut status.reason);
    Ok(())
}

async fn out_of_memory(cri: &Cri, event: &Envelope) {
    if event.topic != "/tasks/oom" || event.namespace != cri.namespace.as_str() {
        return;
    }
    let Ok(oom) = api::any::unpack::<TaskOom>(&event.event) else { return };
    let Ok(Some(container)) = cri.containers.find(&oom.container_id) else { return };
    if container.id() == oom.container_id
        && let Err(error) = container.update(oom_killed).await
    {
        tracing::error!(container = container.id(), %error, "write down that a container was out of memory");
    }
}

/// Whether the kernel has killed a process of the container: the shim's notice may come after the end that it explains.
async fn was_out_of_memory(cri: &Cri, container: &Container, exit: Exit) -> bool {
    let status = container.status();
    let bounded = || {
        let linux = status.resources.as_ref().and_then(|resources| resources.linux.as_ref());
        linux.is_some_and(|linux| linux.memory_limit_in_bytes > 0)
    };
    if status.reason == OOM_REASON || exit.status == 0 || !(exit.status == KILLED || bounded()) {
        return false;
    }
    match cri.runtime.stats(&cri.namespace, container.id()).await {
        Ok(stats) => stats.is_some_and(|stats| killed(&stats) > 0),
        Err(error) if error.is_not_found() => false,
        Err(error) => {
            tracing::warn!(container = container.id(), %error, "ask whether a container was out of memory");
            false
        }
    }
}

/// How many processes the kernel has killed.
fn killed(stats: &Any) -> u64 {
    if let Ok(metrics) = api::any::unpack::<cgroups::v2::Metrics>(stats) {
        return metrics.memory_events.map_or(0, |events| events.oom_kill);
    }
    let metrics = api::any::unpack::<cgroups::v1::Metrics>(stats).unwrap_or_default();
    metrics.memory_oom_control.map_or(0, |control| control.oom_kill)
}

#[cfg(test)]
mod tests {
    use api::cri::ContainerState;

    use super::*;

    #[test]
    fn the_first_end_counts_and_unknown_becomes_exited() {
        let mut status = Status { created_at: 1, started_at: 2, pid: 3, unknown: true, ..Status::default() };
        let at = time::from_unix(4, 5);
        exited(Exit { status: 6, at })(&mut status).unwrap();
        exited(unknown())(&mut status).unwrap();
        assert_eq!((status.pid, status.exit_code, status.finished_at), (0, 6, 4_000_000_005));
        assert_eq!(status.state(), ContainerState::ContainerExited);
    }

    #[test]
    fn kills_are_read_from_either_version_of_cgroups() {
        let v1 = cgroups::v1::MemoryOomControl { oom_kill: 2, ..Default::default() };
        let v1 = cgroups::v1::Metrics { memory_oom_control: Some(v1), ..Default::default() };
        let v2 = cgroups::v2::MemoryEvents { oom_kill: 3, ..Default::default() };
        let v2 = cgroups::v2::Metrics { memory_events: Some(v2), ..Default::default() };
        assert_eq!((killed(&api::any::pack(&v1)), killed(&api::any::pack(&v2))), (2, 3));
        assert_eq!(killed(&Any::new("other", Vec::new())), 0);
    }
}
