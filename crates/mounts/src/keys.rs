//! One change at a time for each name.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A namespace and a name in it.
pub type Key = (String, String);

/// The names that are being changed.
#[derive(Debug, Default)]
pub struct Keys {
    busy: Mutex<BTreeSet<Key>>,
    freed: Notify,
}

/// Nobody else changes the name as long as this lives.
#[derive(Debug)]
pub struct Guard<'a> {
    keys: &'a Keys,
    key: Key,
}

impl Keys {
    /// Waits until nobody changes `key`. Cancel safe.
    pub async fn lock(&self, key: Key) -> Guard<'_> {
        loop {
            let mut freed = pin!(self.freed.notified());
            // What is freed after this line wakes us.
            freed.as_mut().enable();
            if self.busy().insert(key.clone()) {
                return Guard { keys: self, key };
            }
            freed.await;
        }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.keys.busy().remove(&self.key);
        self.keys.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_name_is_changed_by_one_at_a_time() {
        let (keys, inside) = (Arc::new(Keys::default()), Arc::new(AtomicUsize::new(0)));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (keys, inside) = (Arc::clone(&keys), Arc::clone(&inside));
            all.spawn(async move {
                let _guard = keys.lock(("ns".to_owned(), "name".to_owned())).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert!(keys.busy().is_empty());
    }
}
