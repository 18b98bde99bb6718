//! The wall between what an image, an archive or a checkpoint says and what the daemon believes.

use std::fmt;

/// A value that came out of an image, an archive or a checkpoint.
///
/// It cannot become a label, an annotation, a path, an image name or an option without passing a named check:
/// [`Untrusted::check`] takes the function that looks at it. There is no other way out.
#[derive(Clone, PartialEq, Eq)]
pub struct Untrusted<T>(T);

impl<T> Untrusted<T> {
    /// Marks a value as foreign.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Looks at the value with a named check, which returns what may be believed.
    pub fn check<U, E>(self, check: impl FnOnce(T) -> Result<U, E>) -> Result<U, E> {
        check(self.0)
    }
}

impl<T> fmt::Debug for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Untrusted(..)")
    }
}
