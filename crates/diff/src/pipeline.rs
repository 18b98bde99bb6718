//! Inflate, hash and extract at the same time.
//!
//! ```text
//!  source -> inflate --+--> hash       the digest of the whole stream
//!   (its own thread)   +--> consumer   the caller's thread: tar, files
//! ```
//!
//! Chunks are shared, not copied; at most [`AHEAD`] of them wait for each reader, so memory is bounded whatever the
//! sizes are.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use types::digest::{Algorithm, Hasher};
use types::{Digest, Error, Result};

use crate::compression::{Decoder, Wrapping};
use crate::tar::unreadable;

/// The size of a chunk in bytes.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait.
const AHEAD: usize = 8;

/// What went through: the digest and size of the uncompressed stream, to its very end.
pub(crate) struct Passed {
    pub digest: Digest,
    pub size: u64,
}

/// Runs `consumer` on the uncompressed stream. What it leaves is read too: an archive's padding belongs to its digest.
pub(crate) fn run<S, T, E>(
    source: S,
    wrapping: Wrapping,
    consumer: impl FnOnce(&mut Stream) -> Result<T, E>,
) -> Result<(T, Passed), E>
where
    S: Read + Send,
    E: From<Error>,
{
    let (to_hash, hash) = sync_channel::<Arc<Vec<u8>>>(AHEAD);
    let (to_stream, stream) = sync_channel(AHEAD);
    thread::scope(|scope| {
        let inflating =
            spawn(scope, "layer-inflate", move || inflate(source, wrapping, &to_hash, &to_stream))?;
        let hashing = spawn(scope, "layer-hash", move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut size = 0u64;
            for chunk in hash {
                hasher.update(&chunk);
                size += chunk.len() as u64;
            }
            Passed { digest: hasher.finish(), size }
        })?;
        let mut stream = Stream { chunks: stream, current: Arc::new(Vec::new()), at: 0 };
        // On an error the stream is dropped here, and that stops the inflating thread.
        let done = consumer(&mut stream)?;
        stream.drain().map_err(|error| E::from(unreadable(error)))?;
        let crashed = |_| E::from(Error::internal("a thread of the layer pipeline crashed"));
        inflating.join().map_err(crashed)?;
        let passed = hashing.join().map_err(crashed)?;
        Ok((done, passed))
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(|error| Error::from(error).context("start a thread of the layer pipeline"))
}

/// Sends chunks to both until the end, an error, or until the consumer is gone.
fn inflate(
    source: impl Read,
    wrapping: Wrapping,
    to_hash: &SyncSender<Arc<Vec<u8>>>,
    to_stream: &SyncSender<io::Result<Arc<Vec<u8>>>>,
) {
    let result = Decoder::new(source, wrapping).and_then(|mut decoder| {
        loop {
            let chunk = fill(&mut decoder)?;
            if chunk.is_empty() {
                return Ok(());
            }
            let chunk = Arc::new(chunk);
            if to_stream.send(Ok(Arc::clone(&chunk))).is_err() || to_hash.send(chunk).is_err() {
                return Ok(());
            }
        }
    });
    if let Err(error) = result {
        // If nobody listens any more, nobody wants to know.
        let _ = to_stream.send(Err(error));
    }
}

/// A chunk as full as the source allows; empty only at its end.
fn fill(decoder: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

/// The uncompressed stream.
pub(crate) struct Stream {
    chunks: Receiver<io::Result<Arc<Vec<u8>>>>,
    current: Arc<Vec<u8>>,
    at: usize,
}

impl Stream {
    fn drain(&mut self) -> io::Result<()> {
        self.chunks.iter().try_for_each(|chunk| chunk.map(drop))
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            // The sender is gone: the stream is at its end, or its error has been delivered.
            let Ok(next) = self.chunks.recv() else { return Ok(&[]) };
            self.current = next?;
            self.at = 0;
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let count = there.len().min(buf.len());
        buf[..count].copy_from_slice(&there[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_what_the_consumer_leaves() {
        let bytes = vec![3u8; 3 * CHUNK + 17];
        let (taken, passed) = run(&bytes[..], Wrapping::Detect, |stream| {
            let mut some = [0; 10];
            stream.read_exact(&mut some).map_err(Error::from)?;
            Ok::<_, Error>(some)
        })
        .unwrap();
        assert_eq!(taken, [3; 10]);
        assert_eq!((passed.digest, passed.size), (Digest::of(&bytes), bytes.len() as u64));
    }

    #[test]
    fn a_consumer_that_fails_stops_everything() {
        let endless = io::repeat(7);
        let failed = run(endless, Wrapping::Never, |_| Err::<(), _>(Error::invalid("enough")));
        assert_eq!(failed.err().unwrap().message(), "enough");
    }
}
