//! Reading and writing records within one transaction.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction};
use types::{Error, Namespace, Result};

use crate::barrier::Barrier;
use crate::namespaces::NamespaceRecord;
use crate::record::{Record, decode, encode};
use crate::schema::{Index, NAMESPACES, Rows, Table};
use crate::storage::failure;

/// What a visitor of [`Source::scan`] answers: go on, or stop.
pub(crate) type Visit = Result<ControlFlow<()>>;
/// Go on.
pub(crate) const NEXT: Visit = Ok(ControlFlow::Continue(()));

/// A transaction that can be read: a read transaction, or the write transaction with what it has written so far.
pub(crate) trait Source {
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_>;

    /// The class and words of a failed read.
    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        failure(error)
    }

    /// Notes that somebody looks at a row, for a collection that may be under way.
    fn looked_at<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        _table: TableDefinition<'static, K, V>,
        _key: &K::SelfType<'k>,
    ) {
    }

    /// The record under `key`.
    fn get<'k, K: Key + 'static, R: Record>(
        &self,
        rows: Rows<K, R>,
        key: K::SelfType<'k>,
    ) -> Result<Option<R>> {
        self.looked_at(rows.table, &key);
        let table = self.open(rows.table)?;
        let found = table.get(&key).map_err(|e| self.failed(e))?;
        found.map(|value| decode(&key, value.value())).transpose()
    }

    /// Whether `key` is in the table.
    fn has<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: K::SelfType<'k>,
    ) -> Result<bool> {
        self.looked_at(table, &key);
        let table = self.open(table)?;
        let found = table.get(&key).map_err(|e| self.failed(e))?.is_some();
        Ok(found)
    }

    /// Visits the records from `from` on, in order of their keys, as long as the key is `inside`.
    fn scan<'k, K: Key + 'static, R: Record>(
        &self,
        rows: Rows<K, R>,
        from: K::SelfType<'k>,
        inside: impl Fn(&K::SelfType<'_>) -> bool,
        mut each: impl FnMut(&K::SelfType<'_>, R) -> Visit,
    ) -> Result<()> {
        self.scan_bytes(rows, from, inside, |key, value| each(key, decode(key, value)?))
    }

    /// The same with their bytes, as long as the key is `inside`.
    fn scan_bytes<'k, K: Key + 'static, R: Record>(
        &self,
        rows: Rows<K, R>,
        from: K::SelfType<'k>,
        inside: impl Fn(&K::SelfType<'_>) -> bool,
        mut each: impl FnMut(&K::SelfType<'_>, &[u8]) -> Visit,
    ) -> Result<()> {
        self.scan_raw(rows.table, from, |key, value| {
            if !inside(key) {
                return Ok(ControlFlow::Break(()));
            }
            each(key, value)
        })
    }

    /// Visits entries from `from` on, in order of their keys.
    fn scan_raw<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        from: K::SelfType<'k>,
        mut each: impl FnMut(&K::SelfType<'_>, V::SelfType<'_>) -> Visit,
    ) -> Result<()> {
        let table = self.open(table)?;
        for entry in table.range(from..).map_err(|e| self.failed(e))? {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            if each(&key.value(), value.value())?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Source for ReadTransaction {
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_> {
        self.open_table(table).map_err(failure)
    }
}

/// The write transaction, as a mutation sees it.
///
/// A mutation checks first and writes then: one that fails without having written costs nobody anything, while one
/// that fails after writing makes the writer start the whole group again without it.
///
/// What it reads by key and what it writes is kept by a collection that is under way (see `barrier`).
pub(crate) struct Tx<'a> {
    txn: &'a WriteTransaction,
    barrier: Cell<Option<&'a Barrier>>,
    wrote: Cell<bool>,
    counts: Cell<Counts>,
    broken: RefCell<Option<Error>>,
}

/// As what a mutation counts for the scheduler of collections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// It wrote something, maybe.
    Change,
    /// It let go of something that others may have stood on.
    Deletion,
    /// It belongs to a collection.
    Nothing,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(txn: &'a WriteTransaction) -> Self {
        Self {
            txn,
            barrier: Cell::new(None),
            wrote: Cell::new(false),
            counts: Cell::new(Counts::Change),
            broken: RefCell::new(None),
        }
    }

    /// A transaction that tells `barrier` what it touches, if a collection wants to know.
    pub(crate) fn watched(txn: &'a WriteTransaction, barrier: &'a Barrier) -> Self {
        Self { barrier: Cell::new(barrier.raised().then_some(barrier)), ..Self::new(txn) }
    }

    /// What this mutation touches from now on is no reason to keep it: it belongs to the collection itself.
    pub(crate) fn unwatch(&self) {
        self.barrier.set(None);
    }

    /// Says that this mutation counts as something else than a change.
    pub(crate) fn count_as(&self, counts: Counts) {
        self.counts.set(counts);
    }

    /// As what it counts.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Whether anything was written.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote.get()
    }

    /// How the storage failed below the transaction, if it did.
    pub(crate) fn broken(&self) -> Option<Error> {
        self.broken.take()
    }

    /// Stores `record` under `key`.
    pub(crate) fn put<'k, K: Key + 'static, R: Record>(
        &self,
        rows: Rows<K, R>,
        key: K::SelfType<'k>,
        record: R,
    ) -> Result<()> {
        let bytes = encode(record);
        self.insert(rows.table, key, bytes.as_slice())
    }

    /// Adds `key` to an index.
    pub(crate) fn mark<'k, K: Key + 'static>(&self, index: Index<K>, key: K::SelfType<'k>) -> Result<()> {
        self.insert(index, key, ())
    }

    /// Removes `key`; says whether it was there.
    pub(crate) fn remove<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: K::SelfType<'k>,
    ) -> Result<bool> {
        let mut table = self.txn.open_table(table).map_err(|e| self.failed(e))?;
        let found = table.remove(key).map_err(|e| self.failed(e))?.is_some();
        if found {
            self.wrote.set(true);
        }
        Ok(found)
    }

    /// Removes everything from a table.
    #[cfg(test)]
    pub(crate) fn clear<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<()> {
        let mut table = self.txn.open_table(table).map_err(|e| self.failed(e))?;
        self.wrote.set(true);
        table.retain(|_, _| false).map_err(|e| self.failed(e))
    }

    /// Makes the namespace's row if there is none: namespaces come into being with their first record.
    pub(crate) fn ensure_namespace(&self, namespace: &Namespace) -> Result<()> {
        if self.has(NAMESPACES.table, namespace.as_str())? {
            return Ok(());
        }
        self.put(NAMESPACES, namespace.as_str(), NamespaceRecord::default())
    }

    /// Stores a value as it is.
    pub(crate) fn insert<'k, 'v, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: K::SelfType<'k>,
        value: V::SelfType<'v>,
    ) -> Result<()> {
        self.looked_at(table, &key);
        let mut table = self.txn.open_table(table).map_err(|e| self.failed(e))?;
        self.wrote.set(true);
        table.insert(key, value).map_err(|e| self.failed(e))?;
        Ok(())
    }
}

impl Source for Tx<'_> {
    fn looked_at<'k, K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: &K::SelfType<'k>,
    ) {
        if let Some(barrier) = self.barrier.get()
            && let Some(table) = Table::called(table.name())
        {
            barrier.touch(table, K::as_bytes(key).as_ref());
        }
    }

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_> {
        self.txn.open_table(table).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        let error = failure(error);
        self.broken.replace(Some(Error::new(error.class(), error.to_string())));
        error
    }
}
