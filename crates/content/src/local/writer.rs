//! The async face of an ingest: one piece is hashed and written while the next one is on its way.

use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::JoinHandle;
use types::content::Status;
use types::{Digest, Error, Labels, Result};

use super::ingest::Ingest;
use super::lock::Locks;
use crate::Writer;

/// Smaller pieces are gathered to this many bytes, as each trip to the blocking pool costs some microseconds.
const PIECE: usize = 256 << 10;
/// However small they are.
const MOST_PIECES: usize = 1024;

/// A writer of the local store.
///
/// What goes wrong with a piece is told by the call after it, at the latest by commit.
pub(super) struct LocalWriter {
    locks: Arc<Locks>,
    state: State,
    /// Not given to the ingest yet, and how many bytes that is. Empty while that is busy.
    gathered: Vec<Bytes>,
    waiting: usize,
    /// As the writer sees it: with what is gathered or under way.
    status: Status,
}

enum State {
    Idle(Box<Ingest>),
    Busy(JoinHandle<(Box<Ingest>, Result<()>)>),
    Closed,
}

impl LocalWriter {
    pub(super) fn new(locks: Arc<Locks>, ingest: Ingest) -> Self {
        let status = ingest.status().clone();
        Self { locks, state: State::Idle(Box::new(ingest)), gathered: Vec::new(), waiting: 0, status }
    }

    /// Waits for the piece under way. Cancel safe: what is under way stays in `self`.
    async fn settled(&mut self) -> Result<&mut Ingest> {
        if let State::Busy(work) = &mut self.state {
            let ended = work.await;
            self.state = State::Closed;
            let (ingest, result) = ended.map_err(|error| {
                Error::internal(format!("write ingest {:?}: {error}", self.status.reference))
            })?;
            if result.is_err() {
                self.status.offset = ingest.status().offset;
            }
            self.state = State::Idle(ingest);
            result?;
        }
        match &mut self.state {
            State::Idle(ingest) => Ok(ingest),
            State::Busy(_) | State::Closed => Err(closed("write to")),
        }
    }

    /// Sends `work` to the blocking pool. The ingest must be settled.
    fn start(&mut self, work: impl FnOnce(&mut Ingest) -> Result<()> + Send + 'static) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(mut ingest) => State::Busy(tokio::task::spawn_blocking(move || {
                let result = work(&mut ingest);
                (ingest, result)
            })),
            other => other,
        };
    }

    fn take_gathered(&mut self) -> (Vec<Bytes>, SystemTime) {
        self.waiting = 0;
        (std::mem::take(&mut self.gathered), self.status.updated_at)
    }

    fn start_append(&mut self) {
        let (pieces, at) = self.take_gathered();
        self.start(move |ingest| ingest.append(pieces, at));
    }

    /// Everything that was written is in the ingest afterwards.
    async fn flushed(&mut self) -> Result<&mut Ingest> {
        self.settled().await?;
        if !self.gathered.is_empty() {
            self.start_append();
        }
        self.settled().await
    }
}

#[async_trait]
impl Writer for LocalWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.settled().await?;
        self.status.offset += data.len() as u64;
        self.status.updated_at = SystemTime::now();
        self.waiting += data.len();
        self.gathered.push(data);
        if self.waiting >= PIECE || self.gathered.len() >= MOST_PIECES {
            self.start_append();
        }
        Ok(())
    }

    fn file(&self) -> Option<File> {
        match &self.state {
            State::Idle(ingest) => ingest.file(),
            State::Busy(_) | State::Closed => None,
        }
    }

    async fn status(&self) -> Result<Status> {
        Ok(self.status.clone())
    }

    async fn digest(&mut self) -> Result<Digest> {
        Ok(self.flushed().await?.digest())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size != 0 {
            return Err(Error::unimplemented("truncate: unsupported size"));
        }
        self.take_gathered();
        self.settled().await?;
        self.start(Ingest::clear);
        self.settled().await?;
        self.status.offset = 0;
        self.status.updated_at = SystemTime::now();
        Ok(())
    }

    /// Labels belong to the namespaces, which this store does not know.
    async fn commit(&mut self, size: u64, expected: Option<Digest>, _labels: Labels) -> Result<()> {
        if let State::Closed = self.state {
            return Err(closed("commit on"));
        }
        self.flushed().await?;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(ingest) => {
                crate::blocking::blocking(move || ingest.commit(size, expected.as_ref())).await
            }
            State::Busy(_) | State::Closed => Err(closed("commit on")),
        }
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => {}
            // The ingest, and with it the lock, ends where the work ends.
            State::Busy(_) => self.locks.leave(&self.status.reference),
            State::Idle(mut ingest) if !self.gathered.is_empty() => {
                self.locks.leave(&self.status.reference);
                let (pieces, at) = self.take_gathered();
                let last = move || {
                    if let Err(error) = ingest.append(pieces, at) {
                        tracing::debug!(%error, "the end of an abandoned ingest is lost");
                    }
                };
                match tokio::runtime::Handle::try_current() {
                    Ok(runtime) => drop(runtime.spawn_blocking(last)),
                    Err(_) => last(),
                }
            }
            State::Idle(_) => {}
        }
    }
}

fn closed(doing: &str) -> Error {
    Error::precondition(format!("cannot {doing} closed writer: failed precondition"))
}
