//! Snapshots whose rows are gone, until their backends have let them go.
//!
//! Kept in memory only: after a restart they are found again, as snapshots of an earlier generation that no row names
//! (see `recover`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::db::Db;

/// By snapshotter.
#[derive(Default)]
pub(crate) struct Graves(BTreeMap<String, Grave>);

#[derive(Default)]
struct Grave {
    /// Names in the backend.
    dead: Mutex<BTreeSet<String>>,
    /// Held by whoever is removing them. A backend that hangs keeps it; others leave it to them.
    digging: tokio::sync::Mutex<()>,
}

impl Graves {
    pub(crate) fn of<'a>(snapshotters: impl Iterator<Item = &'a String>) -> Self {
        Self(snapshotters.map(|name| (name.clone(), Grave::default())).collect())
    }

    /// Keeps everybody else from removing snapshots of this snapshotter.
    #[cfg(test)]
    pub(crate) async fn digging(&self, snapshotter: &str) -> tokio::sync::MutexGuard<'_, ()> {
        self.0[snapshotter].digging.lock().await
    }

    /// The snapshotters that have something to remove.
    pub(crate) fn filled(&self) -> Vec<String> {
        let filled = |(name, grave): (&String, &Grave)| (!grave.list().is_empty()).then(|| name.clone());
        self.0.iter().filter_map(filled).collect()
    }
}

impl Grave {
    /// Those that were made last come first: none stands on one that was made later.
    fn list(&self) -> Vec<String> {
        let mut all: Vec<String> = self.names().iter().cloned().collect();
        let number = |key: &String| key.split('/').nth(1).and_then(|number| number.parse::<u64>().ok());
        all.sort_by_key(|key| Reverse(number(key)));
        all
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // The set is whole whoever panicked.
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Db {
    /// Keeps in mind that a snapshot has no row any more.
    pub(crate) fn note_dead_snapshot(&self, snapshotter: &str, backend_key: &str) {
        if let Some(grave) = self.inner.graves.0.get(snapshotter) {
            grave.names().insert(backend_key.to_owned());
        }
    }

    /// Removes a snapshot that no row names from its backend. One that will not go is kept in mind and logged: to the
    /// client it is gone.
    pub(crate) async fn remove_snapshot(&self, snapshotter: &str, backend_key: &str) {
        let Some(grave) = self.inner.graves.0.get(snapshotter) else { return };
        let Some(backend) = self.inner.snapshotters.get(snapshotter) else { return };
        grave.names().insert(backend_key.to_owned());
        match backend.remove(backend_key).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(snapshotter, key = backend_key, %error, "cannot remove a snapshot yet");
            }
            _ => {
                grave.names().remove(backend_key);
            }
        }
        // What it stood on may go now.
        if !grave.names().is_empty() {
            self.bury_snapshots(snapshotter).await;
        }
    }

    /// Removes what is dead in a backend, again and again as long as that helps: one may stand on another, however they
    /// are called. If somebody is doing so already, it is left to them.
    pub(crate) async fn bury_snapshots(&self, snapshotter: &str) {
        let Some(grave) = self.inner.graves.0.get(snapshotter) else { return };
        let Some(backend) = self.inner.snapshotters.get(snapshotter) else { return };
        let Ok(_digging) = grave.digging.try_lock() else { return };
        loop {
            let mut removed = false;
            for key in grave.list() {
                match backend.remove(&key).await {
                    Err(error) if !error.is_not_found() => {
                        tracing::debug!(snapshotter, key, %error, "cannot remove a snapshot yet");
                    }
                    _ => removed |= grave.names().remove(&key),
                }
            }
            let left = grave.names().len();
            if left == 0 || !removed {
                if left > 0 {
                    tracing::warn!(snapshotter, left, "some snapshots cannot be removed yet");
                }
                return;
            }
        }
    }
}
