//! The end of a sandbox: noticed, told, and cleaned up, as often as it takes.

use std::sync::Arc;
use std::time::Duration;

use api::cri::ContainerEventType;
use types::task::Exit;

use crate::cri::Cri;
use crate::events;
use crate::pod::{Pod, State};

/// How long to wait before something is tried again: twice as long each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Watches a sandbox that runs. The pod is in the store already.
pub fn watch(cri: &Cri, pod: Arc<Pod>) {
    let cri = cri.clone();
    pod.watched(true);
    tokio::spawn(async move {
        let exit = tokio::select! {
            biased;
            exit = wait(&cri, &pod) => exit,
            // Whoever was to tell of its end may never do so.
            () = pod.sandbox_gone() => None,
        };
        note(&pod, exit);
        events::tell(&cri, pod.id(), pod.id(), ContainerEventType::ContainerStoppedEvent);
        pod.watched(false);
        delete(&cri, &pod).await;
    });
}

/// Deletes the task of a sandbox that has ended.
pub fn clear(cri: &Cri, pod: Arc<Pod>) {
    let cri = cri.clone();
    tokio::spawn(async move { delete(&cri, &pod).await });
}

fn note(pod: &Pod, exit: Option<Exit>) {
    pod.update(|status| {
        status.state = State::NotReady;
        status.pid = 0;
        if let Some(exit) = exit {
            status.exit_status = exit.status;
        }
        status.exited_at = Some(exit.map_or_else(std::time::SystemTime::now, |exit| exit.at));
    });
}

/// Waits for the end, however often the shim cannot be asked. None if nobody knows how it was.
async fn wait(cri: &Cri, pod: &Pod) -> Option<Exit> {
    let mut pause = BACKOFF.0;
    loop {
        match pod.sandboxer.wait(cri, pod.id()).await {
            Ok(exit) => return Some(exit),
            Err(error) if error.is_not_found() => return None,
            Err(error) => tracing::warn!(id = pod.id(), %error, "wait for a sandbox"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn delete(cri: &Cri, pod: &Pod) {
    let mut pause = BACKOFF.0;
    loop {
        match pod.sandboxer.clear(cri, pod.id()).await {
            Ok(()) => return,
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                tracing::warn!(id = pod.id(), %error, "delete the task of a sandbox that has ended")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}
