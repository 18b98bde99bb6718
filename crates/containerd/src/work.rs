//! Changes that go on when their caller has gone, and are waited for when the daemon stops.
//!
//! A handler that changes something runs its change through [`Work::run`]: on a task of its own, so that a client that
//! hangs up cannot leave it half-done. Handlers that only wait (Tasks.Wait) do not: they end with their caller.
//!
//! It is also here that memory is given back to the kernel: after something big, and when clients have been and gone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::Status;
use tracing::debug;
use types::Result;

use crate::services::reply::status;

/// The changes under way. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Work {
    running: watch::Sender<usize>,
    /// Whether memory is being given back at the moment.
    trimming: Arc<AtomicBool>,
    calm: Arc<Calm>,
}

/// How long no client must have come before memory is given back.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// Whether clients come.
#[derive(Debug, Default)]
struct Calm {
    /// One has come since it was last asked.
    disturbed: AtomicBool,
    /// Somebody waits for calm.
    awaited: AtomicBool,
}

/// What is being changed, for the log.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it is, in words: `create container`.
    pub what: &'static str,
    /// In which namespace.
    pub namespace: String,
    /// The id, key, name or digest.
    pub id: String,
}

impl Change {
    /// The change `what` to `id`.
    pub fn new(what: &'static str, namespace: impl ToString, id: impl Into<String>) -> Self {
        Self { what, namespace: namespace.to_string(), id: id.into() }
    }
}

struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Work {
    /// Nothing under way.
    pub fn new() -> Self {
        Self { running: watch::Sender::new(0), trimming: Arc::default(), calm: Arc::default() }
    }

    /// Runs a change to its end, whether or not the caller waits for it, and logs when it is done.
    pub async fn run<T, F>(&self, change: Change, future: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.running.send_modify(|running| *running += 1);
        let running = Running(self.running.clone());
        let task = tokio::spawn(async move {
            let _running = running;
            let begun = Instant::now();
            let done = future.await;
            let duration = format!("{:?}", begun.elapsed());
            let Change { what, namespace, id } = change;
            match &done {
                Ok(_) => debug!(namespace, id, duration, "{what}"),
                Err(error) => debug!(namespace, id, duration, %error, "{what} failed"),
            }
            done
        });
        match task.await {
            Ok(done) => done.map_err(|error| status(&error)),
            Err(_) => Err(Status::internal("the operation panicked")),
        }
    }

    /// Gives memory back to the kernel, unless that is under way already.
    pub fn trim(&self) {
        let trimming = Arc::clone(&self.trimming);
        if trimming.swap(true, Ordering::AcqRel) {
            return;
        }
        tokio::task::spawn_blocking(move || {
            sys::memory::trim();
            trimming.store(false, Ordering::Release);
        });
    }

    /// A client has come. Each leaves holes in the heap; when no more come they are given back, once.
    pub fn disturbed(&self) {
        let calm = Arc::clone(&self.calm);
        calm.disturbed.store(true, Ordering::SeqCst);
        if calm.awaited.swap(true, Ordering::SeqCst) {
            return;
        }
        tokio::spawn(async move {
            while calm.disturbed.swap(false, Ordering::SeqCst) {
                tokio::time::sleep(QUIET).await;
            }
            calm.awaited.store(false, Ordering::SeqCst);
            // A few milliseconds, while nobody waits for us.
            sys::memory::trim();
        });
    }

    /// Waits until nothing is under way, but no longer than `limit`. Returns how many changes are cut off.
    pub async fn drain(&self, limit: Duration) -> usize {
        let mut running = self.running.subscribe();
        // Either way the count is what matters; the sender lives as long as `self`.
        drop(tokio::time::timeout(limit, running.wait_for(|running| *running == 0)).await);
        *self.running.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calm_is_awaited_by_one_until_it_comes() {
        let work = Work::new();
        for _ in 0..5 {
            work.disturbed();
            tokio::time::sleep(QUIET / 4).await;
            assert!(work.calm.awaited.load(Ordering::SeqCst));
        }
        tokio::time::timeout(Duration::from_secs(5), async {
            while work.calm.awaited.load(Ordering::SeqCst) {
                tokio::time::sleep(QUIET).await;
            }
        })
        .await
        .unwrap();
        assert!(!work.calm.disturbed.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_change_is_finished_although_its_caller_is_gone() {
        let work = Work::new();
        let done = Arc::new(AtomicBool::new(false));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let flag = Arc::clone(&done);
        let mut call = Box::pin(work.run(Change::new("test", "ns", "id"), async move {
            drop(wait.await);
            flag.store(true, Ordering::SeqCst);
            Ok(())
        }));
        let first_poll =
            std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending()));
        assert!(first_poll.await);
        drop(call);
        assert_eq!(work.drain(Duration::from_millis(10)).await, 1);
        go.send(()).unwrap();
        assert_eq!(work.drain(Duration::from_secs(10)).await, 0);
        assert!(done.load(Ordering::SeqCst));
    }
}
