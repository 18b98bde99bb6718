//! What the CRI calls: it tells plugins what happens, and asks them what is to be adjusted.
//!
//! ```text
//!  hold --------------------------------------------------------- a call of the CRI         no plugin is admitted meanwhile
//!      turn: plugin 10-a, plugin 20-b ... | what they want of other containers is done
//! ```
//!
//! One call has its turn at a time, so that plugins see one order of things, as upstream. What a plugin wants of other containers
//! is done within the turn: a [`Domain`] must not call back. Nor can a plugin that asks for updates of its own accord while
//! it is asked something: it waits for itself, and is closed when its time is over.

mod admit;
mod hooks;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{MutexGuard, RwLock, RwLockReadGuard};
use tokio::task::AbortHandle;
use types::{Error, Namespace, Result};

use crate::config::Config;
use crate::observe::{Observe, Observed};
use crate::plugin::Plugin;
use crate::stages::Stages;
use crate::wire::{Container, ContainerEviction, ContainerUpdate, PodSandbox};

/// What will be there.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All pods and containers that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Pods.
    pub pods: Vec<PodSandbox>,
    /// Containers that have not ended.
    pub containers: Vec<Container>,
}

/// Whose pods and containers they are. Nothing of it may call [`Nri`] and wait for it.
pub trait Domain: Send + Sync + 'static {
    /// All that is there.
    fn snapshot(&self) -> Pending<'_, Snapshot>;

    /// Changes the limits of a container. One that is not there is fine.
    fn update(&self, update: ContainerUpdate) -> Pending<'_, Result<()>>;

    /// Ends a container. One that is not there is fine.
    fn evict(&self, eviction: ContainerEviction) -> Pending<'_, Result<()>>;
}

/// Who we are, as plugins are told.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// All plugins. Cloning shares them.
#[derive(Clone)]
pub struct Nri(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    identity: Identity,
    namespace: Namespace,
    observe: Observe,
    /// How many plugins are there.
    active: AtomicUsize,
    turn: tokio::sync::Mutex<Turn>,
    /// Held by calls, all at once; a plugin that comes waits for them.
    calls: RwLock<()>,
    domain: OnceLock<Arc<dyn Domain>>,
    listening: Mutex<Option<AbortHandle>>,
}

/// What one call at a time has.
#[derive(Debug, Default)]
struct Turn {
    /// In the order in which they are asked.
    plugins: Vec<Plugin>,
    stages: Stages,
}

impl Nri {
    /// Without any plugin; see [`Nri::start`]. `observe` is told what plugins are asked.
    pub fn new(config: Config, identity: Identity, namespace: Namespace, observe: Observe) -> Self {
        Self(Arc::new(Inner {
            config: Arc::new(config),
            identity,
            namespace,
            observe,
            active: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
            calls: RwLock::new(()),
            domain: OnceLock::new(),
            listening: Mutex::default(),
        }))
    }

    /// Whether there is anybody to be told anything.
    pub fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Acquire) > 0 || self.0.config.validator.enable
    }

    /// Keeps plugins from being admitted as long as a call is under way: each call is seen whole, or not at all.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.0.calls.read().await
    }

    /// Is done with all plugins.
    pub async fn stop(&self) {
        let listening = self.0.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listening) = listening {
            listening.abort();
            let _ = std::fs::remove_file(&self.0.config.socket);
        }
        let mut turn = self.0.turn.lock().await;
        turn.plugins.clear();
        self.0.count(&mut turn);
    }
}

impl Inner {
    fn domain(&self) -> Result<&Arc<dyn Domain>> {
        self.domain.get().ok_or_else(|| Error::unavailable("NRI has not been started"))
    }

    /// Forgets plugins that are done with.
    fn count(&self, turn: &mut Turn) {
        turn.plugins.retain(|plugin| !plugin.is_closed());
        if turn.plugins.is_empty() {
            turn.stages.clear();
        }
        self.active.store(turn.plugins.len(), Ordering::Release);
        (self.observe)(Observed::Active(turn.plugins.len()));
    }

    async fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().await
    }

    /// Does what plugins want of other containers; gives what could not be done.
    async fn apply(&self, updates: Vec<ContainerUpdate>) -> Vec<ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            let Ok(domain) = self.domain() else { return failed };
            if let Err(error) = domain.update(update.clone()).await {
                tracing::error!(container = update.container_id, %error, "update a container for an NRI plugin");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn evict(&self, evictions: Vec<ContainerEviction>) {
        for eviction in evictions {
            let (container, reason) = (eviction.container_id.clone(), eviction.reason.clone());
            let Ok(domain) = self.domain() else { return };
            tracing::info!(container, reason, "an NRI plugin evicts a container");
            if let Err(error) = domain.evict(eviction).await {
                tracing::error!(container, %error, "evict a container for an NRI plugin");
            }
        }
    }
}
