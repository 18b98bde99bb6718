//! After a start of the daemon: every bundle is a task whose shim is looked for again, all at the same time.
//!
//! ```text
//!  shim answers, knows the task            the task lives on, also one that has ended: its code is kept until Delete
//!  shim answers, task was never made       shim sent away, bundle removed
//!  shim is there and does not answer       the task lives on with its state unknown, until the shim answers or dies
//!  shim cannot be asked (no descriptors,   the same: it is tried again for as long as that takes
//!    or its queue is full)
//!  shim speaks what we do not              the bundle is left alone, and the id stays taken
//!  shim is gone, or was never reached      `delete`, exit and delete events, bundle removed
//! ```
//!
//! Names that cannot be ours are left alone; `.<id>` is what a crash left of a removal.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use types::{Class, Error, Namespace, Result, ResultExt};

use crate::bootstrap::Bootstrap;
use crate::bundle::{Bundle, Layout};
use crate::key::TaskKey;
use crate::launch::Target;
use crate::log::ShimLog;
use crate::runtime::{Runtime, blocking};
use crate::shim::{Link, Shim, lost};
use crate::shims::Place;
use crate::ttrpc::Failure;
use crate::why::posthumous::Witness;

/// How long to wait before a shim is asked again.
const STEP: Duration = Duration::from_millis(50);
/// How long a container may take from its init's pid to its being known.
const MOMENT: Duration = Duration::from_millis(200);
/// The longest wait before a shim that could not be reached is tried again.
const LONGEST_STEP: Duration = Duration::from_secs(5);
/// How long clients may need to come back: gRPC waits up to 3 s before it connects again, dockerd asks for health first.
const CLIENTS_BACK: Duration = Duration::from_secs(10);

/// What is below the directories of state and root.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) bundles: HashSet<TaskKey>,
    pub(crate) works: HashSet<TaskKey>,
    pub(crate) hidden: HashSet<TaskKey>,
}

impl Runtime {
    /// Reserves the ids of all bundles and begins to look for their shims; does not wait for that.
    pub(crate) async fn load(&self) -> Result<()> {
        let layout = self.inner.layout.clone();
        let sockets = self.inner.launcher.socket_dir.clone();
        let found = blocking(move || {
            crate::why::sweep(&layout.root);
            match sockets.map_or(Ok(()), |dir| crate::connect::sweep(&dir)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "look for sockets of shims that are gone");
                }
                _ => {}
            }
            scan(&layout)
        })
        .await?;
        if !found.bundles.is_empty() {
            // The shims tell at once what has happened meanwhile, when nobody has subscribed yet.
            self.inner.events.keep_for(CLIENTS_BACK);
        }
        for key in &found.bundles {
            let place = self.inner.table.loading(key);
            tokio::spawn(self.clone().load_one(key.clone(), place));
        }
        let orphans = found.works.difference(&found.bundles).chain(found.hidden.difference(&found.bundles));
        for key in orphans.cloned().collect::<HashSet<_>>() {
            // Nobody may make a bundle of this id while its leftovers go.
            let place = self.inner.table.loading(&key);
            place.closing();
            tokio::spawn(self.clone().sweep(key, place));
        }
        Ok(())
    }

    async fn sweep(self, key: TaskKey, place: Place) {
        let bundle = self.inner.layout.bundle(&key);
        if let Err(error) = blocking(move || bundle.remove_hidden().and(bundle.remove())).await {
            tracing::error!(task = %key, %error, "remove what an earlier task left");
        }
        drop(place);
    }

    async fn load_one(self, key: TaskKey, place: Place) {
        let bundle = self.inner.layout.bundle(&key);
        let hidden = bundle.clone();
        if let Err(error) = blocking(move || hidden.remove_hidden()).await {
            tracing::error!(task = %key, %error, "remove what an earlier task left");
        }
        let binary = self.binary_of(&bundle);
        let shim = match self.reach(&place, &key, &bundle, binary).await {
            Ok(shim) => Arc::new(shim),
            Err(error) => return self.bury_unreached(key, place, error).await,
        };
        match self.find_task(&shim).await {
            Err(failure) if failure.is_not_found() => {
                tracing::warn!(task = %key, "cleaning up a shim whose task was never made");
                place.closing();
                self.send_away(&shim).await;
            }
            Err(Failure::Closed) => {
                place.closing();
                let end = self.end_of(&shim).await;
                self.publish_end(&key, end);
            }
            state => {
                if let Err(failure) = state {
                    let error = Error::from(failure);
                    tracing::error!(task = %key, %error, "shim does not tell the state of its task");
                    shim.set_created(shim.bundle.init_pid().unwrap_or(0));
                } else {
                    shim.set_created(shim.pid());
                }
                place.fill(Arc::clone(&shim));
                self.watch(&shim);
                self.hold_init(&shim);
            }
        }
    }

    /// Asks for the task's state. One that is not there may be about to be: the daemon before may have died while the
    /// shim was at its Create.
    async fn find_task(&self, shim: &Shim) -> Result<(), Failure> {
        // Where there was an init, it has been deleted, or is there in a moment.
        let made = shim.bundle.init_pid().is_some();
        let until = Instant::now() + if made { MOMENT } else { self.inner.timeouts.state };
        loop {
            match shim.is_known(self.inner.timeouts.load).await {
                Err(failure) if failure.is_not_found() && Instant::now() < until => {
                    tokio::time::sleep(STEP).await
                }
                known => return known,
            }
        }
    }

    /// Ends a shim that knows no task. It may ignore Shutdown as long as it is at a Create, whose task is then deleted;
    /// one that takes long is asked less often, and its id stays taken, as a task could still come of it.
    async fn send_away(&self, shim: &Shim) {
        let limit = self.inner.timeouts.cleanup;
        if shim.is_served {
            let _ = shim.end_creation(limit).await;
            let _ = shim.delete("", Some(limit)).await;
            return self.farewell(shim, lost(0)).await;
        }
        let until = Instant::now() + limit;
        let mut step = STEP;
        while !self.inner.table.is_shared(shim) {
            // All may fail; what counts is that the connection ends.
            let _ = shim.end_creation(limit).await;
            let _ = shim.delete("", Some(limit)).await;
            let _ = shim.shutdown(limit).await;
            if tokio::time::timeout(step, shim.connection.closed()).await.is_ok() {
                break;
            }
            if step == STEP && Instant::now() > until {
                tracing::error!(task = %shim.key, "shim does not go, it is asked again until it does");
                step = limit;
            }
        }
        let end = self.bury(shim, Witness::None).await;
        shim.finished(end);
    }

    /// Connects to the shim of a bundle, again and again as long as what is in the way says nothing about the shim.
    async fn reach(&self, place: &Place, key: &TaskKey, bundle: &Bundle, binary: PathBuf) -> Result<Shim> {
        let mut step = STEP;
        // Whoever serves it may have been started again with us, and not listen yet.
        let until = bundle.is_served().then(|| Instant::now() + self.inner.timeouts.load);
        loop {
            match self.connect_to(key, bundle, &binary).await {
                Err(error)
                    if !passes(&error)
                        && is_absent(&error)
                        && until.is_some_and(|until| Instant::now() < until) =>
                {
                    tokio::time::sleep(STEP).await;
                }
                Err(error) if passes(&error) => {
                    if step == STEP {
                        tracing::error!(task = %key, %error, "shim cannot be reached yet");
                        place.unreached();
                    }
                    tokio::time::sleep(step).await;
                    step = (step * 2).min(LONGEST_STEP);
                }
                reached => return reached,
            }
        }
    }

    async fn connect_to(&self, key: &TaskKey, bundle: &Bundle, binary: &Path) -> Result<Shim> {
        let bootstrap: Bootstrap =
            bundle.read_bootstrap()?.ok_or_else(|| Error::not_found("no shim address in the bundle"))?;
        let connecting = self.inner.connections.connect(&bootstrap.address);
        let connection = tokio::time::timeout(self.inner.timeouts.load, connecting)
            .await
            .unwrap_or_else(|_| Err(Error::deadline(format!("dial {}: timeout", bootstrap.address))))
            .context(|| "unable to make connection")?;
        let log = ShimLog::open(bundle, key)?;
        let link = Link { bootstrap, connection, log };
        Ok(Shim::new(key.clone(), bundle.clone(), binary.to_owned(), link))
    }

    async fn bury_unreached(self, key: TaskKey, place: Place, error: Error) {
        if error.class() == Class::Unimplemented {
            // Something is there, and running: it is not ours to end, and a Create of this id would end it.
            tracing::error!(task = %key, %error, "shim cannot be reached, its bundle is left alone");
            place.unreached();
            return std::future::pending().await;
        }
        tracing::warn!(task = %key, %error, "shim is gone, cleaning up");
        place.closing();
        let bundle = self.inner.layout.bundle(&key);
        let binary = self.binary_of(&bundle);
        // Upstream's shim does not serve before somebody reads its log.
        let log = ShimLog::open(&bundle, &key);
        self.dismiss_unreached(&key, &bundle).await;
        drop(log);
        let address = bundle.read_bootstrap().ok().flatten().map(|bootstrap| bootstrap.address);
        let served = bundle.is_served();
        let end = self
            .bury_bundle(Target { key: &key, bundle: &bundle, shim: &binary }, Witness::Bundle)
            .await
            .unwrap_or_else(|error| {
                tracing::error!(task = %key, %error, "failed to clean up after shim");
                lost(0)
            });
        if let Some(address) = address.filter(|_| !served) {
            let removed = blocking(move || {
                crate::connect::remove_socket(&address);
                Ok(())
            });
            let _ = removed.await;
        }
        self.publish_end(&key, end);
        drop(place);
    }

    /// The shim's program as the bundle says; the default runtime's where it does not (a bundle of an old daemon, or
    /// one that was just being made).
    fn binary_of(&self, bundle: &Bundle) -> PathBuf {
        match bundle.read_binary() {
            Ok(Some(binary)) if binary.is_absolute() => binary,
            _ => crate::binary::resolve("io.containerd.runc.v2", &self.inner.launcher.binary)
                .unwrap_or_else(|_| "containerd-shim-runc-v2".into()),
        }
    }
}

/// Whether an error is about this moment or this daemon: a shim that does not accept may be stopped, and one for which
/// we have no descriptor left is certainly not dead.
fn passes(error: &Error) -> bool {
    matches!(error.class(), Class::DeadlineExceeded | Class::ResourceExhausted)
}

/// Whether nobody listens.
fn is_absent(error: &Error) -> bool {
    matches!(error.class(), Class::NotFound | Class::Unavailable)
}

pub(crate) fn scan(layout: &Layout) -> Result<Found> {
    let mut found = Found::default();
    for (dir, is_state) in [(&layout.state, true), (&layout.root, false)] {
        for namespace in names(dir)? {
            let Ok(parsed) = namespace.parse::<Namespace>() else { continue };
            for name in names(&dir.join(&namespace))? {
                let (id, hidden) = match name.strip_prefix('.') {
                    Some(id) => (id, true),
                    None => (name.as_str(), false),
                };
                let Ok(key) = TaskKey::new(&parsed, id) else { continue };
                let into = match (hidden, is_state) {
                    (true, _) => &mut found.hidden,
                    (false, true) => &mut found.bundles,
                    (false, false) => &mut found.works,
                };
                into.insert(key);
            }
        }
    }
    Ok(found)
}

/// The names of the directories in `dir`; none if it is not there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let read = || {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Some(name) = OsStr::to_str(&entry.file_name())
            {
                names.push(name.to_owned());
            }
        }
        std::io::Result::Ok(names)
    };
    match read() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.context(|| format!("read {dir:?}")),
    }
}
