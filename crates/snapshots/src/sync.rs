//! Everything written so far onto the disk, once for all who ask at the same time.
//!
//! ```text
//!  one call is under way     those who come now wait for the next one, which serves all of them
//!  it fails                  all of them fail, and what was being filled until then is suspect for good
//! ```
//!
//! After a failed write the kernel drops the pages and says so once: a second call would answer "done" for files that are
//! not on the disk. So a failure is remembered by the ids that existed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use types::{Class, Error, Result, ResultExt};

/// The filesystem of a snapshotter.
pub(crate) struct FilesystemSync {
    path: PathBuf,
    /// Open as long as we live: an error of a write is told to each descriptor that was open when it happened.
    dir: File,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the next call fails, as that of a disk does.
    #[cfg(test)]
    pub(crate) fails: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    begun: u64,
    done: u64,
    running: bool,
    /// Of the last call that is done.
    failed: Option<(Class, String)>,
    /// Snapshots with a lower id were being filled when a call failed.
    suspect: u64,
}

impl FilesystemSync {
    /// For the filesystem that `path` lies in.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let dir = File::open(path).context(|| format!("open {path:?}"))?;
        Ok(Self {
            path: path.to_owned(),
            dir,
            state: Mutex::default(),
            changed: Condvar::new(),
            #[cfg(test)]
            fails: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Returns when all that was written before the call is on the disk. `next` answers with an id above those of all
    /// snapshots that are being filled.
    pub(crate) fn all(&self, next: impl Fn() -> u64) -> Result<()> {
        self.with(next, || {
            #[cfg(test)]
            if self.fails.swap(false, std::sync::atomic::Ordering::SeqCst) {
                return Err(std::io::Error::from(rustix::io::Errno::IO).into());
            }
            let synced = rustix::fs::syncfs(&self.dir).map_err(std::io::Error::from);
            synced.context(|| format!("sync the filesystem of {:?}", self.path))
        })
    }

    /// Whether the files of snapshot `id` may have been lost by a failed write.
    pub(crate) fn is_suspect(&self, id: u64) -> bool {
        id < self.state().suspect
    }

    fn with(&self, next: impl Fn() -> u64, sync: impl Fn() -> Result<()>) -> Result<()> {
        let mut state = self.state();
        // One that has begun may have passed our files already.
        let ours = state.begun + 1;
        loop {
            if state.done >= ours {
                return match &state.failed {
                    Some((class, text)) => Err(Error::new(*class, text.clone())),
                    None => Ok(()),
                };
            }
            if state.running {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            drop(state);
            let result = sync();
            state = self.state();
            state.running = false;
            state.done = state.begun;
            if result.is_err() {
                state.suspect = state.suspect.max(next());
            }
            state.failed = result.err().map(|error| (error.class(), error.to_string()));
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole when the lock is released; `sync` runs without it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn here() -> FilesystemSync {
        FilesystemSync::open(&std::env::temp_dir()).unwrap()
    }

    #[test]
    fn those_who_come_during_a_sync_share_the_next_one() {
        let (sync, calls) = (here(), AtomicUsize::new(0));
        let (go, wait) = mpsc::channel::<()>();
        let (begun, beginning) = mpsc::channel();
        let wait = Mutex::new(Some(wait));
        let call = || {
            calls.fetch_add(1, Ordering::SeqCst);
            if let Some(wait) = wait.lock().unwrap().take() {
                begun.send(()).unwrap();
                wait.recv().unwrap();
            }
            Ok(())
        };
        thread::scope(|scope| {
            scope.spawn(|| sync.with(|| 0, call).unwrap());
            beginning.recv().unwrap();
            let rest: Vec<_> = (0..8).map(|_| scope.spawn(|| sync.with(|| 0, call).unwrap())).collect();
            // They wait, or will: none of them may be served by the call that has begun.
            go.send(()).unwrap();
            rest.into_iter().for_each(|one| one.join().unwrap());
        });
        let calls = calls.load(Ordering::SeqCst);
        assert!((2..=9).contains(&calls), "{calls}");
    }

    #[test]
    fn a_failed_sync_is_remembered_by_what_was_being_filled() {
        let sync = here();
        let error = sync.with(|| 7, || Err(Error::unknown("no more disk"))).unwrap_err();
        assert_eq!(error.to_string(), "no more disk");
        sync.with(|| 9, || Ok(())).unwrap();
        assert!(sync.is_suspect(6) && !sync.is_suspect(7));
        sync.all(|| 9).unwrap();
    }
}
