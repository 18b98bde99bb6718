//! Field masks of Update requests.

use crate::error::{Error, Result};

/// The paths of an Update request; empty means "replace every mutable field".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPaths(pub Vec<String>);

/// One path of a mask: a field, or one key of a map field (`labels.a.b` is the key `a.b`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// The whole field.
    Field(&'a str),
    /// One key of a map field.
    Key(&'a str, &'a str),
}

impl FieldPaths {
    /// Whether the request means every mutable field.
    pub fn all(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths, split at the first dot.
    pub fn iter(&self) -> impl Iterator<Item = Path<'_>> {
        self.0.iter().map(|path| match path.split_once('.') {
            Some((field, key)) => Path::Key(field, key),
            None => Path::Field(path),
        })
    }

    /// Refuses a path that is not one of `known`; `maps` are those that also take a key.
    pub fn check(&self, known: &[&str], maps: &[&str], what: &str) -> Result<()> {
        for (path, text) in self.iter().zip(&self.0) {
            let ok = match path {
                Path::Field(field) => known.contains(&field) || maps.contains(&field),
                Path::Key(field, key) => maps.contains(&field) && !key.is_empty(),
            };
            if !ok {
                return Err(Error::invalid(format!("cannot update {text:?} field on {what}")));
            }
        }
        Ok(())
    }
}
