//! Names that are taken: a pod's or container's name is reserved before anything of it exists, so that two requests for the
//! same one never both begin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use types::{Error, Result};

/// Names, and the id that each is reserved for. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<HashMap<String, String>>>);

impl Names {
    /// Reserves `name` for `id`. The same again is fine.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(name) {
            Some(owner) if owner != id => {
                Err(Error::already_exists(format!("name {name:?} is reserved for {owner:?}")))
            }
            _ => {
                names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Frees what is reserved for `id`.
    pub fn release_id(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != id);
    }

    /// Whom a name is reserved for.
    pub fn owner(&self, name: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_owner_until_it_is_released() {
        let names = Names::default();
        names.reserve("a", "1").unwrap();
        names.reserve("a", "1").unwrap();
        assert!(names.reserve("a", "2").unwrap_err().is_already_exists());
        names.release_id("1");
        names.reserve("a", "2").unwrap();
        assert_eq!(names.owner("a").as_deref(), Some("2"));
    }
}
