//! Things by id, where the beginning of an id is enough as long as it is the only one that begins so.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use types::{Error, Result};

/// Things by id.
#[derive(Debug)]
pub struct Index<T> {
    /// What they are, for errors.
    what: &'static str,
    things: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Index<T> {
    /// An empty index of things that are called `what`.
    pub fn new(what: &'static str) -> Self {
        Self { what, things: RwLock::default() }
    }

    /// Adds one.
    pub fn add(&self, id: &str, thing: Arc<T>) -> Result<()> {
        let mut things = self.things.write().unwrap_or_else(PoisonError::into_inner);
        if things.contains_key(id) {
            return Err(Error::already_exists(format!("{} {id:?}: already exists", self.what)));
        }
        things.insert(id.to_owned(), thing);
        Ok(())
    }

    /// The one whose id is, or alone begins with, `id`.
    pub fn get(&self, id: &str) -> Result<Arc<T>> {
        self.find(id)?.ok_or_else(|| Error::not_found(format!("{} {id:?}: not found", self.what)))
    }

    /// As [`Index::get`], where it is no error that there is none.
    pub fn find(&self, id: &str) -> Result<Option<Arc<T>>> {
        let things = self.things.read().unwrap_or_else(PoisonError::into_inner);
        if id.is_empty() {
            return Ok(None);
        }
        let mut begin = things.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        match (begin.next(), begin.next()) {
            (Some((key, thing)), second) if key == id || second.is_none() => Ok(Some(Arc::clone(thing))),
            (Some(_), _) => {
                Err(Error::invalid(format!("multiple {}s have ids that begin with {id:?}", self.what)))
            }
            (None, _) => Ok(None),
        }
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.things.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Removes the one with exactly this id.
    pub fn remove(&self, id: &str) {
        self.things.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_the_only_one() {
        let index = Index::new("sandbox");
        index.add("abc", Arc::new(1)).unwrap();
        index.add("abd", Arc::new(2)).unwrap();
        index.add("ab", Arc::new(3)).unwrap();
        assert_eq!(*index.get("abc").unwrap(), 1);
        assert_eq!(*index.get("ab").unwrap(), 3);
        assert!(index.get("a").is_err());
        assert!(index.get("").unwrap_err().is_not_found());
        index.remove("abc");
        index.remove("ab");
        assert_eq!(*index.get("a").unwrap(), 2);
        assert!(index.get("abc").unwrap_err().is_not_found());
    }
}
