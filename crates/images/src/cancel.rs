//! Work that is to stop: its caller went away, or a part of it failed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use types::{Class, Error, Result};

/// A wish to stop that many look at: tasks wait for it, threads ask.
#[derive(Clone)]
pub(crate) struct Cancel {
    wish: Arc<watch::Sender<bool>>,
    flag: Arc<AtomicBool>,
}

impl Cancel {
    /// Not wished yet.
    pub(crate) fn new() -> Self {
        Self { wish: Arc::new(watch::Sender::new(false)), flag: Arc::default() }
    }

    /// Wishes it.
    pub(crate) fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.wish.send_replace(true);
    }

    /// For threads.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// `work`, or `Canceled`. What `work` leaves when it is dropped is the caller's to clean up.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut wished = self.wish.subscribe();
        tokio::select! {
            biased;
            _ = wished.wait_for(|wished| *wished) => Err(Error::new(Class::Canceled, "canceled")),
            done = work => done,
        }
    }
}

/// Wishes it when dropped.
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
