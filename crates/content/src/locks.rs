//! One lock per name, for the steps that span a store and the database. A name costs memory only while it is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Table = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// The locks that are held or waited for.
#[derive(Default)]
pub struct Locks(Mutex<Table>);

/// A held lock.
pub struct Held {
    locks: Arc<Locks>,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits for the lock named `name`. Dropping the future gives up the place in the queue.
    pub async fn hold(self: &Arc<Self>, name: &str) -> Held {
        let lock = Arc::clone(self.table().entry(name.to_owned()).or_default());
        let mut held = Held { locks: Arc::clone(self), name: name.to_owned(), guard: None };
        held.guard = Some(lock.lock_owned().await);
        held
    }

    /// Waits for two locks, in an order that all callers share.
    pub async fn hold_both(self: &Arc<Self>, a: &str, b: &str) -> (Held, Option<Held>) {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        let held = self.hold(first).await;
        if first == second {
            return (held, None);
        }
        (held, Some(self.hold(second).await))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; the table is whole in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut table = self.locks.table();
        // Others reach the lock through the table only, so a count of one means that nobody wants it.
        if table.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            table.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_held_by_one_at_a_time_and_forgotten_afterwards() {
        let locks = Arc::new(Locks::default());
        let held = locks.hold("a").await;
        let other = locks.hold("b").await;
        let waiting = tokio::spawn({
            let locks = Arc::clone(&locks);
            async move { locks.hold("a").await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        drop(waiting.await.unwrap());
        drop(other);
        assert!(locks.table().is_empty());
    }

    #[tokio::test]
    async fn giving_up_waiting_leaves_nothing() {
        let locks = Arc::new(Locks::default());
        let held = locks.hold("a").await;
        let waiting = tokio::spawn({
            let locks = Arc::clone(&locks);
            async move { locks.hold("a").await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(held);
        assert!(locks.table().is_empty());
    }

    #[tokio::test]
    async fn two_names_are_taken_in_one_order() {
        let locks = Arc::new(Locks::default());
        for _ in 0..100 {
            let one = tokio::spawn({
                let locks = Arc::clone(&locks);
                async move { drop(locks.hold_both("a", "b").await) }
            });
            drop(locks.hold_both("b", "a").await);
            one.await.unwrap();
        }
        drop(locks.hold_both("a", "a").await);
        assert!(locks.table().is_empty());
    }
}
