//! Changes that go on when their caller has gone, and are waited for, for a moment, when the daemon stops.
//!
//! A handler that changes something runs its change through [`Work::run`]: on a task of its own, so that a client that
//! hangs up cannot leave it half-done. Handlers that only wait (Tasks.Wait) do not: they end with their caller.
//!
//! Each change is one line of the log when it is done, with namespace, id and duration, and the error if it failed. What the
//! caller sent is not in it: specs, labels and environments may hold secrets.
//!
//! It is also here that memory is given back to the kernel: after something big, and when clients have been and gone.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Status;
use tracing::{Instrument, Level, Span, error};
use types::{Class, Error, Result};

use crate::services::reply::status;

/// The changes under way. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Work {
    /// By number, as they came.
    changes: watch::Sender<BTreeMap<u64, (Change, Instant)>>,
    /// Whether memory is being given back at the moment.
    trimming: Arc<AtomicBool>,
    calm: Arc<Calm>,
}

/// How long no client must have come before memory is given back.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

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
    /// The process in the container, if it is not the first one.
    pub exec: String,
}

impl Change {
    /// The change `what` to `id`.
    pub fn new(what: &'static str, namespace: impl ToString, id: impl Into<String>) -> Self {
        Self { what, namespace: namespace.to_string(), id: id.into(), exec: String::new() }
    }

    /// The same, to a process that was added to the container.
    pub fn exec(self, exec: impl Into<String>) -> Self {
        Self { exec: exec.into(), ..self }
    }
}

/// Changes that clients make all the time and that nobody looks for in a log.
const ROUTINE: [&str; 2] = ["resize terminal", "close stdin"];

/// A change under way. Dropped before it has ended: it panicked.
struct Running {
    changes: watch::Sender<BTreeMap<u64, (Change, Instant)>>,
    number: u64,
}

impl Running {
    fn end(&self) -> Option<(Change, Instant)> {
        let mut ended = None;
        self.changes.send_modify(|changes| ended = changes.remove(&self.number));
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((Change { what, namespace, id, .. }, _)) = self.end() {
            error!(namespace, id, "{what} panicked");
        }
    }
}

/// One line about a change that is done.
fn log(change: &Change, begun: Instant, failure: Option<&Error>) {
    let Change { what, namespace, id, exec } = change;
    let exec = (!exec.is_empty()).then_some(exec.as_str());
    let duration = begun.elapsed();
    // Macros need a level that is known when they are compiled.
    macro_rules! line {
        ($level:expr) => {
            match failure {
                None => tracing::event!($level, namespace, id, exec, ?duration, "{what}"),
                Some(error) => tracing::event!($level, namespace, id, exec, ?duration, %error, "{what} failed"),
            }
        };
    }
    match failure.map(Error::class) {
        Some(Class::Internal | Class::Unknown | Class::Unavailable | Class::DataLoss) => line!(Level::WARN),
        _ if ROUTINE.contains(what) => line!(Level::DEBUG),
        _ => line!(Level::INFO),
    }
}

impl Work {
    /// Nothing under way.
    pub fn new() -> Self {
        Self { changes: watch::Sender::default(), trimming: Arc::default(), calm: Arc::default() }
    }

    /// Runs a change to its end, whether or not the caller waits for it, and logs when it is done.
    pub async fn run<T, F>(&self, change: Change, future: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.spawn(change, future);
        match task.await {
            Ok(done) => done.map_err(|error| status(&error)),
            Err(_) => Err(Status::internal("the operation panicked")),
        }
    }

    /// The same, for who does not wait.
    pub fn detach(&self, change: Change, future: impl Future<Output = Result<()>> + Send + 'static) {
        drop(self.spawn(change, future));
    }

    fn spawn<T, F>(&self, change: Change, future: F) -> JoinHandle<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let running = self.begin(change);
        tokio::spawn(
            async move {
                let done = future.await;
                if let Some((change, begun)) = running.end() {
                    log(&change, begun, done.as_ref().err());
                }
                done
            }
            .instrument(Span::current()),
        )
    }

    fn begin(&self, change: Change) -> Running {
        // Never used again: who has ended still lets go of its number, which must not be somebody else's by then.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.changes.send_modify(|changes| drop(changes.insert(number, (change, Instant::now()))));
        Running { changes: self.changes.clone(), number }
    }

    /// The changes under way, the oldest first, each with when it was begun.
    pub fn under_way(&self) -> Vec<(Change, Instant)> {
        self.changes.borrow().values().cloned().collect()
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

    /// A client has come, or the daemon itself. Each leaves holes in the heap and the code that it ran; when no more come
    /// these are given back, once.
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
            sys::memory::settle();
        });
    }

    /// Waits until nothing is under way, but no longer than `limit`. Returns how many changes are cut off.
    pub async fn drain(&self, limit: Duration) -> usize {
        let mut changes = self.changes.subscribe();
        // Either way the count is what matters; the sender lives as long as `self`.
        drop(tokio::time::timeout(limit, changes.wait_for(BTreeMap::is_empty)).await);
        self.changes.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_ended_takes_no_other_along() {
        let work = Work::new();
        let first = work.begin(Change::new("test", "ns", "first"));
        assert!(first.end().is_some());
        let second = work.begin(Change::new("test", "ns", "second"));
        drop(first);
        assert_eq!(work.under_way().len(), 1);
        assert!(second.end().is_some());
    }

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
