//! After a start of the daemon: what is true of the pods and containers that are on record.
//!
//! ```text
//!  records of sandboxes --> each asked for its state, all at once, ten seconds at most --> store, name, watch
//!  containers likewise                                                                     calls are answered from here on
//!  then, behind them: pods of which there is nothing but a record are removed, and files that belong to nobody
//! ```
//!
//! A pod that was being made when the daemon ended stays, with what there is of it, as one that is not ready: the kubelet sees it,
//! and its Stop and Remove end it.
//!
//! A shim that does not answer holds up nobody: its pod is there as one that is not known, until it answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::cri::ContainerResources;
use futures_util::future::join_all;
use types::container::Container;
use types::filters::Filters;
use types::sandbox::Sandbox;
use types::{Error, Result};

use crate::cri::{Cri, blocking};
use crate::network::namespace;
use crate::pod::resources::{self, Updated};
use crate::pod::teardown;
use crate::pod::{CREATING, EXTENSION, Pod, Record, State, Status};
use crate::podsandbox;
use crate::sandboxer::{Sandboxer, Seen};

/// How long one pod may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before a shim is asked again: twice as long each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl Cri {
    /// Finds out what is there; calls are answered from then on.
    pub async fn recover(&self) {
        run(self).await;
    }
}

/// See [`Cri::recover`].
pub async fn run(cri: &Cri) {
    let found = match Found::load(cri) {
        Ok(found) => found,
        Err(error) => {
            // Nothing is known then, and nothing may be removed for it.
            tracing::error!(%error, "the records of pods cannot be read");
            Found::default()
        }
    };
    let orphans = found.orphans(cri);
    cri.network.all().for_each(|(_, networks)| networks.sweep());
    let only_records: Vec<Arc<Pod>> = join_all(found.pods.iter().map(async |pod| known(cri, pod).await))
        .await
        .into_iter()
        .flatten()
        .collect();
    if let Err(error) = crate::container::recover::all(cri).await {
        tracing::error!(%error, "the records of containers cannot be read");
    }
    crate::nri::start(cri).await;
    cri.recovered.send_replace(true);
    tracing::info!(
        pods = found.pods.len(),
        half_made = found.pods.iter().filter(|pod| !pod.whole).count(),
        "pods that a daemon before has left are known"
    );
    let cri = cri.clone();
    tokio::spawn(async move {
        join_all(only_records.iter().map(async |pod| finish(&cri, pod).await)).await;
        orphans.remove(&cri).await;
    });
}

/// A pod as records have it.
struct OnRecord {
    record: Record,
    sandboxer: Sandboxer,
    whole: bool,
    /// Whether its sandbox has a container's record.
    contained: bool,
    created_at: std::time::SystemTime,
    updated: Option<Updated>,
}

/// What the database knows.
#[derive(Default)]
struct Found {
    pods: Vec<OnRecord>,
    /// Whether it could be read.
    complete: bool,
}

impl Found {
    fn load(cri: &Cri) -> Result<Self> {
        let mut containers = sandbox_containers(cri)?;
        let mut found = Self { pods: Vec::new(), complete: true };
        for row in cri.db.sandboxes(&cri.namespace).list(&Filters::default())? {
            let container = containers.remove(&row.id);
            match of_row(&row, container.as_ref()) {
                Ok(pod) => found.pods.push(pod),
                Err(error) => {
                    found.complete = false;
                    tracing::error!(id = row.id, %error, "the record of a sandbox cannot be read");
                }
            }
        }
        // What containerd 1.x has made has no row of its own.
        for (id, container) in containers {
            match of_container(&container) {
                Ok(pod) => found.pods.push(pod),
                Err(error) => {
                    found.complete = false;
                    tracing::error!(id, %error, "the record of a sandbox's container cannot be read");
                }
            }
        }
        Ok(found)
    }

    /// What belongs to nobody. Looked for before anybody can make something new.
    fn orphans(&self, cri: &Cri) -> Orphans {
        if !self.complete {
            return Orphans::default();
        }
        let known = |id: &str| self.pods.iter().any(|pod| pod.record.id == id);
        let dirs = [cri.dirs.pod(""), cri.dirs.pod_state("")];
        let names = dirs.iter().flat_map(|dir| names(dir));
        let netns: Vec<&str> = self.pods.iter().map(|pod| pod.record.netns.as_str()).collect();
        Orphans {
            pods: names.filter(|name| is_id(name) && !known(name)).collect(),
            namespaces: cri.network.orphans(&netns),
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Only what is called as we call it is ours.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn sandbox_containers(cri: &Cri) -> Result<HashMap<String, Container>> {
    let containers = cri.db.containers(&cri.namespace);
    let filter = format!("labels.\"{}\"=={}", podsandbox::KIND.0, podsandbox::KIND.1);
    let mut ids = Vec::new();
    containers.list(&Filters::parse(&[filter.as_str()])?, "", &mut |container| {
        ids.push(container.id.to_owned());
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    ids.into_iter().map(|id| Ok((id.clone(), containers.get(&id)?))).collect()
}

fn of_row(row: &Sandbox, container: Option<&Container>) -> Result<OnRecord> {
    let missing = || Error::not_found(format!("extension {EXTENSION:?}: not found"));
    let record = Record::from_any(row.extensions.get(EXTENSION).ok_or_else(missing)?)?;
    Ok(OnRecord {
        record: Record { id: row.id.clone(), ..record },
        sandboxer: Sandboxer::named(&row.sandboxer),
        whole: !row.labels.contains_key(CREATING.0),
        contained: container.is_some(),
        created_at: container.map_or(row.created_at, |container| container.created_at),
        updated: row.extensions.get(resources::EXTENSION).map(Updated::from_any).transpose()?,
    })
}

fn of_container(container: &Container) -> Result<OnRecord> {
    let key = podsandbox::EXTENSION;
    let missing = || Error::not_found(format!("extension {key:?}: not found"));
    let record = Record::from_any(container.extensions.get(key).ok_or_else(missing)?)?;
    Ok(OnRecord {
        record: Record { id: container.id.clone(), ..record },
        sandboxer: Sandboxer::Podsandbox,
        whole: true,
        contained: true,
        created_at: container.created_at,
        updated: None,
    })
}

/// Puts a pod into the store. Answers with it if there is nothing of it but a record.
async fn known(cri: &Cri, found: &OnRecord) -> Option<Arc<Pod>> {
    let record = found.record.clone();
    let id = record.id.clone();
    let mut status = Status::new(State::Unknown);
    status.created_at = found.created_at;
    if let Some(updated) = found.updated.clone() {
        let of = |linux| Some(ContainerResources { linux, ..ContainerResources::default() });
        status.overhead = of(updated.overhead);
        status.resources = of(updated.resources);
    }
    if found.whole {
        learn(&mut status, &ask(cri, &found.sandboxer, &id).await);
    }
    if let Err(error) = cri.pod_names.reserve(&record.name, &id) {
        tracing::error!(id, %error, "two pods have one name");
    }
    let state = status.state;
    let pod = Pod::new(record, found.sandboxer.clone(), status);
    let pod = Arc::new(if found.whole { pod } else { pod.abandoned() });
    if let Err(error) = cri.pods.add(&id, Arc::clone(&pod)) {
        tracing::error!(id, %error, "put a pod into the store");
    }
    match state {
        _ if !found.whole && !found.is_begun() => return Some(pod),
        _ if !found.whole => {
            tracing::warn!(id, "a pod that was being made is there as one that is not ready");
        }
        State::Ready => podsandbox::watch(cri, pod),
        State::NotReady => podsandbox::clear(cri, pod),
        State::Unknown if pod.sandboxer.is_unknown(cri) => {
            let sandboxer = pod.sandboxer.name();
            tracing::error!(
                id,
                sandboxer,
                "a pod's sandboxer is not configured any more: it stays until it is"
            );
        }
        State::Unknown => settle(cri, pod),
    }
    None
}

/// What is seen of a sandbox.
async fn ask(cri: &Cri, sandboxer: &Sandboxer, id: &str) -> Result<Seen> {
    let asked = tokio::time::timeout(PATIENCE, sandboxer.look(cri, id)).await;
    asked.unwrap_or_else(|_| Err(Error::deadline(format!("state of sandbox {id}"))))
}

fn learn(status: &mut Status, seen: &Result<Seen>) {
    match seen {
        Ok(Seen::Running { pid, endpoint }) => {
            status.state = State::Ready;
            status.pid = *pid;
            status.endpoint.clone_from(endpoint);
        }
        Ok(Seen::Ended(exit)) => {
            status.state = State::NotReady;
            status.exit_status = exit.map_or(0, |exit| exit.status);
            status.exited_at = exit.map(|exit| exit.at);
        }
        Ok(Seen::Unknown) => {}
        Err(error) => tracing::warn!(%error, "the state of a sandbox is not known"),
    }
}

/// Asks again, until the shim answers or the pod is removed.
fn settle(cri: &Cri, pod: Arc<Pod>) {
    let cri = cri.clone();
    tokio::spawn(async move {
        let mut pause = BACKOFF.0;
        while pod.status().state == State::Unknown {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
            let said = ask(&cri, &pod.sandboxer, pod.id()).await;
            let _alone = pod.teardown.lock().await;
            if pod.status().state == State::Unknown {
                pod.update(|status| learn(status, &said));
            }
        }
        match pod.status().state {
            State::Ready => podsandbox::watch(&cri, pod),
            State::NotReady | State::Unknown => podsandbox::clear(&cri, pod),
        }
    });
}

/// Removes a pod of which there is nothing but a record. What cannot be removed stays, for the kubelet to see.
async fn finish(cri: &Cri, pod: &Arc<Pod>) {
    if let Err(error) = teardown::remove(cri, pod).await {
        tracing::error!(id = pod.id(), %error, "a pod that was being made stays in part");
    }
}

impl OnRecord {
    /// Whether there is a network namespace, a container of its sandbox, or perhaps a shim; if not, there is a record, and perhaps a
    /// lease, or what somebody who removes it has not come to.
    fn is_begun(&self) -> bool {
        let record = &self.record;
        let bound = !record.netns.is_empty() && sys::netns::is_bound(Path::new(&record.netns));
        // A sandbox of a shim or of another process has no container, so that nobody can tell.
        bound || self.contained || self.sandboxer != Sandboxer::Podsandbox
    }
}

/// What belongs to nobody.
#[derive(Default)]
struct Orphans {
    pods: Vec<String>,
    namespaces: Vec<PathBuf>,
}

impl Orphans {
    async fn remove(self, cri: &Cri) {
        for id in self.pods {
            tracing::warn!(id, "removing files of a pod that is not on record");
            if let Err(error) = podsandbox::remove_files(cri, &id).await {
                tracing::error!(id, %error, "remove files of a pod that is not on record");
            }
        }
        for path in self.namespaces {
            tracing::warn!(path = %path.display(), "removing a network namespace that is not on record");
            if let Err(error) = blocking(move || namespace::remove(&path)).await {
                tracing::error!(%error, "remove a network namespace that is not on record");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_called_as_a_pod_is_ours() {
        assert!(is_id(&"0a".repeat(32)));
        for other in ["", "shm", &"0A".repeat(32), &"0a".repeat(31), &"zz".repeat(32)] {
            assert!(!is_id(other), "{other:?}");
        }
    }

    #[test]
    fn what_a_shim_says_becomes_what_the_kubelet_sees() {
        let after = |seen: Result<Seen>| {
            let mut status = Status::new(State::Unknown);
            learn(&mut status, &seen);
            (status.state, status.pid)
        };
        assert_eq!(after(Ok(Seen::Ended(None))), (State::NotReady, 0));
        assert_eq!(after(Ok(Seen::Running { pid: 7, endpoint: None })), (State::Ready, 7));
        assert_eq!(after(Ok(Seen::Unknown)), (State::Unknown, 0));
        assert_eq!(after(Err(Error::unavailable("x"))), (State::Unknown, 0));
    }
}
