//! The database: opening it, and the ways into it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::content::Store;
use ::snapshots::Snapshotter;
use redb::ReadTransaction;
use types::{Error, Namespace, Result, ResultExt, Scope};

use crate::changes::Changes;
use crate::containers::Containers;
use crate::content::Contents;
use crate::gc::Collectible;
use crate::images::Images;
use crate::leases::Leases;
use crate::namespaces::Namespaces;
use crate::root::{self, RootLock};
use crate::sandboxes::Sandboxes;
use crate::schema::{FORMAT, FORMATS, FormatRecord, PRODUCT, create_tables};
use crate::snapshots::{Graves, Snapshots};
use crate::storage::{Storage, failure, open_file};
use crate::tx::{Source, Tx};
use crate::writer::{Observed, Writer};
use ::content::locks::Locks;

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
    /// What collections want to know of the writing.
    pub(crate) observed: Arc<Observed>,
    /// What is collected besides rows.
    pub(crate) collectibles: Mutex<Vec<Arc<dyn Collectible>>>,
    /// Held by the collection that is under way.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Snapshots whose rows are gone and which their backends still have.
    pub(crate) graves: Graves,
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

    /// Makes the root, unless it is not ours, and takes it for this process: of two daemons that begin on a fresh root
    /// at the same moment one is refused before it has opened anything.
    pub fn lock_root(root: &Path) -> Result<RootLock> {
        root::take(root)
    }

    /// [`Db::open`] below a root that was taken before.
    pub fn open_locked(options: Options, lock: RootLock) -> Result<Self> {
        let db = Self::open_below(options, lock)?;
        db.clone().recover_aside();
        Ok(db)
    }

    /// Opens the database, or creates it, and holds the root until the last clone is dropped.
    ///
    /// What a crash left half done is completed or taken back in the background, if a tokio runtime is there to do
    /// it, while the database is in use already (see `recover`).
    pub fn open(options: Options) -> Result<Self> {
        let db = Self::open_only(options)?;
        db.clone().recover_aside();
        Ok(db)
    }

    fn recover_aside(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.recover_in_background());
        }
    }

    /// [`Db::open`] without the recovery.
    pub(crate) fn open_only(options: Options) -> Result<Self> {
        let dir = &options.dir;
        let root = dir.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(dir);
        let lock = root::take(root)?;
        Self::open_below(options, lock)
    }

    fn open_below(options: Options, lock: RootLock) -> Result<Self> {
        let dir = options.dir;
        root::claim(&dir)?;
        let path = dir.join(root::DATABASE);
        let storage = Storage::open(move || open_file(&path))?;
        let format = prepare(&storage).context(|| format!("open metadata database in {}", dir.display()))?;
        File::open(&dir).and_then(|dir| dir.sync_all()).context(|| format!("sync {}", dir.display()))?;
        Self::start(storage, format, lock, options.content, options.snapshotters)
    }

    fn start(
        storage: Storage,
        format: FormatRecord,
        lock: RootLock,
        content: Arc<dyn Store>,
        snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    ) -> Result<Self> {
        let storage = Arc::new(storage);
        let observed: Arc<Observed> = Arc::default();
        let inner = Inner {
            writer: Writer::start(Arc::clone(&storage), Arc::clone(&observed))?,
            storage,
            content,
            graves: Graves::of(snapshotters.keys()),
            snapshotters,
            locks: Arc::default(),
            observed,
            collectibles: Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
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

    /// The sandboxes of a namespace.
    pub fn sandboxes(&self, namespace: &Namespace) -> Sandboxes {
        Sandboxes::new(self.clone(), namespace.clone())
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

    /// How much has changed since whoever schedules collections has asked last.
    pub fn changes(&self) -> Arc<Changes> {
        Arc::clone(&self.inner.observed.changes)
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
        // Generations begin with 1; numbers of generation 0 are upstream's.
        number.is_some_and(|number| (1..self.inner.generation).contains(&(number >> COUNTER_BITS)))
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

#[cfg(test)]
mod tests {
    use prost::Message;
    use types::Class;
    use types::filters::Filters;

    use super::*;
    use crate::fakes::{Bench, labels, ns, scope};
    use crate::schema::{BLOBS, CONTAINERS, IMAGES, INGESTS, LEASES, NAMESPACES, SANDBOXES, SNAPSHOTS};
    use crate::tx::NEXT;

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let bench = Bench::new();
        let db = bench.open();
        let uuid = db.server_uuid();
        db.namespaces().create(&ns("a"), labels(&[("k", "v")])).await.unwrap();
        let first = db.backend_key(&ns("a"), "x");
        drop(db);
        let db = bench.open();
        assert_eq!(db.namespaces().list().unwrap(), [(ns("a"), labels(&[("k", "v")]))]);
        assert_eq!(db.server_uuid(), uuid, "the identity is the root's");
        assert_ne!(db.backend_key(&ns("a"), "x"), first, "names in backends are never used again");
        assert!(db.made_earlier(&first) && !db.made_earlier(&db.backend_key(&ns("a"), "x")));
        assert!(!db.made_earlier("sha256:00") && !db.made_earlier("somebody/elses/key"));
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
        let bench = Bench::new();
        let db = bench.open();
        for count in 0..20 {
            let name: Namespace = format!("n{count}").parse().unwrap();
            db.namespaces().create(&name, labels(&[])).await.unwrap();
            // What a killed daemon leaves is the file as it is now, without an orderly end.
            let killed = Bench::new();
            let dir = killed.options().dir;
            std::fs::create_dir_all(&dir).unwrap();
            for file in ["format", "meta.redb"] {
                std::fs::copy(bench.options().dir.join(file), dir.join(file)).unwrap();
            }
            let again = killed.recover().await;
            assert_eq!(again.namespaces().list().unwrap().len(), count + 1);
            assert_eq!(again.server_uuid(), db.server_uuid());
        }
    }

    #[tokio::test]
    async fn a_second_daemon_on_one_root_is_refused_by_name() {
        let bench = Bench::new();
        let _db = bench.open();
        let error = Db::open(bench.options()).err().unwrap();
        assert_eq!(error.class(), Class::FailedPrecondition);
        assert!(error.to_string().contains(&bench.root.path().display().to_string()), "{error}");
        assert!(Db::check_root(bench.root.path()).is_err());
    }

    #[test]
    fn a_root_that_cannot_be_written_is_refused_with_its_path_and_reason() {
        for root in ["/proc/nowhere", "/dev/null/nowhere"] {
            let bench = Bench::new();
            let dir = Path::new(root).join("io.containerd.metadata.v1.redb");
            let error = Db::open(Options { dir, ..bench.options() }).err().unwrap();
            assert!(error.to_string().contains(root) && error.to_string().contains("os error"), "{error}");
        }
    }

    #[test]
    fn a_database_of_a_newer_layout_is_refused_and_not_changed() {
        let bench = Bench::new();
        drop(bench.open());
        let path = bench.options().dir.join("meta.redb");
        let write = |change: &dyn Fn(&mut FormatRecord)| {
            let database = open_file(&path).unwrap();
            let txn = database.begin_write().unwrap();
            let mut format = Tx::new(&txn).get(FORMATS, "format").unwrap().unwrap();
            change(&mut format);
            Tx::new(&txn).put(FORMATS, "format", format).unwrap();
            txn.commit().unwrap();
        };
        let refused = |words: &str| {
            // Opening and closing may change what is redb's own, not what stands in the tables.
            let error = Db::open(bench.options()).err().unwrap();
            assert!(error.to_string().contains(words), "{error}");
        };
        write(&|format| format.format = 2);
        refused("format 2, this program knows up to 1");
        write(&|format| (format.format, format.product) = (1, "else".to_owned()));
        refused("belongs to \"else\"");
        write(&|format| format.product = PRODUCT.to_owned());
        bench.open();
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let bench = Bench::new();
        drop(bench.open());
        let path = bench.options().dir.join("meta.redb");
        std::fs::write(&path, "not a database".repeat(1000)).unwrap();
        let error = Db::open(bench.options()).err().unwrap();
        assert!(error.to_string().contains("meta.redb"), "{error}");
    }

    #[derive(Clone, PartialEq, Message)]
    struct Newer {
        #[prost(uint32, tag = "1")]
        version: u32,
        #[prost(string, tag = "99")]
        surprise: String,
    }

    #[tokio::test]
    async fn a_record_of_a_newer_version_is_an_error_wherever_it_is_met() {
        let bench = Bench::new();
        drop(bench.open());
        let database = open_file(&bench.options().dir.join("meta.redb")).unwrap();
        let txn = database.begin_write().unwrap();
        let newer = Newer { version: 7, surprise: "!".to_owned() }.encode_to_vec();
        let digest = types::Digest::of(b"x");
        txn.open_table(NAMESPACES.table).unwrap().insert("a", newer.as_slice()).unwrap();
        for table in [CONTAINERS.table, SANDBOXES.table, IMAGES.table, LEASES.table, INGESTS.table] {
            txn.open_table(table).unwrap().insert(("a", "x"), newer.as_slice()).unwrap();
        }
        txn.open_table(BLOBS.table).unwrap().insert(("a", digest.as_str()), newer.as_slice()).unwrap();
        let key = ("a", crate::fakes::SNAPSHOTTER, "x");
        txn.open_table(SNAPSHOTS.table).unwrap().insert(key, newer.as_slice()).unwrap();
        txn.commit().unwrap();
        drop(database);

        let db = bench.open();
        let (a, all) = (ns("a"), Filters::default());
        let snapshots = db.snapshotter(scope("a"), crate::fakes::SNAPSHOTTER).unwrap();
        let content = db.content(scope("a"));
        let errors = [
            db.namespaces().get(&a).err(),
            db.namespaces().list().err(),
            db.containers(&a).get("x").err(),
            db.containers(&a).list(&all, "", &mut |_| NEXT).err(),
            db.sandboxes(&a).get("x").err(),
            db.sandboxes(&a).list(&all).err(),
            db.images(&scope("a")).get("x").err(),
            db.images(&scope("a")).list(&all, &mut |_| Ok(())).err(),
            db.leases(&a).get("x").err(),
            db.leases(&a).list(&all, &mut |_| Ok(())).err(),
            content.info(&digest).await.err(),
            content.walk(&all, &mut |_| Ok(())).await.err(),
            content.status("x").await.err(),
            content.list_statuses(&[]).await.err(),
            snapshots.stat("x").await.err(),
            snapshots.walk(&all, &mut |_| Ok(())).await.err(),
            snapshots.remove("x").await.err(),
            snapshots.prepare("y", "x", labels(&[])).await.err(),
            db.recover().await.err(),
        ];
        for (place, error) in errors.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("{place} did not fail"));
            assert!(error.to_string().contains("version 7"), "{place}: {error}");
        }
        drop((content, snapshots, db));
        let database = open_file(&bench.options().dir.join("meta.redb")).unwrap();
        let txn = database.begin_write().unwrap();
        let table = txn.open_table(CONTAINERS.table).unwrap();
        assert!(
            redb::ReadableTable::get(&table, ("a", "x")).unwrap().unwrap().value() == newer,
            "it was rewritten"
        );
    }

    #[test]
    fn identities_are_version_four_uuids() {
        for _ in 0..100 {
            let uuid = new_uuid();
            let parts: Vec<_> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
            assert!(uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        }
    }

    #[tokio::test]
    async fn concurrent_changes_share_commits_and_readers_see_each_once_acknowledged() {
        let bench = Bench::new();
        let db = bench.open();
        let before = db.commits();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let db = db.clone();
                tokio::spawn(async move {
                    for i in 0..50 {
                        let name = format!("n{task}-{i}").parse().unwrap();
                        db.namespaces().create(&name, labels(&[("i", "1")])).await.unwrap();
                        assert_eq!(db.namespaces().get(&name).unwrap(), labels(&[("i", "1")]));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let commits = db.commits() - before;
        assert!(commits < 400 / 2, "400 changes by eight at a time took {commits} commits");
        assert_eq!(db.namespaces().list().unwrap().len(), 400);
    }

    #[test]
    fn an_unknown_snapshotter_is_refused_by_name() {
        let bench = Bench::new();
        let db = bench.open();
        let error = db.snapshotter(scope("a"), "zfs").err().unwrap();
        assert!(error.to_string().contains("snapshotter not loaded: zfs"), "{error}");
        assert!(db.snapshotter(scope("a"), "").is_err());
    }
}
