//! Who makes and ends the sandbox of a pod: us, by a container that pauses ([`podsandbox`]), or the shim by itself
//! ([`shimsandbox`]). The handler's `sandboxer` says which; the pod's record keeps it.

use std::time::SystemTime;

use types::task::{Exit, Status as TaskStatus};
use types::{Error, Result};

use crate::cri::Cri;
use crate::podsandbox::{self, Made, Plan};
use crate::shimsandbox;

/// Who makes sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandboxer {
    /// See [`podsandbox`].
    Podsandbox,
    /// See [`shimsandbox`].
    Shim,
}

/// What is seen of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It runs.
    Running {
        /// Of its init.
        pid: u32,
    },
    /// It has ended, or never began; nothing may be left of it.
    Ended(Option<Exit>),
    /// Its shim does not say.
    Unknown,
}

/// A sandbox that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Of its init.
    pub pid: u32,
    /// When it was made.
    pub created_at: SystemTime,
}

impl Sandboxer {
    /// The one that is called so; no name is the default's.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "" | "podsandbox" => Ok(Self::Podsandbox),
            "shim" => Ok(Self::Shim),
            other => Err(Error::unimplemented(format!("sandboxer {other:?}: not implemented"))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podsandbox => "podsandbox",
            Self::Shim => "shim",
        }
    }

    /// Makes a sandbox. It undoes nothing: [`Sandboxer::end`] and [`Sandboxer::remove`] do. Not cancel safe.
    pub async fn create(self, cri: &Cri, plan: &Plan<'_>) -> Result<Made> {
        match self {
            Self::Podsandbox => podsandbox::create(cri, plan).await,
            Self::Shim => shimsandbox::create(cri, plan).await,
        }
    }

    /// Runs it.
    pub async fn start(self, cri: &Cri, id: &str, made: &Made) -> Result<Started> {
        match self {
            Self::Podsandbox => {
                podsandbox::start(cri, id).await?;
                Ok(Started { pid: made.pid, created_at: made.created_at })
            }
            Self::Shim => shimsandbox::start(cri, id).await,
        }
    }

    /// Ends it, whatever state it is in. May be done again.
    pub async fn end(self, cri: &Cri, id: &str) -> Result<()> {
        match self {
            Self::Podsandbox => podsandbox::end(cri, id).await,
            Self::Shim => shimsandbox::end(cri, id).await,
        }
    }

    /// Removes what is left of one that has ended. May be done again.
    pub async fn remove(self, cri: &Cri, id: &str) -> Result<()> {
        if self == Self::Shim {
            shimsandbox::shut_down(cri, id).await?;
        }
        podsandbox::remove(cri, id).await
    }

    /// Waits for its end. Cancel safe.
    pub async fn wait(self, cri: &Cri, id: &str) -> Result<Exit> {
        match self {
            Self::Podsandbox => cri.runtime.wait(&cri.namespace, id, "").await,
            Self::Shim => cri.runtime.wait_sandbox(&cri.namespace, id).await,
        }
    }

    /// Removes the processes of one that has ended by itself.
    pub async fn clear(self, cri: &Cri, id: &str) -> Result<()> {
        match self {
            Self::Podsandbox => cri.tasks.delete(&cri.namespace, id).await.map(drop),
            // Its shim stays for the containers.
            Self::Shim => Ok(()),
        }
    }

    /// Looks at it.
    pub async fn look(self, cri: &Cri, id: &str) -> Result<Seen> {
        let seen = match self {
            Self::Podsandbox => {
                cri.runtime.state(&cri.namespace, id, "").await.map(|process| match process.status {
                    TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => {
                        Seen::Running { pid: process.pid }
                    }
                    // One that was made and never started is as good as none.
                    TaskStatus::Stopped | TaskStatus::Created => Seen::Ended(process.exit),
                    TaskStatus::Unknown => Seen::Unknown,
                })
            }
            Self::Shim => shimsandbox::look(cri, id).await,
        };
        match seen {
            Err(error) if error.is_not_found() => Ok(Seen::Ended(None)),
            seen => seen,
        }
    }
}
