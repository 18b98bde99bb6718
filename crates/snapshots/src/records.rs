//! The snapshots of one snapshotter, on disk: a small database of its own.
//!
//! ```text
//!  metadata.redb   format     "version" -> 1, "next" -> the next snapshot's id
//!                  snapshots  name      -> Row
//! ```
//!
//! Each change is one durable transaction; only then does it show in the index, which serves every read and can be
//! rebuilt from the table at any time. Changes take turns: whoever holds the [`Turn`] sees an index that stays as it is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use types::snapshot::{Info, Kind, Usage};
use types::{Class, Error, Result, ResultExt, time};

use crate::index::{Change, Index, Record};

const FORMAT: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");

/// The version of [`Row`] and of the tables.
const VERSION: u32 = 1;

/// The index serves reads; the database is read once and then only written, some pages at a time.
const CACHE: usize = 1 << 20;

/// A snapshot as it is stored.
#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    id: u64,
    /// 1 view, 2 active, 3 committed: upstream's numbers.
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(string, tag = "4")]
    parent: String,
    #[prost(btree_map = "string, string", tag = "5")]
    labels: std::collections::BTreeMap<String, String>,
    #[prost(int64, tag = "6")]
    created_secs: i64,
    #[prost(uint32, tag = "7")]
    created_nanos: u32,
    #[prost(int64, tag = "8")]
    updated_secs: i64,
    #[prost(uint32, tag = "9")]
    updated_nanos: u32,
    #[prost(uint64, tag = "10")]
    inodes: u64,
    #[prost(uint64, tag = "11")]
    size: u64,
}

/// The table and its index.
pub(crate) struct Records {
    path: PathBuf,
    /// `None` after a failed write: redb does not go on with a file after that (a full disk is enough).
    database: Mutex<Option<Database>>,
    index: RwLock<Index>,
    next: AtomicU64,
}

/// The right to change the records.
pub(crate) struct Turn<'a> {
    records: &'a Records,
    database: MutexGuard<'a, Option<Database>>,
}

impl Records {
    /// Opens the database `path`, which is made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open {path:?}");
        if !path.exists() {
            create(path).context(doing)?;
        }
        check_version(path).context(doing)?;
        let (database, index, next) = load(path).context(doing)?;
        Ok(Self {
            path: path.to_owned(),
            database: Mutex::new(Some(database)),
            index: RwLock::new(index),
            next: AtomicU64::new(next),
        })
    }

    /// Looks at the index. Not for long: changes wait for it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        // A change is applied after its transaction and cannot fail half-way.
        look(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An id that no snapshot has had. It is remembered with the first change after it.
    pub(crate) fn new_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Above all ids there have been.
    pub(crate) fn next_id(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Waits for the changes of others.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { records: self, database: self.database.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Turn<'_> {
    /// Writes a change durably and shows it.
    pub(crate) fn write(&mut self, change: Change) -> Result<()> {
        let doing = || "write snapshot metadata";
        if let Err(error) = self.store(&change).context(doing) {
            // Whether the change is on disk is not known: what is there counts from now on.
            *self.database = None;
            return Err(match self.opened() {
                Ok(_) => error,
                Err(closed) => error.context(closed.to_string()),
            });
        }
        self.records.change_index(|index| index.apply(change));
        Ok(())
    }

    fn store(&mut self, change: &Change) -> Result<()> {
        let next = self.records.next.load(Ordering::Relaxed);
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut rows = transaction.open_table(SNAPSHOTS)?;
                if let Some(key) = &change.remove {
                    rows.remove(key.as_str())?;
                }
                if let Some(record) = &change.insert {
                    rows.insert(record.info.name.as_str(), Row::from(&**record).encode_to_vec().as_slice())?;
                }
                let mut format = transaction.open_table(FORMAT)?;
                if change.insert.is_some() && format.get("next")?.is_none_or(|stored| stored.value() != next)
                {
                    format.insert("next", next)?;
                }
            }
            Ok(transaction.commit()?)
        };
        write(self.opened()?).map_err(database)
    }

    /// The database, opened and read again if a write had failed.
    fn opened(&mut self) -> Result<&Database> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let (database, index, _) = load(&self.records.path)?;
                self.records.change_index(|old| *old = index);
                database
            }
        };
        Ok(self.database.insert(database))
    }
}

/// Makes a database with its tables under another name first, so that there is never half of one.
fn create(path: &Path) -> Result<()> {
    let new = path.with_extension("redb.new");
    sys::fs::remove_tree(&new)?;
    let write = || -> Result<(), redb::Error> {
        let database = redb::Builder::new().set_cache_size(CACHE).create(&new)?;
        let transaction = database.begin_write()?;
        transaction.open_table(SNAPSHOTS)?;
        let mut format = transaction.open_table(FORMAT)?;
        format.insert("version", u64::from(VERSION))?;
        format.insert("next", 1)?;
        drop(format);
        Ok(transaction.commit()?)
    };
    write().map_err(database)?;
    std::fs::rename(&new, path)?;
    sys::fs::sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Refuses a newer format before the file is opened for writing, which changes it.
fn check_version(path: &Path) -> Result<()> {
    let read = || -> Result<u64, redb::Error> {
        let transaction = redb::Builder::new().set_cache_size(CACHE).open_read_only(path)?.begin_read()?;
        Ok(transaction.open_table(FORMAT)?.get("version")?.map_or(0, |version| version.value()))
    };
    match read() {
        Ok(version) if version != u64::from(VERSION) => Err(newer(version)),
        // Not closed properly, open elsewhere, damaged: that is for the real opening to mend or tell.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn load(path: &Path) -> Result<(Database, Index, u64)> {
    let opened = redb::Builder::new().set_cache_size(CACHE).open(path).map_err(opening)?;
    let read = || -> Result<_, redb::Error> {
        let transaction = opened.begin_read()?;
        let format = transaction.open_table(FORMAT)?;
        let number = |key| Ok::<_, redb::Error>(format.get(key)?.map_or(0, |value| value.value()));
        let (version, next) = (number("version")?, number("next")?);
        let mut rows = Vec::new();
        if version == u64::from(VERSION) {
            for row in transaction.open_table(SNAPSHOTS)?.iter()? {
                let (name, row) = row?;
                rows.push((name.value().to_owned(), row.value().to_vec()));
            }
        }
        Ok((version, next, rows))
    };
    let (version, next, rows) = read().map_err(database)?;
    if version != u64::from(VERSION) {
        return Err(newer(version));
    }
    let mut index = Index::default();
    let mut last = 0;
    for (name, row) in rows {
        let row = Row::decode(row.as_slice()).map_err(|error| {
            Error::data_loss(format!("the record of snapshot {name:?} cannot be read: {error}"))
        })?;
        let record = Record::try_from((name, row))?;
        last = last.max(record.id);
        index.apply(Change { insert: Some(Arc::new(record)), remove: None });
    }
    Ok((opened, index, next.max(last + 1)))
}

fn newer(version: u64) -> Error {
    Error::precondition(format!(
        "snapshot metadata of version {version} was written by another release (this one knows {VERSION}); it is left as it is"
    ))
}

impl From<&Record> for Row {
    fn from(record: &Record) -> Self {
        let (created_secs, created_nanos) = time::unix(record.info.created_at);
        let (updated_secs, updated_nanos) = time::unix(record.info.updated_at);
        Self {
            version: VERSION,
            id: record.id,
            kind: match record.info.kind {
                Kind::View => 1,
                Kind::Active => 2,
                Kind::Committed => 3,
            },
            parent: record.info.parent.clone(),
            labels: record.info.labels.clone(),
            created_secs,
            created_nanos,
            updated_secs,
            updated_nanos,
            inodes: record.usage.inodes,
            size: record.usage.size,
        }
    }
}

impl TryFrom<(String, Row)> for Record {
    type Error = Error;

    fn try_from((name, row): (String, Row)) -> Result<Self> {
        if row.version != VERSION {
            return Err(newer(row.version.into()));
        }
        let kind = match row.kind {
            1 => Kind::View,
            2 => Kind::Active,
            3 => Kind::Committed,
            other => {
                return Err(Error::data_loss(format!("snapshot {name:?} is of the unknown kind {other}")));
            }
        };
        let info = Info {
            kind,
            name,
            parent: row.parent,
            labels: row.labels,
            created_at: time::from_unix(row.created_secs, row.created_nanos),
            updated_at: time::from_unix(row.updated_secs, row.updated_nanos),
        };
        Ok(Self { id: row.id, info, usage: Usage { inodes: row.inodes, size: row.size } })
    }
}

fn opening(error: redb::DatabaseError) -> Error {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            Error::precondition("another process has this snapshotter's database open")
        }
        error => database(error.into()),
    }
}

fn database(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error) => error.into(),
        error @ redb::Error::Corrupted(_) => Error::caused(Class::DataLoss, "the database is damaged", error),
        error => Error::caused(Class::Unknown, "database", error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn active(records: &Records, name: &str) -> Arc<Record> {
        let now = SystemTime::now();
        let info = Info {
            kind: Kind::Active,
            name: name.to_owned(),
            parent: String::new(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            created_at: now,
            updated_at: now,
        };
        Arc::new(Record { id: records.new_id(), info, usage: Usage { inodes: 1, size: 2 } })
    }

    #[test]
    fn records_are_found_again_and_ids_are_not_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.redb");
        let records = Records::open(&path).unwrap();
        let (one, two) = (active(&records, "one"), active(&records, "two"));
        for record in [&one, &two] {
            records.turn().write(Change { insert: Some(Arc::clone(record)), remove: None }).unwrap();
        }
        records.turn().write(Change { remove: Some("two".to_owned()), insert: None }).unwrap();
        let error = Records::open(&path).err().unwrap();
        assert_eq!(error.class(), Class::FailedPrecondition, "{error}");
        drop(records);

        let records = Records::open(&path).unwrap();
        assert_eq!(records.read(|index| index.get("one")).unwrap(), one);
        assert!(records.read(|index| index.get("two")).unwrap_err().is_not_found());
        assert_eq!(records.new_id(), 3);
    }

    #[test]
    fn a_newer_format_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.redb");
        create(&path).unwrap();
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(FORMAT).unwrap().insert("version", 2).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(Records::open(&path).err().unwrap().class(), Class::FailedPrecondition);
        assert!(std::fs::read(&path).unwrap() == before);
    }
}
