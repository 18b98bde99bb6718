//! How much has changed since the last collection: what a scheduler of collections waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

/// Counts of committed changes. Whoever waits is woken only when it matters, so that a commit costs nobody a wake-up.
#[derive(Default)]
pub struct Changes {
    mutations: AtomicU64,
    deletions: AtomicU64,
    /// 0 is never.
    mutation_threshold: AtomicU64,
    deletion_threshold: AtomicU64,
    expiry: Mutex<Option<SystemTime>>,
    woken: Notify,
}

/// What has changed since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Changes that wrote something.
    pub mutations: u64,
    /// Changes that let go of something which others may have stood on.
    pub deletions: u64,
    /// When the first of what was written expires, if anything does.
    pub expiry: Option<SystemTime>,
}

impl Changes {
    /// From which counts on a waiter is woken; 0 is never. The first deletion always wakes it.
    pub fn set_thresholds(&self, mutations: u64, deletions: u64) {
        self.mutation_threshold.store(mutations, Ordering::Relaxed);
        self.deletion_threshold.store(deletions, Ordering::Relaxed);
    }

    /// Waits until there is a first deletion, something expires sooner than all before it, or a count has come to its
    /// threshold, since the last wake-up.
    ///
    /// Cancel safety: a wake-up is kept for the next call.
    pub async fn due(&self) {
        self.woken.notified().await;
    }

    /// What has changed so far.
    pub fn so_far(&self) -> Changed {
        Changed {
            mutations: self.mutations.load(Ordering::Acquire),
            deletions: self.deletions.load(Ordering::Acquire),
            expiry: *self.expiry(),
        }
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        self.mutations.store(0, Ordering::Release);
        self.deletions.store(0, Ordering::Release);
        *self.expiry() = None;
    }

    /// Something expires at `time`.
    pub(crate) fn expires(&self, time: SystemTime) {
        let mut expiry = self.expiry();
        if expiry.is_none_or(|soonest| time < soonest) {
            *expiry = Some(time);
            self.woken.notify_one();
        }
    }

    fn expiry(&self) -> MutexGuard<'_, Option<SystemTime>> {
        // Whole at any time, whoever panicked.
        self.expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what has been committed.
    pub(crate) fn committed(&self, mutations: u64, deletions: u64) {
        let crossed = |count: &AtomicU64, more: u64, threshold: u64| {
            let before = count.fetch_add(more, Ordering::AcqRel);
            threshold > before && threshold <= before.saturating_add(more)
        };
        let first = deletions > 0 && self.deletions.load(Ordering::Acquire) == 0;
        let many = crossed(&self.mutations, mutations, self.mutation_threshold.load(Ordering::Relaxed));
        let deleted = crossed(&self.deletions, deletions, self.deletion_threshold.load(Ordering::Relaxed));
        if first || many || deleted {
            self.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(changes: &Changes) -> bool {
        let mut due = Box::pin(changes.due());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        due.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_waiter_is_woken_by_the_first_deletion_and_at_each_threshold() {
        let changes = Changes::default();
        changes.set_thresholds(10, 3);
        changes.committed(9, 0);
        assert!(!woken(&changes));
        changes.committed(2, 0);
        assert!(woken(&changes) && !woken(&changes), "once, at the tenth");
        changes.committed(1, 1);
        assert!(woken(&changes));
        changes.committed(1, 1);
        assert!(!woken(&changes));
        changes.committed(1, 1);
        assert!(woken(&changes));
        assert_eq!(changes.so_far(), Changed { mutations: 14, deletions: 3, expiry: None });
        changes.reset();
        changes.committed(1, 1);
        assert!(woken(&changes), "the first again");
        let now = SystemTime::now();
        changes.expires(now);
        assert!(woken(&changes));
        changes.expires(now + std::time::Duration::from_secs(1));
        assert!(!woken(&changes), "later than another");
        assert_eq!(changes.so_far().expiry, Some(now));
    }
}
