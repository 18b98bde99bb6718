//! One daemon per state directory: two would bury each other's tasks.
//!
//! The lock is an flock on the directory itself. It needs no file, and it goes with the process.

use std::fs::File;
use std::path::Path;

use types::{Error, Result, ResultExt};

/// The state directory is ours as long as this lives.
#[derive(Debug)]
pub struct StateLock {
    _directory: File,
}

/// Takes the lock of `state`, which must exist, or says that another daemon has it.
pub fn lock_state(state: &Path) -> Result<StateLock> {
    let doing = || format!("lock state {}", state.display());
    let directory = File::open(state).context(doing)?;
    if !sys::fs::lock(&directory).context(doing)? {
        return Err(Error::precondition(format!(
            "state {} is in use by another containerd-rs daemon: stop it, or choose another with --state",
            state.display()
        )));
    }
    Ok(StateLock { _directory: directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_daemon_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock_state(dir.path()).unwrap();
        let error = lock_state(dir.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another"), "{error}");
        drop(lock);
        lock_state(dir.path()).unwrap();
    }
}
