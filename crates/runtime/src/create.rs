//! Create: bundle, shim, task; each step followed by its opposite, so that a failure leaves nothing.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::containerd::runtime::sandbox::v1::CreateSandboxRequest;
use api::containerd::task::v3 as wire;
use types::task::{Create, Origin};
use types::undo::Undo;
use types::{Class, Error, Namespace, Result, ResultExt, crash};

use crate::bundle::Bundle;
use crate::endpoint::{self, check_endpoint};
use crate::key::TaskKey;
use crate::launch::Target;
use crate::log::ShimLog;
use crate::runtime::{Runtime, blocking};
use crate::shim::{Link, Shim};
use crate::shims::Place;
use crate::terms::Terms;
use crate::why::posthumous::Witness;

/// What the steps share.
struct Creation {
    key: TaskKey,
    bundle: Bundle,
    binary: PathBuf,
    create: Create,
    /// What the shim is to make instead of a task.
    sandbox: Option<CreateSandboxRequest>,
    /// Whose shim serves it, if it is somebody else's.
    shared: Option<Arc<Shim>>,
    terms: Terms,
    place: Arc<Place>,
}

impl Runtime {
    /// Makes a task and returns the pid of its init, which waits to be started.
    ///
    /// Not cancel safe: it runs on a task of its own (a detached handler), or a failure leaves things behind.
    pub async fn create(&self, namespace: &Namespace, id: &str, create: Create) -> Result<u32> {
        self.create_on(namespace, id, create, Terms::default()).await
    }

    /// As [`Runtime::create`]; the shim is asked for the task when all that it needs is there. When nobody waits any more, and
    /// it does not come to an end in the time of a cleanup, the making of the task is ended.
    pub async fn create_on(
        &self,
        namespace: &Namespace,
        id: &str,
        create: Create,
        terms: Terms,
    ) -> Result<u32> {
        self.make(namespace, id, (create, None), terms).await
    }

    /// Makes a task, or a sandbox where the shim is to make one.
    pub(crate) async fn make(
        &self,
        namespace: &Namespace,
        id: &str,
        (create, sandbox): (Create, Option<CreateSandboxRequest>),
        terms: Terms,
    ) -> Result<u32> {
        let key = TaskKey::new(namespace, id)?;
        let place = Arc::new(self.reserve(&key).await?);
        let shared = match &create.shim_of {
            Some(of) => Some(self.shared(namespace, of).await.context(|| "failed to start shim")?),
            None => None,
        };
        if let Some(endpoint) = &create.endpoint {
            check_endpoint(endpoint).context(|| "failed to start shim")?;
        }
        let binary = match &shared {
            Some(shim) => shim.binary.clone(),
            // Nothing is executed.
            None if create.endpoint.is_some() => PathBuf::new(),
            None => crate::binary::resolve(&create.runtime, &self.inner.launcher.binary)
                .context(|| "failed to start shim: failed to resolve runtime path")?,
        };
        let bundle = self.inner.layout.bundle(&key);
        let mut undo = Undo::new(format!("create task {key}"));
        let creation = Creation { key, bundle, binary, create, sandbox, shared, terms, place };
        match self.create_steps(&creation, &mut undo).await {
            Ok(pid) => {
                undo.commit();
                Ok(pid)
            }
            Err(error) => {
                for left in undo.unwind().await {
                    tracing::error!(step = left.step, error = %left.error, "could not be undone");
                }
                Err(error)
            }
        }
    }

    /// The task whose shim is to serve another one too.
    async fn shared(&self, namespace: &Namespace, of: &str) -> Result<Arc<Shim>> {
        let shim = self.find(namespace, of).await.context(|| format!("shim of {of}"))?;
        if shim.connection.is_closed() {
            return Err(Error::unavailable(format!("shim of {of}: it has ended: unavailable")));
        }
        Ok(shim)
    }

    /// Reserves the id. A task that stands in the way is asked for first: perhaps only the table still knows it.
    async fn reserve(&self, key: &TaskKey) -> Result<Place> {
        match self.inner.table.reserve(key).await {
            Err(exists) if exists.is_already_exists() => {
                match self.state(key.namespace(), key.id(), "").await {
                    Err(error) if error.is_not_found() => self.inner.table.reserve(key).await,
                    _ => Err(exists),
                }
            }
            reserved => reserved,
        }
    }

    async fn create_steps(&self, creation: &Creation, undo: &mut Undo) -> Result<u32> {
        self.make_bundle(creation).await?;
        crash::point("bundle-made");
        undo.push("remove bundle", remove_bundle(creation));
        let checkpoint = take_checkpoint(creation).await?;
        let log = ShimLog::open(&creation.bundle, &creation.key).context(|| "failed to start shim")?;
        // The program may have left something even if it failed, and certainly if we fail to reach what it started.
        undo.push("clean up after shim", self.clone().clean_up(creation));
        let shim = self.start_shim(creation, log).await.context(|| "failed to start shim")?;
        let creating = shim.creating.lock().await;
        creation.place.fill(Arc::clone(&shim));
        self.watch(&shim);
        undo.push("delete shim", self.clone().give_up(Arc::clone(&shim), Arc::clone(&creation.place)));
        let pid =
            self.make_task(&shim, creation, checkpoint).await.context(|| "failed to create shim task")?;
        crash::point("created");
        shim.set_created(pid);
        self.hold_init(&shim);
        drop(creating);
        Ok(pid)
    }

    /// Makes the bundle. One that is there already although nobody has the id is what a failed cleanup left.
    async fn make_bundle(&self, creation: &Creation) -> Result<()> {
        let make = || {
            let (bundle, binary) = (creation.bundle.clone(), creation.binary.clone());
            let (spec, is_sandbox) = (creation.create.spec.clone(), creation.sandbox.is_some());
            let is_served = creation.create.endpoint.is_some();
            blocking(move || {
                bundle.create(spec.as_ref())?;
                let marked = match (is_sandbox, is_served) {
                    (true, _) => bundle.mark_sandbox(),
                    (false, true) => bundle.mark_served(),
                    (false, false) => Ok(()),
                };
                marked.and_then(|()| bundle.write_binary(&binary)).inspect_err(|_| {
                    if let Err(error) = bundle.remove() {
                        tracing::error!(%error, "remove half a bundle");
                    }
                })
            })
        };
        match make().await {
            Err(error) if error.is_already_exists() => {
                tracing::warn!(task = %creation.key, "cleaning up what is left of an earlier task");
                let Creation { key, bundle, binary, .. } = creation;
                let target = Target { key, bundle, shim: binary };
                self.bury_bundle(target, Witness::Bundle).await?;
                make().await.map_err(|error| match error.class() {
                    // To the caller this would mean that the task exists.
                    Class::AlreadyExists => error.reclass(Class::Unavailable),
                    _ => error,
                })
            }
            made => made,
        }
    }

    /// Executes the shim, keeps its address in the bundle, and only then connects.
    async fn start_shim(&self, creation: &Creation, log: ShimLog) -> Result<Arc<Shim>> {
        let Creation { key, bundle, binary, .. } = creation;
        let bootstrap = match (&creation.shared, &creation.create.endpoint) {
            // Its own `start` would say the same, if it knew the two to be of one group.
            (Some(shim), _) => shim.bootstrap.clone(),
            (None, Some(endpoint)) => endpoint::bootstrap(endpoint)?,
            (None, None) => {
                let (target, limit) = (Target { key, bundle, shim: binary }, self.inner.timeouts.start);
                let started =
                    self.inner.launcher.start(target, creation.create.options.as_ref(), limit).await;
                started.context(|| "start failed")?
            }
        };
        crash::point("shim-started");
        bundle.write_bootstrap(&bootstrap)?;
        crash::point("address-stored");
        let connecting = self.inner.connections.connect(&bootstrap.address);
        let connection = tokio::time::timeout(self.inner.timeouts.load, connecting)
            .await
            .unwrap_or_else(|_| Err(Error::deadline(format!("dial {}: timeout", bootstrap.address))))
            .context(|| "start failed")?;
        let link = Link { bootstrap, connection, log };
        Ok(Arc::new(Shim::new(key.clone(), bundle.clone(), binary.clone(), link)))
    }

    async fn make_task(&self, shim: &Shim, creation: &Creation, checkpoint: String) -> Result<u32> {
        let limit = self.inner.timeouts.cleanup;
        let unwanted = async {
            creation.terms.awaited.no_more().await;
            tokio::time::sleep(limit).await;
        };
        let making = async {
            creation.terms.ready.reached().await?;
            match &creation.sandbox {
                Some(sandbox) => shim.make_sandbox(sandbox.clone()).await,
                None => create_task(shim, &creation.create, checkpoint).await,
            }
        };
        tokio::pin!(making);
        tokio::select! {
            biased;
            made = &mut making => return made,
            () = unwanted => {}
        }
        tracing::warn!(task = %creation.key, "nobody waits for the task any more, its making is ended");
        // A shim that does not know how is sent away afterwards like any other.
        let _ = shim.end_creation(limit).await;
        let late = || Error::deadline("nobody waits for it any more");
        tokio::time::timeout(limit, making).await.unwrap_or_else(|_| Err(late()))
    }

    /// The opposite of executing the shim's `start`.
    fn clean_up(self, creation: &Creation) -> impl Future<Output = Result<()>> + Send + 'static {
        let (key, bundle) = (creation.key.clone(), creation.bundle.clone());
        let (binary, place) = (creation.binary.clone(), Arc::clone(&creation.place));
        async move {
            // Otherwise it was done by who took the task, or by `give_up`, which removes the bundle.
            if place.is_held() && bundle.path.exists() && !bundle.is_served() {
                self.dismiss_unreached(&key, &bundle).await;
                let target = Target { key: &key, bundle: &bundle, shim: &binary };
                self.inner.launcher.delete(target, self.inner.timeouts.cleanup).await?;
            }
            Ok(())
        }
    }
}

/// The directory of the checkpoint that the task goes on from, or empty. One that is to be the task's own is moved into
/// its bundle, and goes with it.
async fn take_checkpoint(creation: &Creation) -> Result<String> {
    let path = match &creation.create.origin {
        Origin::Beginning => return Ok(String::new()),
        Origin::Checkpoint(path) => return Ok(path.clone()),
        Origin::OwnCheckpoint(path) => path.clone(),
    };
    let own = creation.bundle.path.join("work/checkpoint");
    let kept = own.to_string_lossy().into_owned();
    blocking(move || {
        let what = || format!("keep the checkpoint as {}", own.display());
        match std::fs::rename(&path, &own) {
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => copy_files(&path, &own).context(what),
            moved => moved.context(what),
        }
    })
    .await?;
    Ok(kept)
}

/// Copies a directory of files, as CRIU writes it.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

async fn create_task(shim: &Shim, create: &Create, checkpoint: String) -> Result<u32> {
    let request = wire::CreateTaskRequest {
        id: shim.key.id().to_owned(),
        bundle: shim.bundle.path.to_string_lossy().into_owned(),
        rootfs: create.rootfs.iter().cloned().map(api::convert::mount_to_wire).collect(),
        terminal: create.stdio.terminal,
        stdin: create.stdio.stdin.clone(),
        stdout: create.stdio.stdout.clone(),
        stderr: create.stdio.stderr.clone(),
        options: create.options.clone().map(api::any::to_wire),
        checkpoint,
        ..Default::default()
    };
    let response: wire::CreateTaskResponse = shim.first_call("Create", &request, None).await?;
    Ok(response.pid)
}

/// The opposite of making the bundle.
fn remove_bundle(creation: &Creation) -> impl Future<Output = Result<()>> + Send + 'static {
    let (bundle, place) = (creation.bundle.clone(), Arc::clone(&creation.place));
    async move {
        // Whoever took the task from us removes its bundle.
        if !place.is_held() {
            return Ok(());
        }
        if !bundle.is_served() && bundle.init_may_live() {
            return Err(Error::unavailable("the container's init may be running, bundle is kept"));
        }
        blocking(move || bundle.remove()).await
    }
}
