//! Containers: what is known of each, and where it is in its life.
//!
//! ```text
//!  created --> running --> exited --> removed
//!      \           \          ^
//!       +-----------+--> unknown      what could not be found out after a start of the daemon
//! ```
//!
//! What does not change is in the container's record ([`Record`]), what does in a status file ([`Status`]).
//!
//! ```text
//!  request   what may be asked for          files     directories and streams      volumes   what an image's VOLUMEs begin with
//!  snapshot  the root filesystem            spec      its OCI spec                 images    images as volumes
//!  phase     one thing at a time            exits     how containers end           signal    names of signals
//!  log       where the shim writes none (copies: who is attached)     checkpoint  to go on from               recover   after a start of the daemon
//! ```

pub mod checkpoint;
mod copies;
pub mod exits;
pub mod files;
pub mod images;
pub mod log;
mod phase;
mod record;
pub mod recover;
pub mod request;
pub mod signal;
pub mod snapshot;
pub mod spec;
mod status;
pub mod volumes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use types::Result;

use crate::stats::cgroup::Known;

pub use record::{EXTENSION, Record};
pub use status::{Phase, Status, StatusFile};

/// The label of a container record that says what it is: a container, or a pod's sandbox.
pub const KIND: &str = "io.cri-containerd.kind";
/// The value of [`KIND`] of a container.
pub const KIND_CONTAINER: &str = "container";

/// A container.
#[derive(Debug)]
pub struct Container {
    /// What does not change.
    pub record: Record,
    status: StatusFile,
    ended: watch::Sender<bool>,
    /// Whether somebody waits for its end already.
    watched: AtomicBool,
    /// Whether it was asked to end.
    asked: AtomicBool,
    /// Its log, if the daemon writes it.
    log: Mutex<Option<Arc<log::Log>>>,
    /// Held while limits change, and while it is started with those of its record.
    pub limits: tokio::sync::Mutex<()>,
    /// Its control groups; looked for when its usage is asked for the first time.
    pub groups: OnceLock<Known>,
    /// No other pod has it as long as this container is known.
    _level: crate::spec::Level,
}

impl Container {
    /// A container whose status is in `status`.
    pub fn new(record: Record, status: StatusFile) -> Self {
        let ended = watch::Sender::new(has_ended(&status.get()));
        let (watched, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        let (log, limits) = (Mutex::default(), tokio::sync::Mutex::default());
        let level = crate::spec::Level::of(&record.process_label);
        let groups = OnceLock::new();
        Self { record, status, ended, watched, asked, log, limits, groups, _level: level }
    }

    /// The log that the daemon writes; none if its shim does.
    pub fn log(&self) -> Option<Arc<log::Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon writes its log from now on.
    pub fn set_log(&self, log: Arc<log::Log>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// A copy of what changes.
    pub fn status(&self) -> Status {
        self.status.get()
    }

    /// Changes the status, on disk first, unless `change` refuses. Not cancel safe.
    pub async fn update(&self, change: impl Fn(&mut Status) -> Result<()>) -> Result<()> {
        self.status.update(change).await?;
        if has_ended(&self.status.get()) {
            self.ended.send_replace(true);
        }
        Ok(())
    }

    /// Changes the status on disk alone: what a daemon after this one shall know, and nobody yet. Not cancel safe.
    pub async fn foresee(&self, change: impl Fn(&mut Status) -> Result<()>) -> Result<()> {
        self.status.foresee(change).await
    }

    /// Waits until the container has ended. Cancel safe.
    pub async fn ended(&self) {
        // The sender is ours: it cannot be gone.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// Whether it is the caller who asks it to end; others have already.
    pub fn ask_to_end(&self) -> bool {
        !self.asked.swap(true, Ordering::Relaxed)
    }

    /// It could not be asked.
    pub fn not_asked(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}

fn has_ended(status: &Status) -> bool {
    status.state() == api::cri::ContainerState::ContainerExited
}
