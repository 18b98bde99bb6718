//! Clients' own values in the records of containers and sandboxes.

use std::collections::BTreeMap;

use types::Any;

/// Applies an Update of extensions: all of them (`key` is `None`) or one, which is removed if `from` has none.
pub fn apply(into: &mut BTreeMap<String, Any>, from: &BTreeMap<String, Any>, key: Option<&str>) {
    match key {
        None => into.clone_from(from),
        Some(key) => match from.get(key) {
            Some(value) => drop(into.insert(key.to_owned(), value.clone())),
            None => drop(into.remove(key)),
        },
    }
}
