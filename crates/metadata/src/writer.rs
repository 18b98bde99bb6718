//! The one thread that writes, and group commit.
//!
//! ```text
//!  mutate() --queue--> [ a b c ]  one transaction: run a, b, c; one sync; answer a, b, c
//!  mutate() --queue-->   d e ..   (what arrives meanwhile is the next group)
//! ```
//!
//! Alone, a mutation costs one sync; under load a sync is shared by all that queued up during the one before it. A
//! group of which nobody wrote anything is not committed at all. Nobody is answered before the commit is durable, not
//! even those who only learn that something exists already: it may be a change of the same group that they saw.
//!
//! A mutation that fails after it wrote, or panics, is answered, the transaction is thrown away, and the others run
//! again from the start: therefore mutations are `FnMut` and touch nothing but the transaction. An empty queue is
//! waited on without a timer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use types::{Error, Result, ResultExt};

use crate::barrier::Barrier;
use crate::changes::Changes;
use crate::storage::Storage;
use crate::tx::{Counts, Tx};

/// How many mutations may wait before callers wait to queue theirs.
const QUEUE: usize = 1024;
/// How many share one commit at most; it bounds how long one can wait for the others of its group.
const GROUP: usize = 512;

/// What collections want to know of the writing.
#[derive(Default)]
pub(crate) struct Observed {
    /// What is touched while one is under way.
    pub(crate) barrier: Barrier,
    /// How much has changed since the last.
    pub(crate) changes: Arc<Changes>,
}

/// The queue to the thread, and the thread.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Mutation>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. What it does is told to `observed`.
    pub(crate) fn start(storage: Arc<Storage>, observed: Arc<Observed>) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("metadata".to_owned())
            .spawn(move || run(&storage, &observed, jobs))
            .context(|| "start the metadata writer thread")?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `change` on a write transaction and answers when it is durable.
    ///
    /// Cancel safety: once queued it happens, whether or not somebody waits for the answer.
    pub(crate) async fn mutate<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let stopped = || Error::unavailable("the metadata database is shutting down");
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Change { change, outcome: None, reply });
        self.queue.as_ref().ok_or_else(stopped)?.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    /// Waits until everything queued is durable.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// A queued change, whatever it returns.
trait Mutation: Send {
    /// Runs it and keeps the outcome; says whether it succeeded.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Answers with the outcome, unless the commit failed.
    fn answer(self: Box<Self>, commit: &Result<()>);
    /// Answers that it panicked.
    fn panicked(self: Box<Self>);
}

struct Change<T, F> {
    change: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnMut(&Tx<'_>) -> Result<T> + Send> Mutation for Change<T, F> {
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        let outcome = (self.change)(tx);
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn answer(self: Box<Self>, commit: &Result<()>) {
        let outcome = match (commit, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // It is everybody's error, so each gets its class and words: what a mutation found out by itself may
            // be about changes of its group that are not there.
            (Err(error), _) => {
                Err(Error::new(error.class(), format!("commit to the metadata database: {error}")))
            }
            (Ok(()), None) => Err(Error::internal("a mutation was committed without being run")),
        };
        // Whoever went away needs no answer.
        let _ = self.reply.send(outcome);
    }

    fn panicked(self: Box<Self>) {
        let _ = self
            .reply
            .send(Err(Error::internal("a change of the metadata database panicked and was undone")));
    }
}

fn run(storage: &Storage, observed: &Observed, mut queue: mpsc::Receiver<Box<dyn Mutation>>) {
    let mut group = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        let committed = commit(storage, observed, &mut group);
        for mutation in group.drain(..) {
            mutation.answer(&committed);
        }
    }
}

/// What became of one try to run a group.
enum Tried {
    /// All ran; this is what the commit said.
    Committed(Result<()>),
    /// The mutation at this place cannot stay, and the transaction is gone.
    Spoilt(usize, Spoilt),
    /// The storage failed.
    Broken(Error),
}

enum Spoilt {
    Failed,
    Panicked,
}

/// Runs and commits `group`, without those that spoil it: they are answered and removed.
fn commit(storage: &Storage, observed: &Observed, group: &mut Vec<Box<dyn Mutation>>) -> Result<()> {
    loop {
        match attempt(storage, observed, group) {
            Tried::Committed(result) => {
                if result.is_err() {
                    reopen(storage);
                }
                return result;
            }
            Tried::Spoilt(place, Spoilt::Failed) => group.remove(place).answer(&Ok(())),
            Tried::Spoilt(place, Spoilt::Panicked) => group.remove(place).panicked(),
            Tried::Broken(error) => {
                reopen(storage);
                return Err(error);
            }
        }
    }
}

fn attempt(storage: &Storage, observed: &Observed, group: &mut [Box<dyn Mutation>]) -> Tried {
    let txn = match storage.begin_write() {
        Ok(txn) => txn,
        Err(error) => return Tried::Broken(error),
    };
    let (mut wrote, mut changes, mut deletions) = (false, 0, 0);
    for (place, mutation) in group.iter_mut().enumerate() {
        let tx = Tx::watched(&txn, &observed.barrier);
        // What a panic leaves behind is in the transaction, which is thrown away.
        let Ok(succeeded) = catch_unwind(AssertUnwindSafe(|| mutation.run(&tx))) else {
            return Tried::Spoilt(place, Spoilt::Panicked);
        };
        if let Some(error) = tx.broken() {
            return Tried::Broken(error);
        }
        if !succeeded && tx.wrote() {
            return Tried::Spoilt(place, Spoilt::Failed);
        }
        wrote |= tx.wrote();
        let counted = u64::from(tx.wrote() && tx.counts() != Counts::Nothing);
        changes += counted;
        deletions += if tx.counts() == Counts::Deletion { counted } else { 0 };
    }
    if !wrote {
        return Tried::Committed(Ok(()));
    }
    let committed = storage.commit(txn);
    if committed.is_ok() {
        observed.changes.committed(changes, deletions);
    }
    Tried::Committed(committed)
}

fn reopen(storage: &Storage) {
    if let Err(error) = storage.reopen() {
        tracing::error!(%error, "the metadata database stays closed until the next change");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use types::Class;

    use super::*;
    use crate::namespaces::NamespaceRecord;
    use crate::schema::{NAMESPACES, create_tables};
    use crate::storage::open_file;
    use crate::tx::Source;

    struct Bench {
        _dir: tempfile::TempDir,
        storage: Arc<Storage>,
        writer: Arc<Writer>,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.redb");
        let storage = Arc::new(Storage::open(move || open_file(&path)).unwrap());
        let txn = storage.begin_write().unwrap();
        create_tables(&txn).unwrap();
        storage.commit(txn).unwrap();
        let writer = Arc::new(Writer::start(Arc::clone(&storage), Arc::default()).unwrap());
        Bench { _dir: dir, storage, writer }
    }

    impl Bench {
        fn has(&self, name: &str) -> bool {
            self.storage.begin_read().unwrap().has(NAMESPACES.table, name).unwrap()
        }

        /// Keeps the writer busy until the answer is sent, so that what is queued meanwhile is one group.
        async fn busy(&self) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
            let (go, wait) = mpsc::channel::<()>();
            let (begun, beginning) = oneshot::channel();
            let mut begun = Some(begun);
            let writer = Arc::clone(&self.writer);
            let busy = tokio::spawn(async move {
                writer
                    .mutate(move |_| {
                        if let Some(begun) = begun.take() {
                            begun.send(()).unwrap();
                            wait.recv().unwrap();
                        }
                        Ok(())
                    })
                    .await
            });
            beginning.await.unwrap();
            (go, busy)
        }

        /// Waits until `count` changes are in the queue.
        async fn queued(&self, count: usize) {
            while self.writer.queue.as_ref().unwrap().capacity() != QUEUE - count {
                tokio::task::yield_now().await;
            }
        }

        fn queue<T: Send + 'static>(
            &self,
            change: impl FnMut(&Tx<'_>) -> Result<T> + Send + 'static,
        ) -> tokio::task::JoinHandle<Result<T>> {
            let writer = Arc::clone(&self.writer);
            tokio::spawn(async move { writer.mutate(change).await })
        }
    }

    fn add(name: impl Into<String>) -> impl FnMut(&Tx<'_>) -> Result<()> + Send + 'static {
        let name = name.into();
        move |tx| match tx.has(NAMESPACES.table, name.as_str())? {
            true => Err(Error::already_exists(name.clone())),
            false => tx.put(NAMESPACES, name.as_str(), NamespaceRecord::default()),
        }
    }

    #[tokio::test]
    async fn what_queues_up_during_a_commit_is_committed_together() {
        let bench = bench();
        let (go, busy) = bench.busy().await;
        let before = bench.storage.commits();
        let queued: Vec<_> = (0..100).map(|i| bench.queue(add(format!("n{i}")))).collect();
        bench.queued(100).await;
        go.send(()).unwrap();
        for change in queued {
            change.await.unwrap().unwrap();
        }
        busy.await.unwrap().unwrap();
        assert_eq!(bench.storage.commits() - before, 1, "one hundred changes, one sync");
        assert!((0..100).all(|i| bench.has(&format!("n{i}"))));
    }

    #[tokio::test]
    async fn a_group_that_wrote_nothing_is_not_committed() {
        let bench = bench();
        bench.writer.mutate(add("a")).await.unwrap();
        let before = bench.storage.commits();
        assert!(bench.writer.mutate(add("a")).await.unwrap_err().is_already_exists());
        assert_eq!(bench.storage.commits(), before);
    }

    #[tokio::test]
    async fn one_that_fails_does_not_poison_its_group() {
        let bench = bench();
        let (go, _busy) = bench.busy().await;
        let good = bench.queue(add("good"));
        let refused = bench.queue(|_| Err::<(), _>(Error::invalid("no")));
        let half = bench.queue(|tx| {
            add("half")(tx)?;
            Err::<(), _>(Error::invalid("after writing"))
        });
        let runs = Arc::new(AtomicUsize::new(0));
        let panics = bench.queue({
            let runs = Arc::clone(&runs);
            move |tx| {
                add("panics")(tx)?;
                runs.fetch_add(1, Ordering::Relaxed);
                if true { panic!("as the test wants it") } else { Ok(()) }
            }
        });
        let last = bench.queue(add("last"));
        bench.queued(5).await;
        go.send(()).unwrap();
        good.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(refused.await.unwrap().unwrap_err().to_string(), "no");
        assert_eq!(half.await.unwrap().unwrap_err().to_string(), "after writing");
        assert_eq!(panics.await.unwrap().unwrap_err().class(), Class::Internal);
        assert_eq!(runs.load(Ordering::Relaxed), 1, "what panicked is not run again");
        assert!(bench.has("good") && bench.has("last") && !bench.has("half") && !bench.has("panics"));
        bench.writer.mutate(add("later")).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_sees_those_before_it_in_its_group() {
        let bench = bench();
        let (go, _busy) = bench.busy().await;
        let (first, second) = (bench.queue(add("a")), bench.queue(add("a")));
        bench.queued(2).await;
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert!(second.await.unwrap().unwrap_err().is_already_exists());
    }

    #[tokio::test]
    async fn a_queued_change_happens_though_its_caller_went_away() {
        let bench = bench();
        let (go, busy) = bench.busy().await;
        let gone = bench.queue(add("a"));
        bench.queued(1).await;
        gone.abort();
        assert!(gone.await.is_err());
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        bench.writer.mutate(add("b")).await.unwrap();
        assert!(bench.has("a"));
    }

    #[tokio::test]
    async fn dropping_the_writer_waits_for_what_is_queued() {
        let Bench { _dir, storage, writer } = bench();
        let barrier = Arc::new(Barrier::new(2));
        let held = Arc::clone(&barrier);
        let first = writer.queue.clone().unwrap();
        let (reply, answer) = oneshot::channel();
        let change = move |tx: &Tx<'_>| {
            held.wait();
            add("a")(tx)
        };
        first.send(Box::new(Change { change, outcome: None, reply })).await.unwrap();
        drop(first);
        let dropping = std::thread::spawn(move || drop(writer));
        barrier.wait();
        dropping.join().unwrap();
        answer.await.unwrap().unwrap();
        assert!(storage.begin_read().unwrap().has(NAMESPACES.table, "a").unwrap());
    }
}
