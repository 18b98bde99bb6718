//! One at a time for a container's interface, and not after nobody wants it any more.
//!
//! A future that is dropped leaves the work that it waits for on its thread. What has not begun then never does, and what
//! has is over before the next one begins: a DEL finds all of an ADD that was given up. A turn can also be kept for what goes
//! on after the answer ([`leaving`](super::leaving)).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use types::{Class, Error, Result};

use super::{Asked, Kind, answer};
use crate::result::AddResult;

/// A container and an interface in it.
type Key = (String, String);

static BUSY: Mutex<Option<HashSet<Key>>> = Mutex::new(None);
static FREED: Condvar = Condvar::new();

/// It is over when the last clone of it is dropped.
#[derive(Clone)]
pub(super) struct Turn {
    _held: Arc<Held>,
}

struct Held(Key);

impl Turn {
    /// Waits for all earlier ones of this interface.
    fn take(key: Key) -> Self {
        let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.get_or_insert_default().insert(key.clone()) {
            busy = FREED.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Self { _held: Arc::new(Held(key)) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(busy) = BUSY.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            busy.remove(&self.0);
        }
        FREED.notify_all();
    }
}

/// Says that nobody waits, when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks a built-in plugin. Dropping this lets what has begun come to its end.
pub(crate) async fn run(kind: Kind, asked: Asked) -> Result<Option<AddResult>> {
    let waiting = Waiting(Arc::default());
    let given_up = Arc::clone(&waiting.0);
    let work = tokio::task::spawn_blocking(move || {
        // Questions about a network as a whole are nobody's turn.
        let one = !asked.at.container.is_empty();
        let turn = one.then(|| Turn::take((asked.at.container.clone(), asked.at.interface.clone())));
        if given_up.load(Ordering::Acquire) {
            return Err(Error::new(Class::Canceled, "nobody waits for the network any more"));
        }
        answer(kind, &asked, turn.as_ref())
    });
    let done = work.await;
    drop(waiting);
    done.unwrap_or_else(|error| Err(Error::internal(format!("a built-in plugin broke off: {error}"))))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_has_a_turn_until_all_of_it_is_over() {
        let key = |name: &str| ("turns".to_owned(), name.to_owned());
        let first = Turn::take(key("eth0"));
        let kept = first.clone();
        drop(Turn::take(key("eth1")));
        drop(first);
        let other = thread::spawn(move || drop(Turn::take(key("eth0"))));
        thread::sleep(Duration::from_millis(20));
        assert!(!other.is_finished());
        drop(kept);
        other.join().unwrap();
    }
}
