//! Walk, hash, compress and hand over at the same time.
//!
//! ```text
//!  walk -> chunks --+--> hash       the digest of the uncompressed layer
//!  (the caller)     +--> compress   -> whoever writes the blob
//! ```
//!
//! Chunks are shared, not copied, and at most [`AHEAD`] of them wait for each reader.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use types::digest::{Algorithm, Hasher};
use types::{Class, Digest, Error, Result, ResultExt};

use super::layer::Sink;
use crate::encoder::{Chunk, Encoding, encode};

/// The size of a chunk in bytes. Compressed bytes depend on it.
const SIZE: usize = 256 << 10;
/// How many chunks may wait.
const AHEAD: usize = 4;

/// Takes the layer and cuts it into chunks.
pub(super) struct Chunks {
    current: Vec<u8>,
    readers: [SyncSender<Chunk>; 2],
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = Arc::new(std::mem::replace(&mut self.current, Vec::with_capacity(SIZE)));
        for reader in &self.readers {
            let gone = |_| io::Error::other(Error::new(Class::Canceled, "nobody takes the layer any more"));
            reader.send(Arc::clone(&chunk)).map_err(gone)?;
        }
        Ok(())
    }

    fn send_if_full(&mut self) -> io::Result<()> {
        if self.current.len() < SIZE { Ok(()) } else { self.send() }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(SIZE - self.current.len());
        self.current.extend_from_slice(&bytes[..count]);
        self.send_if_full()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Sink for Chunks {
    fn take_from(&mut self, file: &File, most: u64) -> io::Result<u64> {
        let room = (SIZE - self.current.len()) as u64;
        let taken = file.take(most.min(room)).read_to_end(&mut self.current)?;
        self.send_if_full()?;
        Ok(taken as u64)
    }
}

/// Runs `walk` and gives what comes out, compressed, to `out` in order. Answers with the digest of the uncompressed layer.
pub(super) fn run(
    encoding: Encoding,
    out: &mut (dyn FnMut(Bytes) -> io::Result<()> + Send),
    walk: impl FnOnce(Chunks) -> Result<Chunks>,
) -> Result<Digest> {
    let (to_hash, hash) = sync_channel::<Chunk>(AHEAD);
    let (to_encoder, chunks) = sync_channel::<Chunk>(AHEAD);
    thread::scope(|scope| {
        let hashing = spawn(scope, "diff-hash", move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            hash.iter().for_each(|chunk| hasher.update(&chunk));
            hasher.finish()
        })?;
        let encoding = spawn(scope, "diff-encode", move || encode(encoding, chunks, out))?;
        let chunks = Chunks { current: Vec::with_capacity(SIZE), readers: [to_hash, to_encoder] };
        let walked = walk(chunks).and_then(|mut chunks| chunks.flush().context(|| "hand over the layer"));
        let crashed = |_| Error::internal("a thread of the diff crashed");
        // Whoever compresses knows better why it ended early than whoever could not hand over.
        encoding.join().map_err(crashed)??;
        walked?;
        hashing.join().map_err(crashed)
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).context(|| "start a thread")
}
