//! Inflate, hash and extract at the same time.
//!
//! ```text
//!  source -> inflate --+--> hash       the digest of the whole stream
//!   (its own thread)   +--> consumer   the caller's thread: tar, files
//! ```
//!
//! Chunks are shared, not copied; at most `AHEAD` of them wait for each reader, so memory is bounded whatever the
//! sizes are.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use types::digest::{Algorithm, Hasher};
use types::{Digest, Error, Result, ResultExt};

use crate::compression::{Decoder, Wrapping};
use crate::tar::unreadable;

/// The size of a chunk in bytes: several fit into a core's own cache.
const CHUNK: usize = 128 << 10;
/// How many chunks may wait.
const AHEAD: usize = 8;

/// The configuration key of the limit.
pub const MAX_UNPACKED_LAYER: &str = "plugins.\"io.containerd.transfer.v1.local\".max_unpacked_layer";

/// How many bytes a layer may have, uncompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room(pub u64);

impl Room {
    /// What is free where `dir` lies, less five per cent.
    pub fn free(dir: &Path) -> Result<Self> {
        let stat = rustix::fs::statvfs(dir)
            .map_err(io::Error::from)
            .context(|| format!("look for free space in {dir:?}"))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(Self(free - free / 20))
    }

    fn exceeded(self) -> Error {
        Error::exhausted(format!(
            "the layer has more than {} bytes uncompressed, all that {MAX_UNPACKED_LAYER} (by default the free space less 5%) \
             allows",
            self.0
        ))
    }
}

/// What went through: the digest and size of the uncompressed stream, to its very end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The diff id.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// Runs `consumer` on the uncompressed stream. What it leaves is read too: an archive's padding belongs to its digest.
pub(crate) fn run<S, T, E>(
    source: S,
    wrapping: Wrapping,
    room: Room,
    consumer: impl FnOnce(&mut Stream) -> Result<T, E>,
) -> Result<(T, Passed), E>
where
    S: BufRead + Send,
    E: From<Error>,
{
    let (to_hash, hash) = sync_channel::<Arc<Chunk>>(AHEAD);
    let (to_stream, stream) = sync_channel(AHEAD);
    thread::scope(|scope| {
        let inflating =
            spawn(scope, "layer-inflate", move || inflate(source, wrapping, room, &to_hash, &to_stream))?;
        let hashing = spawn(scope, "layer-hash", move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut size = 0u64;
            for chunk in hash {
                hasher.update(chunk.bytes());
                size += chunk.len as u64;
            }
            Passed { digest: hasher.finish(), size }
        })?;
        let mut stream = Stream { chunks: stream, current: None, at: 0 };
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
    source: impl BufRead,
    wrapping: Wrapping,
    room: Room,
    to_hash: &SyncSender<Arc<Chunk>>,
    to_stream: &SyncSender<io::Result<Arc<Chunk>>>,
) {
    let result = Decoder::buffered(source, wrapping).and_then(|mut decoder| {
        let pool = Arc::<Pool>::default();
        let mut left = room.0;
        loop {
            let chunk = Chunk::fill(&pool, &mut decoder)?;
            if chunk.len == 0 {
                return Ok(());
            }
            left = left.checked_sub(chunk.len as u64).ok_or_else(|| io::Error::other(room.exceeded()))?;
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

/// Buffers that are used again: new ones would be zeroed, and paged in, for each chunk.
#[derive(Default)]
struct Pool(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        // One push or pop at a time: there is no half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of the uncompressed stream.
pub(crate) struct Chunk {
    buffer: Box<[u8]>,
    len: usize,
    pool: Arc<Pool>,
}

impl Chunk {
    /// As full as the source allows; empty only at its end.
    fn fill(pool: &Arc<Pool>, decoder: &mut impl Read) -> io::Result<Self> {
        let buffer = pool.free().pop();
        let buffer = buffer.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        let mut chunk = Self { buffer, len: 0, pool: Arc::clone(pool) };
        while chunk.len < CHUNK {
            match decoder.read(&mut chunk.buffer[chunk.len..]) {
                Ok(0) => break,
                Ok(count) => chunk.len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(chunk)
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.free().push(std::mem::take(&mut self.buffer));
    }
}

/// The uncompressed stream.
pub(crate) struct Stream {
    chunks: Receiver<io::Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    at: usize,
}

impl Stream {
    fn rest(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.at..])
    }

    fn drain(&mut self) -> io::Result<()> {
        self.chunks.iter().try_for_each(|chunk| chunk.map(drop))
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            self.current = None;
            self.at = 0;
            // The sender is gone: the stream is at its end, or its error has been delivered.
            let Ok(next) = self.chunks.recv() else { return Ok(&[]) };
            self.current = Some(next?);
        }
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        self.at += count.min(self.rest().len());
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
        let (taken, passed) = run(&bytes[..], Wrapping::Detect, Room(u64::MAX), |stream| {
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
        let endless = io::BufReader::new(io::repeat(7));
        let failed =
            run(endless, Wrapping::Never, Room(u64::MAX), |_| Err::<(), _>(Error::invalid("enough")));
        assert_eq!(failed.err().unwrap().message(), "enough");
    }

    #[test]
    fn a_layer_that_inflates_beyond_its_room_is_stopped_and_the_limit_named() {
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut io::repeat(0).take(50 << 20), &mut bomb).unwrap();
        let bomb = bomb.finish().unwrap();
        let through = |room| {
            run(&bomb[..], Wrapping::Detect, Room(room), |stream| {
                io::copy(stream, &mut io::sink()).map_err(unreadable)
            })
        };
        assert_eq!(through(50 << 20).unwrap().0, 50 << 20);
        let error = through((50 << 20) - 1).unwrap_err();
        assert_eq!(error.class(), types::Class::ResourceExhausted);
        assert!(error.to_string().contains("max_unpacked_layer"), "{error}");
    }
}
