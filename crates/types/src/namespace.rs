//! Identifiers and namespaces.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest identifier, in bytes.
pub const MAX_IDENTIFIER: usize = 76;

/// Checks an identifier (container, task, exec, namespace, lease): 1 to 76 bytes, runs of letters and digits
/// joined by single `.`, `_` or `-`. Such a text is safe as one component of a path.
pub fn validate_identifier(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::invalid("identifier must not be empty: invalid argument"));
    }
    if id.len() > MAX_IDENTIFIER {
        return Err(Error::invalid(format!(
            "identifier {id:?} greater than maximum length ({MAX_IDENTIFIER} characters): invalid argument"
        )));
    }
    let ok = id
        .split(['.', '_', '-'])
        .all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !ok {
        return Err(Error::invalid(format!(
            "identifier {id:?} must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument"
        )));
    }
    Ok(())
}

/// The namespace every record lives in; checked by form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        validate_identifier(text).map_err(|e| e.context("namespace validation"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_one_safe_path_component() {
        for good in ["a", "default", "k8s.io", "A-1_b.c", &"x".repeat(76)] {
            assert!(validate_identifier(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a..b", "-a", "a-", "a/b", "a b", "ä", "a\0", &"x".repeat(77)] {
            assert!(validate_identifier(bad).is_err(), "{bad:?}");
        }
    }
}
