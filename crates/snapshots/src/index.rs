//! Which snapshots there are, and what may be done with them now: no locks, no I/O, no clock.
//!
//! The rules, and the words of their errors, are upstream's (`core/snapshots/storage`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use types::snapshot::{Info, Kind, Usage};
use types::{Error, Result};

/// A snapshot as its snapshotter knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Names its directory; never used again.
    pub(crate) id: u64,
    pub(crate) info: Info,
    /// Of committed snapshots, as of their commit.
    pub(crate) usage: Usage,
}

/// All snapshots of one snapshotter, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    records: BTreeMap<String, Arc<Record>>,
    /// How many snapshots have this one as their parent; absent is 0.
    children: HashMap<String, u32>,
}

/// A step from one version of the index to the next, and what has to be written for it.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) remove: Option<String>,
    pub(crate) insert: Option<Arc<Record>>,
}

impl Index {
    /// The snapshot `key`.
    pub(crate) fn get(&self, key: &str) -> Result<Arc<Record>> {
        self.records.get(key).cloned().ok_or_else(|| Error::not_found("snapshot does not exist: not found"))
    }

    /// All snapshots, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    /// The ids of `parent` and of its parents, nearest first; none for an empty name.
    pub(crate) fn chain(&self, parent: &str) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        let mut next = parent;
        while !next.is_empty() {
            let record =
                self.records.get(next).ok_or_else(|| Error::not_found("missing parent: not found"))?;
            ids.push(record.id);
            next = &record.info.parent;
        }
        Ok(ids)
    }

    /// Whether a snapshot `key` may be made on `parent`; answers with the parent.
    pub(crate) fn may_create(&self, key: &str, parent: &str) -> Result<Option<Arc<Record>>> {
        if key.is_empty() {
            return Err(Error::invalid("snapshot key must not be empty: invalid argument"));
        }
        let below = match parent {
            "" => None,
            _ => {
                let missing = || Error::not_found(format!("missing parent {parent:?} bucket: not found"));
                let below = self.records.get(parent).ok_or_else(missing)?;
                if below.info.kind != Kind::Committed {
                    let text = format!("parent {parent:?} is not committed snapshot: invalid argument");
                    return Err(Error::invalid(text));
                }
                Some(Arc::clone(below))
            }
        };
        if self.records.contains_key(key) {
            return Err(Error::already_exists(format!("snapshot {key}: already exists")));
        }
        Ok(below)
    }

    /// Whether the active snapshot `key` may become `name`, on `parent` if it has none; answers with both. The
    /// committed snapshot `lost` may be replaced, as its files are gone.
    pub(crate) fn may_commit(
        &self,
        name: &str,
        key: &str,
        parent: Option<&str>,
        lost: Option<u64>,
    ) -> Result<(Arc<Record>, String)> {
        if name.is_empty() {
            return Err(Error::invalid("snapshot name must not be empty: invalid argument"));
        }
        let taken = self.records.get(name);
        if taken.is_some_and(|taken| Some(taken.id) != lost) {
            return Err(Error::already_exists(format!("committed snapshot {name}: already exists")));
        }
        let missing = || Error::not_found(format!("failed to get active snapshot {key:?}: not found"));
        let record = self.records.get(key).ok_or_else(missing)?;
        if record.info.kind != Kind::Active {
            return Err(Error::precondition(format!("snapshot {key:?} is not active: failed precondition")));
        }
        let parent = match (record.info.parent.as_str(), parent.unwrap_or_default()) {
            ("", wanted) => wanted,
            (has, wanted) if wanted.is_empty() || wanted == has => has,
            _ => {
                let text =
                    format!("cannot change parent of active snapshot {key:?} on commit: invalid argument");
                return Err(Error::invalid(text));
            }
        };
        if taken.is_some_and(|taken| taken.info.parent != parent) {
            return Err(Error::precondition(format!(
                "the files of snapshot {name} are gone, and {key:?} stands on another parent: failed precondition"
            )));
        }
        match self.records.get(parent) {
            None if !parent.is_empty() => {
                Err(Error::not_found(format!("missing parent {parent:?} of snapshot {key:?}: not found")))
            }
            Some(below) if below.info.kind != Kind::Committed => {
                Err(Error::precondition(format!("parent {parent:?} is not committed: failed precondition")))
            }
            _ => Ok((Arc::clone(record), parent.to_owned())),
        }
    }

    /// Whether the snapshot may go; answers with it.
    pub(crate) fn may_remove(&self, key: &str) -> Result<Arc<Record>> {
        let missing = || Error::not_found(format!("snapshot {key}: not found"));
        let record = self.records.get(key).ok_or_else(missing)?;
        if self.children.contains_key(key) {
            return Err(Error::precondition("cannot remove snapshot with child: failed precondition"));
        }
        Ok(Arc::clone(record))
    }

    /// Takes a step that was written.
    pub(crate) fn apply(&mut self, change: Change) {
        if let Some(gone) = change.remove.and_then(|key| self.records.remove(&key)) {
            self.count(&gone.info.parent, -1);
        }
        if let Some(new) = change.insert {
            self.count(&new.info.parent, 1);
            if let Some(old) = self.records.insert(new.info.name.clone(), new) {
                self.count(&old.info.parent, -1);
            }
        }
    }

    fn count(&mut self, parent: &str, step: i32) {
        if parent.is_empty() {
            return;
        }
        let count = self.children.entry(parent.to_owned()).or_default();
        *count = count.saturating_add_signed(step);
        if *count == 0 {
            self.children.remove(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use types::{Class, Labels};

    use super::*;

    fn record(id: u64, kind: Kind, name: &str, parent: &str) -> Arc<Record> {
        let info = Info {
            kind,
            name: name.to_owned(),
            parent: parent.to_owned(),
            labels: Labels::new(),
            created_at: UNIX_EPOCH,
            updated_at: UNIX_EPOCH,
        };
        Arc::new(Record { id, info, usage: Usage::default() })
    }

    fn index() -> Index {
        let mut index = Index::default();
        for record in [
            record(1, Kind::Committed, "c1", ""),
            record(2, Kind::Committed, "c2", "c1"),
            record(3, Kind::Active, "a", "c2"),
            record(4, Kind::Active, "free", ""),
            record(5, Kind::View, "v", "c2"),
        ] {
            index.apply(Change { insert: Some(record), remove: None });
        }
        index
    }

    fn class<T: std::fmt::Debug>(result: Result<T>) -> Class {
        result.unwrap_err().class()
    }

    #[test]
    fn a_snapshot_is_made_on_committed_ones_only_and_once() {
        let index = index();
        assert_eq!(index.may_create("new", "c2").unwrap().unwrap().id, 2);
        assert!(index.may_create("new", "").unwrap().is_none());
        assert_eq!(class(index.may_create("a", "c2")), Class::AlreadyExists);
        assert_eq!(class(index.may_create("new", "nothing")), Class::NotFound);
        assert_eq!(class(index.may_create("new", "a")), Class::InvalidArgument);
        assert_eq!(class(index.may_create("", "c2")), Class::InvalidArgument);
    }

    #[test]
    fn only_a_snapshot_without_parent_is_rebased() {
        let index = index();
        let parent = |name, key, parent| index.may_commit(name, key, parent, None).map(|(_, parent)| parent);
        assert_eq!(parent("new", "a", None).unwrap(), "c2");
        assert_eq!(parent("new", "a", Some("c2")).unwrap(), "c2");
        assert_eq!(parent("new", "free", Some("c2")).unwrap(), "c2");
        assert_eq!(parent("new", "free", None).unwrap(), "");
        assert_eq!(class(parent("new", "a", Some("c1"))), Class::InvalidArgument);
        assert_eq!(class(parent("new", "free", Some("nothing"))), Class::NotFound);
        assert_eq!(class(parent("new", "free", Some("v"))), Class::FailedPrecondition);
        assert_eq!(class(parent("c1", "a", None)), Class::AlreadyExists);
        assert_eq!(class(parent("new", "v", None)), Class::FailedPrecondition);
        assert_eq!(class(parent("new", "nothing", None)), Class::NotFound);
    }

    #[test]
    fn only_a_lost_snapshot_is_replaced_and_only_on_its_parent() {
        let index = index();
        let may = |name, key, lost| index.may_commit(name, key, None, lost).map(|(record, _)| record.id);
        assert_eq!(may("c1", "free", Some(1)).unwrap(), 4);
        assert_eq!(class(may("c1", "free", Some(9))), Class::AlreadyExists);
        assert_eq!(class(may("c2", "free", Some(2))), Class::FailedPrecondition);
        assert_eq!(class(may("c1", "a", Some(1))), Class::FailedPrecondition);
    }

    #[test]
    fn a_snapshot_goes_after_its_children() {
        let mut index = index();
        assert_eq!(index.chain("c2").unwrap(), [2, 1]);
        for key in ["a", "v", "c2", "c1", "free"] {
            if matches!(key, "a" | "v" | "c2") {
                assert_eq!(class(index.may_remove("c1")), Class::FailedPrecondition, "before {key}");
            }
            index.may_remove(key).unwrap();
            index.apply(Change { remove: Some(key.to_owned()), insert: None });
        }
        assert_eq!(class(index.may_remove("c1")), Class::NotFound);
        assert_eq!((index.all().count(), index.children.len()), (0, 0));
    }

    #[test]
    fn replacing_a_record_keeps_the_count_of_children() {
        let mut index = index();
        index.apply(Change { insert: Some(record(3, Kind::Active, "a", "c2")), remove: None });
        for key in ["a", "v"] {
            index.apply(Change { remove: Some(key.to_owned()), insert: None });
        }
        index.may_remove("c2").unwrap();
    }
}
