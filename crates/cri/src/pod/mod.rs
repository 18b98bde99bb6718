//! Pods: what is known of each, and where it is in its life.
//!
//! ```text
//!  creating --> ready --> not ready --> removed
//!      |                      ^
//!      +--> unknown ----------+      what could not be undone, or not be found out: Stop and Remove finish the work
//! ```
//!
//! A pod that is being created is not in the store, but its record is written. Rebuilt from sandbox records and shims by `recover`:
//! one that was being created then is unknown for good.

mod handler;
mod record;
pub mod resources;
pub mod teardown;
pub mod validate;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use api::cri::ContainerResources;
use tokio::sync::watch;
use types::task::Endpoint;

use crate::sandboxer::Sandboxer;

pub use handler::{RUNC, handler, options, systemd_cgroup};
pub use record::{CREATING, EXTENSION, Record};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its sandbox runs.
    Ready,
    /// Its sandbox does not run; network and mounts may still be there.
    NotReady,
    /// Not known, or half gone.
    Unknown,
}

/// What changes about a pod.
#[derive(Clone, Debug)]
pub struct Status {
    /// See [`State`].
    pub state: State,
    /// The pid of the sandbox's init, 0 when it does not run.
    pub pid: u32,
    /// When the sandbox was created.
    pub created_at: SystemTime,
    /// When the sandbox ended.
    pub exited_at: Option<SystemTime>,
    /// How it ended.
    pub exit_status: u32,
    /// What UpdatePodSandboxResources has set.
    pub overhead: Option<ContainerResources>,
    /// The same, for all containers together.
    pub resources: Option<ContainerResources>,
    /// Whether the network namespace is gone.
    pub network_gone: bool,
    /// Where tasks of its containers are made, as its sandboxer says; none if that is with us.
    pub endpoint: Option<Endpoint>,
}

impl Status {
    /// Of a pod that was created now.
    pub fn new(state: State) -> Self {
        Self {
            state,
            pid: 0,
            created_at: SystemTime::now(),
            exited_at: None,
            exit_status: 0,
            overhead: None,
            resources: None,
            network_gone: false,
            endpoint: None,
        }
    }
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// What does not change.
    pub record: Record,
    /// Who makes and ends its sandbox.
    pub sandboxer: Sandboxer,
    status: Mutex<Status>,
    /// Whether nobody watches for its end, or whoever does has told of it.
    told: watch::Sender<bool>,
    /// One Stop or Remove at a time: the second one finds the work done.
    pub teardown: tokio::sync::Mutex<()>,
    /// Whether its sandbox has been removed: nobody needs to wait for its end.
    gone: watch::Sender<bool>,
    /// Whether a Stop or Remove has begun, whatever has come of it.
    stopping: AtomicBool,
    /// Whether a daemon before was still making it when it ended: what that one has started may go on.
    pub abandoned: bool,
    /// No other pod has it as long as this one is known.
    _level: crate::spec::Level,
}

impl Pod {
    /// A pod whose sandbox is as `status` says.
    pub fn new(record: Record, sandboxer: Sandboxer, status: Status) -> Self {
        let (status, teardown) = (Mutex::new(status), tokio::sync::Mutex::new(()));
        let stopping = AtomicBool::new(false);
        let level = crate::spec::Level::of(&record.process_label);
        let (told, gone) = (watch::Sender::new(true), watch::Sender::new(false));
        Self { record, sandboxer, status, told, teardown, gone, stopping, abandoned: false, _level: level }
    }

    /// The same, of which a daemon that is gone has made a part.
    #[must_use]
    pub fn abandoned(self) -> Self {
        Self { abandoned: true, ..self }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// A copy of what changes.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what changes.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
    }

    /// From now on nothing is made or started in it. A container that is being started sees this after it has shown that it
    /// runs, so that either its start takes it back or who stops the pod finds it.
    pub fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether its end has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Notes whether somebody watches for its end, and has not told of it yet.
    pub fn watched(&self, watched: bool) {
        self.told.send_replace(!watched);
    }

    /// Notes that its sandbox has been removed.
    pub fn sandbox_is_gone(&self) {
        self.gone.send_replace(true);
    }

    /// Waits until its sandbox has been removed. Cancel safe.
    pub async fn sandbox_gone(&self) {
        drop(self.gone.subscribe().wait_for(|gone| *gone).await);
    }

    /// Waits until its end was told, if somebody does that. Cancel safe.
    pub async fn end_told(&self) {
        // The sender is ours: it cannot be gone.
        drop(self.told.subscribe().wait_for(|told| *told).await);
    }
}
