//! What is remembered of containers and pods from one request to the next, by id; forgotten if nobody asks for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that was found out.
pub trait Found {
    /// When.
    fn at(&self) -> Instant;
}

/// What was found out last.
#[derive(Debug)]
pub struct Recent<T>(Mutex<Known<T>>);

/// The same, for one look or change.
#[derive(Debug)]
pub struct Known<T> {
    /// One entry comes or goes at a time.
    pub by_id: HashMap<String, T>,
    /// When those were forgotten that nobody asks for. Looking at all of them for each would cost the square of their number.
    swept: Option<Instant>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(Known { by_id: HashMap::new(), swept: None }))
    }
}

impl<T> Recent<T> {
    /// All of it.
    pub fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Found> Known<T> {
    /// Forgets what is older than `retention`, unless that was done a short while ago.
    pub fn sweep(&mut self, now: Instant, retention: Duration) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= retention) {
            self.by_id.retain(|_, found| now.duration_since(found.at()) < retention);
            self.swept = Some(now);
        }
    }
}
