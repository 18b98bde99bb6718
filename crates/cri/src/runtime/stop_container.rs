//! StopContainer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::cri::{ContainerState, StopContainerRequest, StopContainerResponse};
use runtime::Signal;
use types::{Class, Error, Result, ResultExt, task};

use crate::container::{Container, exits, signal};
use crate::cri::Cri;
use crate::service::caller_gone;

/// A program that has just begun has no handlers yet: it would die of a signal that it is to take, or lose it.
const BEGINNING: Duration = Duration::from_millis(10);
/// The signal of a container that asks for no other.
const DEFAULT: &str = "SIGTERM";
const KILL: u32 = 9;
/// So long a shim may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// So long after SIGKILL a container is expected to have ended.
const DYING: Duration = Duration::from_secs(5);
/// So long the cleaning up after one that has ended is waited for.
const CLEANUP: Duration = Duration::from_secs(25);

/// Answers the call. A container that is not there has been stopped.
pub async fn run(cri: &Cri, request: StopContainerRequest) -> Result<StopContainerResponse> {
    let id = &request.container_id;
    let found = cri.containers.find(id);
    let found = found.context(|| format!("an error occurred when try to find container {id:?}"))?;
    if let Some(container) = found {
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        stop(cri, &container, timeout).await?;
        crate::nri::stop_container(cri, &container).await;
    }
    Ok(StopContainerResponse {})
}

/// Ends a container: by its stop signal, and after `timeout` by force, if its caller is still there then. One that does not run is
/// fine.
pub async fn stop(cri: &Cri, container: &Arc<Container>, timeout: Duration) -> Result<()> {
    match container.status().state() {
        ContainerState::ContainerRunning => {}
        ContainerState::ContainerUnknown => match watch_unknown(cri, container).await? {
            Left::Task => {}
            Left::Nothing => return Ok(()),
        },
        ContainerState::ContainerCreated | ContainerState::ContainerExited => return Ok(()),
    }
    if !timeout.is_zero() {
        ask(cri, container).await?;
        tokio::select! {
            ended = tokio::time::timeout(timeout, container.ended()) => if ended.is_ok() {
                return Ok(());
            },
            // As upstream: nobody is killed for somebody who has given up.
            () = caller_gone() => {
                let why = format!("wait container {:?}: nobody waits for its end any more", container.id());
                return Err(Error::new(Class::Canceled, why));
            }
        }
    }
    end(cri, container).await
}

/// What is left of a container in an unknown state.
enum Left {
    Task,
    Nothing,
}

/// A container in an unknown state has ended, or its end is waited for from now on.
async fn watch_unknown(cri: &Cri, container: &Arc<Container>) -> Result<Left> {
    let id = container.id();
    match cri.tasks.get(&cri.namespace, id, "").await {
        Err(error) if error.is_not_found() => {
            exits::ended(cri, container, exits::unknown()).await?;
            Ok(Left::Nothing)
        }
        task => {
            task.context(|| format!("failed to get task for container {id:?}"))?;
            exits::watch(cri, Arc::clone(container));
            Ok(Left::Task)
        }
    }
}

/// Asks it to end, once: the second one of two who stop it only waits.
async fn ask(cri: &Cri, container: &Container) -> Result<()> {
    if !container.ask_to_end() {
        return Ok(());
    }
    let number = stop_signal(container)?;
    let left = beginning(container.status().started_at, SystemTime::now());
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
    let sent = send_in_time(cri, container, number).await;
    sent.inspect_err(|_| container.not_asked())
        .context(|| format!("failed to stop container {:?}", container.id()))
}

/// How much of its beginning a program that was started then has left.
fn beginning(started_at: i64, now: SystemTime) -> Duration {
    let age = types::time::nanoseconds(now).saturating_sub(started_at);
    // Clocks jump.
    u64::try_from(age).map_or(Duration::ZERO, |age| BEGINNING.saturating_sub(Duration::from_nanos(age)))
}

/// The kubelet's, or the image's. One that nobody knows does not make a container immortal.
fn stop_signal(container: &Container) -> Result<u32> {
    let requested = signal::requested(container.record.config.stop_signal)?;
    let image = Some(&container.record.stop_signal).filter(|name| !name.is_empty());
    let name = requested.as_ref().or(image).map_or(DEFAULT, String::as_str);
    types::signal::number(name).or_else(|error| {
        tracing::warn!(container = container.id(), name, %error, "stop signal unknown, {DEFAULT} is sent");
        types::signal::number(DEFAULT)
    })
}

/// [`send`]s a signal. An end that comes meanwhile is as good as an answer, and one has to come in time.
async fn send_in_time(cri: &Cri, container: &Container, number: u32) -> Result<()> {
    tokio::select! {
        biased;
        () = container.ended() => Ok(()),
        sent = tokio::time::timeout(ANSWER, send(cri, container, number)) => {
            let late = || Error::new(Class::DeadlineExceeded, "its shim does not answer");
            sent.unwrap_or_else(|_| Err(late()))
        }
    }
}

/// Sends a signal, and thaws the container if it is frozen, or it would never take it. One that has ended is fine.
async fn send(cri: &Cri, container: &Container, number: u32) -> Result<()> {
    let (namespace, id) = (&cri.namespace, container.id());
    match cri.tasks.kill(namespace, id, "", Signal { number, all: false }).await {
        // That of a process that has ended already.
        Err(error) if error.is_not_found() => return Ok(()),
        sent => sent?,
    }
    let frozen = cri.tasks.get(namespace, id, "").await;
    if frozen.is_ok_and(|process| matches!(process.status, task::Status::Paused | task::Status::Pausing))
        && let Err(error) = cri.tasks.resume(namespace, id).await
    {
        tracing::warn!(container = id, %error, "thaw a container that is to end");
    }
    Ok(())
}

/// Ends it by force.
async fn end(cri: &Cri, container: &Container) -> Result<()> {
    let id = container.id();
    send_in_time(cri, container, KILL).await.context(|| format!("failed to kill container {id:?}"))?;
    if tokio::time::timeout(DYING, container.ended()).await.is_ok() {
        return Ok(());
    }
    let late = |what: &str| {
        let doing = format!("an error occurs during waiting for container {id:?} to be killed");
        Err(Error::new(Class::DeadlineExceeded, format!("{doing}: {what}")))
    };
    match cri.tasks.get(&cri.namespace, id, "").await {
        Ok(process) if process.status != task::Status::Stopped => {
            late(&format!("{} s after SIGKILL it has not ended", DYING.as_secs()))
        }
        _ => match tokio::time::timeout(CLEANUP, container.ended()).await {
            Ok(()) => Ok(()),
            Err(_) => late("it has ended, and is still being cleaned up after"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_just_begun_gets_its_signal_a_moment_later() {
        let now = SystemTime::now();
        let begun = |nanoseconds: i64| beginning(types::time::nanoseconds(now) - nanoseconds, now);
        assert_eq!(begun(4_000_000), Duration::from_millis(6));
        assert_eq!([begun(10_000_000), begun(i64::from(u32::MAX)), begun(-1)], [Duration::ZERO; 3]);
        assert_eq!(beginning(0, now), Duration::ZERO);
    }
}
