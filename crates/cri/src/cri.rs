//! What the calls work with.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use metadata::Db;
use prost::{Message, Name};
use remote::RemoteController;
use runtime::Runtime;
use tasks::Tasks;
use tokio::sync::watch;
use types::events::Exchange;
use types::{Error, Namespace, Result, Scope};

use crate::config::Config;
use crate::container::Container;
use crate::events::Events;
use crate::image::{Images, Puller};
use crate::index::Index;
use crate::names::Names;
use crate::network::Network;
use crate::pod::Pod;
use crate::streaming::Streaming;

/// The namespace that everything of Kubernetes is in.
pub(crate) const NAMESPACE: &str = "k8s.io";

/// Runs a change that its caller cannot stop half-way, and that the daemon waits for a moment when it is told to stop.
/// What it ends with is for the log.
pub type Spawn = Arc<dyn Fn(Change, Pin<Box<dyn Future<Output = Result<()>> + Send>>) + Send + Sync>;

/// A pull, in the daemon's hands.
pub type Pull = Arc<dyn Puller>;

/// What is being changed, for who looks at the daemon's work.
#[derive(Clone, Debug)]
pub struct Change {
    /// Such as `RunPodSandbox`.
    pub what: &'static str,
    /// The pod, container or image.
    pub id: String,
}

/// Removes what nothing refers to, and ends when that is done.
pub type Collect = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// Where a snapshotter has its snapshots.
pub type SnapshotterRoot = Arc<dyn Fn(&str) -> PathBuf + Send + Sync>;

/// What was used although it goes away: ids and messages.
pub type Deprecations = Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

/// What the daemon lends: things that are not the CRI's alone.
#[derive(Clone)]
pub struct Doors {
    /// See [`Spawn`].
    pub spawn: Spawn,
    /// See [`Pull`].
    pub pull: Pull,
    /// See [`Collect`].
    pub collect: Collect,
    /// See [`SnapshotterRoot`].
    pub snapshotter_root: SnapshotterRoot,
    /// See [`Deprecations`].
    pub deprecations: Deprecations,
    /// The daemon's socket.
    pub address: PathBuf,
    /// See [`crate::Observe`].
    pub observe: crate::Observe,
}

/// What the CRI is built of.
pub struct Parts {
    /// What the administrator has set.
    pub config: Config,
    /// Records.
    pub db: Db,
    /// Processes.
    pub runtime: Runtime,
    /// Mounts that the daemon keeps.
    pub mounts: mounts::Manager,
    /// What has happened.
    pub bus: Exchange,
    /// What the daemon lends.
    pub doors: Doors,
    /// Sandboxers in other processes, by name.
    pub sandboxers: BTreeMap<String, RemoteController>,
    /// NRI plugins, unless the administrator wants none.
    pub nri: Option<::nri::Config>,
    /// The daemon's root directory.
    pub root: PathBuf,
    /// The daemon's state directory.
    pub state: PathBuf,
}

/// Kubernetes' front door. Cloning shares it.
#[derive(Clone)]
pub struct Cri(Arc<Inner>);

impl Deref for Cri {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// See [`Cri`].
pub struct Inner {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) runtime: Runtime,
    pub(crate) tasks: Tasks,
    pub(crate) bus: Exchange,
    pub(crate) doors: Doors,
    pub(crate) sandboxers: BTreeMap<String, RemoteController>,
    pub(crate) dirs: Directories,
    pub(crate) namespace: Namespace,
    pub(crate) pods: Index<Pod>,
    pub(crate) containers: Index<Container>,
    pub(crate) pod_names: Names,
    pub(crate) container_names: Names,
    pub(crate) images: Images,
    pub(crate) network: Network,
    pub(crate) events: Events,
    pub(crate) streaming: Streaming,
    pub(crate) nri: crate::nri::Plugins,
    pub(crate) handlers: crate::runtime::status::Known,
    pub(crate) stats: crate::stats::Stats,
    /// Whether what a daemon before has left is known; until then calls are refused.
    pub(crate) recovered: watch::Sender<bool>,
}

/// Where files of pods and containers are.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    /// What outlives a reboot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) state: PathBuf,
}

/// Of the directories below the daemon's.
const NAME: &str = "io.containerd.grpc.v1.cri";

impl Directories {
    fn new(root: &std::path::Path, state: &std::path::Path) -> Self {
        Self { root: root.join(NAME), state: state.join(NAME) }
    }

    /// Files of a pod.
    pub(crate) fn pod(&self, id: &str) -> PathBuf {
        self.root.join("sandboxes").join(id)
    }

    /// Mounts of a pod.
    pub(crate) fn pod_state(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id)
    }

    /// Files of a container.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// FIFOs and mounts of a container.
    pub(crate) fn container_state(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }
}

impl Cri {
    /// Puts the parts together. Calls are refused until [`Cri::recover`] has ended.
    pub async fn open(parts: Parts) -> Result<Self> {
        let Parts { config, db, runtime, mounts, bus, doors, sandboxers, nri, root, state } = parts;
        let namespace = NAMESPACE.parse()?;
        let inner = Inner {
            tasks: Tasks::new(db.clone(), runtime.clone(), mounts),
            dirs: Directories::new(&root, &state),
            images: Images::new(),
            network: Network::new(&config, &state.join(NAME)),
            events: Events::new(Arc::clone(&doors.observe)),
            streaming: Streaming::bind(&config.streaming).await?,
            nri: crate::nri::Plugins::new(nri, &namespace, &doors.observe),
            handlers: crate::runtime::status::Known::default(),
            stats: crate::stats::Stats::default(),
            pods: Index::new("sandbox"),
            containers: Index::new("container"),
            pod_names: Names::default(),
            container_names: Names::default(),
            recovered: watch::Sender::new(false),
            namespace,
            config,
            db,
            runtime,
            bus,
            doors,
            sandboxers,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes up what a daemon before has left; calls are answered when that is known.
    pub async fn start(&self) {
        crate::image::load(self).await;
        self.recover().await;
    }

    /// Itself, for who must not keep it.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    /// The opposite of [`Cri::downgrade`].
    pub(crate) fn upgrade(weak: &Weak<Inner>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    /// The scope of calls that hold what they create by the lease of a pod.
    pub(crate) fn scope(&self, lease: Option<&str>) -> Scope {
        let scope = Scope::new(self.namespace.clone());
        match lease {
            Some(lease) => scope.with_lease(lease),
            None => scope,
        }
    }

    /// Tells subscribers of containerd's events what was done. The change stands either way, so a failure is only logged.
    pub(crate) fn announce<E: Message + Name>(&self, topic: &str, event: &E) {
        if let Err(error) = self.bus.publish(&self.namespace, topic, api::any::pack(event)) {
            tracing::warn!(topic, %error, "publish event");
        }
    }

    /// Refuses calls before everything is known.
    pub(crate) fn check_recovered(&self) -> Result<()> {
        if *self.recovered.borrow() {
            Ok(())
        } else {
            Err(Error::unavailable("server is not initialized yet"))
        }
    }
}

/// An id for a pod or container: 64 hexadecimal digits that nobody else has.
pub(crate) fn new_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        id.push_str(&format!("{byte:02x}"));
        id
    })
}

/// What is not there has ended, or is removed.
pub(crate) fn gone(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.is_not_found() => Ok(()),
        done => done,
    }
}

/// Does what may wait for a disk on a thread where that hurts nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal(format!("a thread of the CRI ended: {error}"))))
}
