//! Clients' own values in the records of containers and sandboxes: extensions, and labels beside them.

use std::collections::BTreeMap;

use types::fields::Path;
use types::{Any, Labels, labels};

/// A record's labels and extensions, which an Update changes alike whatever the record is of.
pub struct Own<'a> {
    /// Those that change, and what they are to be.
    pub labels: (&'a mut Labels, &'a Labels),
    /// The same.
    pub extensions: (&'a mut BTreeMap<String, Any>, &'a BTreeMap<String, Any>),
}

impl Own<'_> {
    /// Applies the path of an Update's mask, if it is one of them; whether it is.
    pub fn apply(self, path: Path<'_>) -> bool {
        let (into, from) = self.extensions;
        match path {
            Path::Field("labels") => labels::apply(self.labels.0, self.labels.1, None),
            Path::Key("labels", key) => labels::apply(self.labels.0, self.labels.1, Some(key)),
            Path::Field("extensions") => apply(into, from, None),
            Path::Key("extensions", key) => apply(into, from, Some(key)),
            Path::Field(_) | Path::Key(..) => return false,
        }
        true
    }
}

/// Applies an Update of extensions: all of them (`key` is `None`) or one, which is removed if `from` has none.
fn apply(into: &mut BTreeMap<String, Any>, from: &BTreeMap<String, Any>, key: Option<&str>) {
    match key {
        None => into.clone_from(from),
        Some(key) => match from.get(key) {
            Some(value) => drop(into.insert(key.to_owned(), value.clone())),
            None => drop(into.remove(key)),
        },
    }
}
