//! The open redb database: begins transactions, and opens itself anew after an I/O error.
//!
//! After a failed write redb refuses everything until it is opened again, when it finds its last good commit. Doing
//! that here means that a disk that was full for a while costs the mutations of that while, not a restart.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use types::{Class, Error, Result, ResultExt};

use crate::file::Allocated;

/// redb's own cache of pages. The kernel caches the file as well.
const CACHE: usize = 4 << 20;

type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

/// The database, or the way to open it again.
pub(crate) struct Storage {
    opener: Opener,
    // `None` between a failed write and the next successful opening. Held for the moments in which a transaction
    // begins, never while one runs.
    database: RwLock<Option<Database>>,
    commits: AtomicU64,
}

impl Storage {
    /// Opens what `opener` opens.
    pub(crate) fn open(opener: impl Fn() -> Result<Database> + Send + Sync + 'static) -> Result<Self> {
        let database = RwLock::new(Some(opener()?));
        Ok(Self { opener: Box::new(opener), database, commits: AtomicU64::new(0) })
    }

    /// A consistent view of the last commit.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or_else(closed)?.begin_read().map_err(failure)
    }

    /// The write transaction; there is one at a time. Opens the database if an error has closed it.
    pub(crate) fn begin_write(&self) -> Result<WriteTransaction> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or_else(closed)?.begin_write().map_err(failure)
    }

    /// Makes `txn` durable.
    pub(crate) fn commit(&self, txn: WriteTransaction) -> Result<()> {
        txn.commit().map_err(failure)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many commits there were since the opening.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Closes the database after an I/O error and opens it again. Reads that are under way fail.
    pub(crate) fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The file is locked until the old one is gone.
        drop(database.take());
        *database = Some((self.opener)().context(|| "open the metadata database again after an I/O error")?);
        Ok(())
    }
}

/// Opens or creates the database file at `path`.
pub(crate) fn open_file(path: &Path) -> Result<Database> {
    let doing = || format!("open metadata database {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).context(doing)?;
    let file = Allocated::new(file).map_err(|e| failure(e).context(doing()))?;
    create(file).map_err(|e| e.context(doing()))
}

/// Opens or creates a database on `backend`.
pub(crate) fn create(backend: impl redb::StorageBackend) -> Result<Database> {
    redb::Builder::new().set_cache_size(CACHE).create_with_backend(backend).map_err(failure)
}

fn closed() -> Error {
    Error::unavailable("the metadata database is closed after an I/O error; the next change opens it again")
}

/// The class and words of a failure of redb.
pub(crate) fn failure(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        error @ redb::Error::Corrupted(_) => Error::caused(Class::DataLoss, "metadata database", error),
        error @ (redb::Error::DatabaseAlreadyOpen | redb::Error::UpgradeRequired(_)) => {
            Error::caused(Class::FailedPrecondition, "metadata database", error)
        }
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            Error::caused(Class::Unavailable, "metadata database", error)
        }
        error => Error::caused(Class::Internal, "metadata database", error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::ops::Bound;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use redb::{BackendError, StorageBackend};

    use super::*;
    use crate::namespaces::NamespaceRecord;
    use crate::schema::{NAMESPACES, create_tables};
    use crate::tx::{Source, Tx};
    use crate::writer::Writer;

    /// A file on a disk that can be full.
    #[derive(Debug)]
    struct Disk {
        inner: Allocated,
        full: Arc<AtomicBool>,
        /// Full only for what is not allocated yet.
        no_growth: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            match self.full.load(Ordering::Relaxed) {
                true => Err(io::Error::from_raw_os_error(28)),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.inner.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            if self.no_growth.load(Ordering::Relaxed) && len > self.inner.len()? {
                return Err(io::Error::from_raw_os_error(28));
            }
            self.check().and_then(|()| self.inner.set_len(len))
        }
        fn sync_data(&self) -> io::Result<()> {
            self.check().and_then(|()| self.inner.sync_data())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check().and_then(|()| self.inner.write(offset, data))
        }
        fn close(&self) -> io::Result<()> {
            self.inner.close()
        }
        fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
            self.inner.try_lock_range(start, end)
        }
        fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
            self.inner.unlock_range(start, end)
        }
    }

    fn put(name: &'static str) -> impl FnMut(&Tx<'_>) -> Result<()> + Send + 'static {
        move |tx| tx.put(NAMESPACES, name, NamespaceRecord::default())
    }

    struct Bench {
        _dir: tempfile::TempDir,
        storage: Arc<Storage>,
        writer: Writer,
        full: Arc<AtomicBool>,
        no_growth: Arc<AtomicBool>,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.redb");
        let (full, no_growth) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let disk = (Arc::clone(&full), Arc::clone(&no_growth));
        let storage = Storage::open(move || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let (full, no_growth) = disk.clone();
            create(Disk { inner: Allocated::new(file).map_err(failure)?, full, no_growth })
        });
        let storage = Arc::new(storage.unwrap());
        let txn = storage.begin_write().unwrap();
        create_tables(&txn).unwrap();
        storage.commit(txn).unwrap();
        let writer = Writer::start(Arc::clone(&storage), Arc::default()).unwrap();
        Bench { _dir: dir, storage, writer, full, no_growth }
    }

    #[tokio::test]
    async fn a_full_disk_fails_by_name_and_is_over_when_there_is_space_again() {
        let bench = bench();
        bench.writer.mutate(put("before")).await.unwrap();
        bench.full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let error = bench.writer.mutate(put("during")).await.unwrap_err();
            assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
            assert!(error.to_string().contains("No space left on device"), "{error}");
        }
        bench.full.store(false, Ordering::Relaxed);
        bench.writer.mutate(put("after")).await.unwrap();
        let txn = bench.storage.begin_read().unwrap();
        assert!(txn.has(NAMESPACES.table, "before").unwrap() && txn.has(NAMESPACES.table, "after").unwrap());
        assert!(!txn.has(NAMESPACES.table, "during").unwrap());
    }

    #[tokio::test]
    async fn removing_works_on_a_full_disk_and_makes_room() {
        let bench = bench();
        bench.no_growth.store(true, Ordering::Relaxed);
        let fill = |name: String| {
            let bytes = vec![7; 20_000];
            move |tx: &Tx<'_>| tx.insert(NAMESPACES.table, &name, bytes.as_slice())
        };
        let mut rows = 0;
        let error = loop {
            match bench.writer.mutate(fill(format!("n{rows}"))).await {
                Ok(()) => rows += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.class(), Class::ResourceExhausted, "{error}");
        assert!(rows > 10, "the file has room for more than {rows}");
        for row in 0..rows {
            let name = format!("n{row}");
            bench.writer.mutate(move |tx| tx.remove(NAMESPACES.table, name.as_str())).await.unwrap();
        }
        bench.writer.mutate(fill("again".to_owned())).await.unwrap();
    }

    #[test]
    fn the_space_of_the_file_is_allocated() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.redb");
        let _database = open_file(&path).unwrap();
        let metadata = File::open(&path).unwrap().metadata().unwrap();
        assert!(
            metadata.blocks() * 512 >= metadata.len(),
            "{} of {}",
            metadata.blocks() * 512,
            metadata.len()
        );
    }
}
