//! rustix's errors as the standard library's, which `types::Error` knows how to classify.

/// See [`Os::os`].
pub trait Os<T> {
    /// The same result with the standard library's error.
    fn os(self) -> std::io::Result<T>;
}

impl<T> Os<T> for rustix::io::Result<T> {
    fn os(self) -> std::io::Result<T> {
        self.map_err(std::io::Error::from)
    }
}
