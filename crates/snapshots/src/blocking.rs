//! The one way to the blocking pool.

use types::{Error, Result};

/// Runs `work` where it may block. It goes on to its end even if the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("blocking work did not end: {error}"))),
    }
}
