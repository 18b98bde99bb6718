//! The database: opening it, and the ways into it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::content::Store;
use ::snapshots::Snapshotter;
use redb::ReadTransaction;
use types::{Error, Namespace, Result, ResultExt, Scope};

use crate::containers::Containers;
use crate::content::Contents;
use crate::images::Images;
use crate::leases::Leases;
use crate::locks::Locks;
use crate::namespaces::Namespaces;
use crate::root::{self, RootLock};
use crate::schema::{FORMAT, FORMATS, FormatRecord, PRODUCT, create_tables};
use crate::snapshots::{Dead, Snapshots};
use crate::storage::{Storage, failure, open_file};
use crate::tx::{Source, Tx};
use crate::writer::Writer;

/// What a database stands on.
pub struct Options {
    /// Its directory, `<root>/io.containerd.metadata.v1.redb`.
    pub dir: PathBuf,
    /// The store of all namespaces' blobs.
    pub content: Arc<dyn Store>,
    /// The snapshotters by name.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
}

/// The database of one root. Clones share it; the last one to go waits until everything queued is durable.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    // First, so that it is dropped first: it uses the storage, and the storage the root.
    writer: Writer,
    storage: Arc<Storage>,
    pub(crate) content: Arc<dyn Store>,
    pub(crate) snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Locks of digests, ingests and snapshots, for steps that span a store and the database.
    pub(crate) locks: Arc<Locks>,
    /// Snapshots that could not be removed from their backend when their rows were.
    pub(crate) dead_snapshots: Dead,
    uuid: String,
    generation: u64,
    counter: AtomicU64,
    _lock: RootLock,
}

/// Bits of the counter in the number of a backend key; the rest is the generation.
const COUNTER_BITS: u32 = 40;

impl Db {
    /// Refuses a root that is not ours, or that another daemon is using, and names its path, whose it is and the ways
    /// out. Touches nothing and creates nothing.
    ///
    /// To be called before the stores are opened: they create what is missing.
    pub fn check_root(root: &Path) -> Result<()> {
        root::check(root)
    }

    /// Opens the database, or creates it, and holds the root until the last clone is dropped.
    ///
    /// What a crash left half done is completed or taken back in the background, if a tokio runtime is there to do
    /// it, while the database is in use already (see `recover`).
    pub fn open(options: Options) -> Result<Self> {
        let dir = options.dir;
        let root = dir.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(&dir).to_owned();
        root::check_owner(&root)?;
        std::fs::create_dir_all(&root).context(|| format!("create root {}", root.display()))?;
        let lock = root::lock(&root)?;
        root::claim(&dir)?;
        let path = dir.join(root::DATABASE);
        let storage = Storage::open(move || open_file(&path))?;
        let format = prepare(&storage).context(|| format!("open metadata database in {}", dir.display()))?;
        File::open(&dir).and_then(|dir| dir.sync_all()).context(|| format!("sync {}", dir.display()))?;
        let db = Self::start(storage, format, lock, options.content, options.snapshotters)?;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(db.clone().recover_in_background());
        }
        Ok(db)
    }

    fn start(
        storage: Storage,
        format: FormatRecord,
        lock: RootLock,
        content: Arc<dyn Store>,
        snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    ) -> Result<Self> {
        let storage = Arc::new(storage);
        let inner = Inner {
            writer: Writer::start(Arc::clone(&storage))?,
            storage,
            content,
            snapshotters,
            locks: Arc::default(),
            dead_snapshots: Dead::default(),
            uuid: format.uuid,
            generation: format.generation,
            counter: AtomicU64::new(0),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The namespaces.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.clone())
    }

    /// The containers of a namespace.
    pub fn containers(&self, namespace: &Namespace) -> Containers {
        Containers::new(self.clone(), namespace.clone())
    }

    /// The images of a namespace; what is created is added to the scope's lease where it needs one.
    pub fn images(&self, scope: &Scope) -> Images {
        Images::new(self.clone(), scope.clone())
    }

    /// The leases of a namespace.
    pub fn leases(&self, namespace: &Namespace) -> Leases {
        Leases::new(self.clone(), namespace.clone())
    }

    /// A namespace's view of the content store. What it creates is added to the scope's lease.
    pub fn content(&self, scope: Scope) -> Arc<dyn Store> {
        Arc::new(Contents::new(self.clone(), scope))
    }

    /// A namespace's view of the snapshotter called `name`. What it creates is added to the scope's lease.
    pub fn snapshotter(&self, scope: Scope, name: &str) -> Result<Arc<dyn Snapshotter>> {
        if name.is_empty() {
            return Err(Error::invalid("snapshotter argument missing: invalid argument"));
        }
        let backend = self.inner.snapshotters.get(name).map(Arc::clone);
        let backend = backend
            .ok_or_else(|| Error::invalid(format!("snapshotter not loaded: {name}: invalid argument")))?;
        Ok(Arc::new(Snapshots::new(self.clone(), scope, name.to_owned(), backend)))
    }

    /// The identity of this root's daemon, made when the database was.
    pub fn server_uuid(&self) -> String {
        self.inner.uuid.clone()
    }

    /// How many transactions were committed durably since the opening.
    pub fn commits(&self) -> u64 {
        self.inner.storage.commits()
    }

    /// Runs `look` on a consistent view.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        look(&self.inner.storage.begin_read()?)
    }

    /// Runs `change` in the writer's next transaction; see [`Writer::mutate`].
    pub(crate) async fn mutate<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.mutate(change).await
    }

    /// A name in a backend that nothing had and nothing will have.
    pub(crate) fn backend_key(&self, namespace: &Namespace, key: &str) -> String {
        let count = self.inner.counter.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{namespace}/{}/{key}", (self.inner.generation << COUNTER_BITS) | count)
    }

    /// Whether a backend key was made by an earlier life of the daemon. Names that we never made are not.
    pub(crate) fn made_earlier(&self, backend_key: &str) -> bool {
        let number = backend_key.split('/').nth(1).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number >> COUNTER_BITS < self.inner.generation)
    }
}

/// Checks the format record before anything is written, then begins a new generation.
fn prepare(storage: &Storage) -> Result<FormatRecord> {
    let found = match storage.begin_read()?.open_table(FORMATS.table) {
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(failure(error)),
        Ok(table) => {
            drop(table);
            storage.begin_read()?.get(FORMATS, "format")?
        }
    };
    let mut format = match found {
        Some(format) => check_format(format)?,
        None => FormatRecord {
            product: PRODUCT.to_owned(),
            format: FORMAT,
            uuid: new_uuid(),
            ..FormatRecord::default()
        },
    };
    format.generation += 1;
    let txn = storage.begin_write()?;
    create_tables(&txn).map_err(failure)?;
    Tx::new(&txn).put(FORMATS, "format", format.clone())?;
    storage.commit(txn)?;
    Ok(format)
}

fn check_format(format: FormatRecord) -> Result<FormatRecord> {
    if format.product != PRODUCT {
        return Err(Error::precondition(format!("it belongs to {:?}, not to {PRODUCT}", format.product)));
    }
    if format.format > FORMAT {
        return Err(Error::precondition(format!(
            "it was written by a newer containerd-rs (format {}, this program knows up to {FORMAT}): run the newer \
             program, or choose another root with --root",
            format.format
        )));
    }
    Ok(format)
}

/// A random UUID (RFC 9562, version 4).
fn new_uuid() -> String {
    let number = rand::random::<u128>();
    let number = number & !(0xf << 76) | 4 << 76;
    let number = number & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
