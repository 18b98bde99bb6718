//! Who makes and ends the sandbox of a pod: us, by a container that pauses ([`podsandbox`]), the shim by itself ([`shimsandbox`]), or
//! another process ([`proxysandbox`]). The handler's `sandboxer` says which; the pod's record keeps it.

use std::time::SystemTime;

use types::platform::Platform;
use types::task::{Endpoint, Exit, Status as TaskStatus};
use types::{Any, Class, Error, Labels, Result};

use crate::cri::Cri;
use crate::podsandbox::{self, Made, Plan};
use crate::{proxysandbox, shimsandbox};

/// Who makes sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandboxer {
    /// See [`podsandbox`].
    Podsandbox,
    /// See [`shimsandbox`].
    Shim,
    /// See [`proxysandbox`]: a proxy plugin of this name. It may not be there any more.
    Proxy(String),
}

/// What is seen of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It runs.
    Running {
        /// Of its init.
        pid: u32,
        /// Where its tasks are made, if not with us.
        endpoint: Option<Endpoint>,
    },
    /// It has ended, or never began; nothing may be left of it.
    Ended(Option<Exit>),
    /// Its shim does not say.
    Unknown,
}

/// A sandbox that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Of its init.
    pub pid: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// Of its record, besides ours.
    pub labels: Labels,
    /// Of its record, in the place of ours.
    pub spec: Option<Any>,
    /// Where its tasks are made, if not with us.
    pub endpoint: Option<Endpoint>,
}

impl Started {
    /// One of which nothing else is said.
    pub fn plain(pid: u32, created_at: SystemTime) -> Self {
        Self { pid, created_at, labels: Labels::new(), spec: None, endpoint: None }
    }
}

impl Sandboxer {
    /// The one that is called so; no name is the default's.
    pub fn named(name: &str) -> Self {
        match name {
            "" | "podsandbox" => Self::Podsandbox,
            "shim" => Self::Shim,
            other => Self::Proxy(other.to_owned()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Podsandbox => "podsandbox",
            Self::Shim => "shim",
            Self::Proxy(name) => name,
        }
    }

    /// Whether it is another process.
    pub fn is_proxy(&self) -> bool {
        matches!(self, Self::Proxy(_))
    }

    /// Whether it is another process of which nothing is configured any more.
    pub fn is_unknown(&self, cri: &Cri) -> bool {
        matches!(self, Self::Proxy(name) if !cri.sandboxers.contains_key(name))
    }

    /// Refuses one that is not there, before anything is made.
    pub async fn check(&self, cri: &Cri) -> Result<()> {
        match self {
            Self::Podsandbox | Self::Shim => Ok(()),
            Self::Proxy(name) => proxysandbox::named(cri, name)?.probe().await,
        }
    }

    /// Makes a sandbox. It undoes nothing: [`Sandboxer::end`] and [`Sandboxer::remove`] do. Not cancel safe.
    pub async fn create(&self, cri: &Cri, plan: &Plan<'_>) -> Result<Made> {
        match self {
            Self::Podsandbox => podsandbox::create(cri, plan).await,
            Self::Shim => shimsandbox::create(cri, plan).await,
            Self::Proxy(name) => proxysandbox::create(cri, name, plan).await,
        }
    }

    /// Runs it.
    pub async fn start(&self, cri: &Cri, id: &str, made: &Made) -> Result<Started> {
        match self {
            Self::Podsandbox => {
                podsandbox::start(cri, id).await?;
                Ok(Started::plain(made.pid, made.created_at))
            }
            Self::Shim => shimsandbox::start(cri, id).await,
            Self::Proxy(name) => proxysandbox::start(cri, name, id).await,
        }
    }

    /// Ends it, whatever state it is in. May be done again.
    pub async fn end(&self, cri: &Cri, id: &str) -> Result<()> {
        match self {
            Self::Podsandbox => podsandbox::end(cri, id).await,
            Self::Shim => shimsandbox::end(cri, id).await,
            Self::Proxy(name) => proxysandbox::end(cri, name, id).await,
        }
    }

    /// The same of one that was never told of, and may not have come far: who cannot end it may still be able to remove it.
    pub async fn end_half_made(&self, cri: &Cri, id: &str) -> Result<()> {
        match (self, self.end(cri, id).await) {
            (Self::Proxy(name), Err(error))
                if !matches!(error.class(), Class::Unavailable | Class::DeadlineExceeded) =>
            {
                proxysandbox::shut_down(cri, name, id).await.map_err(|_| error)
            }
            (_, ended) => ended,
        }
    }

    /// Removes what is left of one that has ended. May be done again.
    pub async fn remove(&self, cri: &Cri, id: &str) -> Result<()> {
        match self {
            Self::Podsandbox => {}
            Self::Shim => shimsandbox::shut_down(cri, id).await?,
            Self::Proxy(name) => proxysandbox::shut_down(cri, name, id).await?,
        }
        podsandbox::remove(cri, id).await
    }

    /// Waits for its end. Cancel safe.
    pub async fn wait(&self, cri: &Cri, id: &str) -> Result<Exit> {
        match self {
            Self::Podsandbox => cri.runtime.wait(&cri.namespace, id, "").await,
            Self::Shim => cri.runtime.wait_sandbox(&cri.namespace, id).await,
            Self::Proxy(name) => proxysandbox::wait(cri, name, id).await,
        }
    }

    /// Removes the processes of one that has ended by itself.
    pub async fn clear(&self, cri: &Cri, id: &str) -> Result<()> {
        match self {
            Self::Podsandbox => cri.tasks.delete(&cri.namespace, id).await.map(drop),
            // Its shim, or whatever it is, stays for the containers.
            Self::Shim | Self::Proxy(_) => Ok(()),
        }
    }

    /// Refuses a sandbox whose containers would not be Linux's.
    pub async fn check_platform(&self, cri: &Cri, id: &str) -> Result<()> {
        let Self::Proxy(name) = self else { return Ok(()) };
        let platform = match proxysandbox::named(cri, name)?.platform(id).await {
            // Not all know the call.
            Err(error) if error.class() == Class::Unimplemented => Platform::host(),
            platform => platform?,
        };
        if !matches!(platform.os.as_str(), "linux" | "") {
            let text =
                format!("sandboxer {name:?}: containers of platform {:?}: not implemented", platform.os);
            return Err(Error::unimplemented(text));
        }
        Ok(())
    }

    /// Looks at it.
    pub async fn look(&self, cri: &Cri, id: &str) -> Result<Seen> {
        let seen = match self {
            Self::Podsandbox => {
                cri.runtime.state(&cri.namespace, id, "").await.map(|process| match process.status {
                    TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => {
                        Seen::Running { pid: process.pid, endpoint: None }
                    }
                    // One that was made and never started is as good as none.
                    TaskStatus::Stopped | TaskStatus::Created => Seen::Ended(process.exit),
                    TaskStatus::Unknown => Seen::Unknown,
                })
            }
            Self::Shim => shimsandbox::look(cri, id).await,
            Self::Proxy(name) => proxysandbox::look(cri, name, id).await,
        };
        match seen {
            Err(error) if error.is_not_found() => Ok(Seen::Ended(None)),
            seen => seen,
        }
    }
}
