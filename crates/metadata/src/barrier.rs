//! The write barrier of a collection: what mutations touch while one is under way.
//!
//! A collection marks on one version of the database. What a mutation writes afterwards may refer to something that the
//! mark did not reach, and what a mutation has looked at it may have promised to somebody ("already exists"). So from
//! before that version on, the writer thread notes the key of every row that a mutation reads or writes, and a sweep
//! keeps those rows and all that they refer to.
//!
//! Only the writer thread notes, and a sweep runs on that thread, so a sweep sees all that came before it. What belongs
//! to a transaction that is thrown away stays noted; that keeps something until the next collection, no more.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::schema::Table;

/// A row: its table, and the bytes of its key.
pub(crate) type Touched = (Table, Box<[u8]>);

/// The notes, while a collection wants them.
#[derive(Default)]
pub(crate) struct Barrier {
    raised: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// Which collection wants them. A sweep of an earlier one finds another number here and does nothing.
    collection: u64,
    raised: bool,
    touched: HashSet<Touched>,
}

impl Barrier {
    /// Begins to note, for a new collection, whose number is the answer. On the writer thread only: what it has begun to
    /// write without being noted is then part of the version that the collection reads.
    pub(crate) fn raise(&self) -> u64 {
        let mut notes = self.notes();
        notes.collection += 1;
        notes.raised = true;
        notes.touched.clear();
        self.raised.store(true, Ordering::Release);
        notes.collection
    }

    /// Stops noting for `collection`, unless another has begun.
    pub(crate) fn lower(&self, collection: u64) {
        let mut notes = self.notes();
        if notes.collection == collection {
            notes.raised = false;
            notes.touched = HashSet::new();
            self.raised.store(false, Ordering::Release);
        }
    }

    /// Whether a collection is under way.
    pub(crate) fn raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Notes a row.
    pub(crate) fn touch(&self, table: Table, key: &[u8]) {
        let mut notes = self.notes();
        if notes.raised {
            notes.touched.insert((table, key.into()));
        }
    }

    /// What `collection` has noted since it was last taken. `None` if that collection is over.
    pub(crate) fn seen(&self, collection: u64) -> Option<Vec<Touched>> {
        let notes = self.notes();
        (notes.raised && notes.collection == collection).then(|| notes.touched.iter().cloned().collect())
    }

    /// Takes the notes away from `collection`. They are to be looked at by a sweep that is queued afterwards.
    pub(crate) fn take(&self, collection: u64) -> Vec<Touched> {
        let mut notes = self.notes();
        match notes.raised && notes.collection == collection {
            true => std::mem::take(&mut notes.touched).into_iter().collect(),
            false => Vec::new(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Whole at any time, whoever panicked.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_collection_under_way_wants_is_noted() {
        let barrier = Barrier::default();
        barrier.touch(Table::Images, b"before");
        let first = barrier.raise();
        assert!(barrier.raised());
        barrier.touch(Table::Images, b"a");
        barrier.touch(Table::Images, b"a");
        assert_eq!(barrier.seen(first).unwrap(), [(Table::Images, b"a".as_slice().into())]);
        assert_eq!(barrier.take(first).len(), 1);
        assert!(barrier.seen(first).unwrap().is_empty());
        barrier.lower(first);
        barrier.touch(Table::Images, b"b");
        assert!(!barrier.raised() && barrier.seen(first).is_none());
    }

    #[test]
    fn an_earlier_collection_cannot_disturb_a_later_one() {
        let barrier = Barrier::default();
        let (first, second) = (barrier.raise(), barrier.raise());
        barrier.touch(Table::Blobs, b"x");
        barrier.lower(first);
        assert!(barrier.seen(first).is_none() && barrier.take(first).is_empty());
        assert_eq!(barrier.seen(second).unwrap().len(), 1);
    }
}
