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

use crate::storage::Storage;
use crate::tx::Tx;

/// How many mutations may wait before callers wait to queue theirs.
const QUEUE: usize = 1024;
/// How many share one commit at most; it bounds how long one can wait for the others of its group.
const GROUP: usize = 512;

/// The queue to the thread, and the thread.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Mutation>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(storage: Arc<Storage>) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("metadata".to_owned())
            .spawn(move || run(&storage, jobs))
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

fn run(storage: &Storage, mut queue: mpsc::Receiver<Box<dyn Mutation>>) {
    let mut group = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        let committed = commit(storage, &mut group);
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
fn commit(storage: &Storage, group: &mut Vec<Box<dyn Mutation>>) -> Result<()> {
    loop {
        match attempt(storage, group) {
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

fn attempt(storage: &Storage, group: &mut [Box<dyn Mutation>]) -> Tried {
    let txn = match storage.begin_write() {
        Ok(txn) => txn,
        Err(error) => return Tried::Broken(error),
    };
    let mut wrote = false;
    for (place, mutation) in group.iter_mut().enumerate() {
        let tx = Tx::new(&txn);
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
    }
    if !wrote {
        return Tried::Committed(Ok(()));
    }
    Tried::Committed(storage.commit(txn))
}

fn reopen(storage: &Storage) {
    if let Err(error) = storage.reopen() {
        tracing::error!(%error, "the metadata database stays closed until the next change");
    }
}
