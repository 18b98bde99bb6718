//! Compressing a stream, on several cores, always to the same bytes.
//!
//! gzip: each chunk becomes a run of deflate blocks on any free thread, with the end of the chunk before it as dictionary and
//! an empty block at its end (as pigz does), so that all of them together are one ordinary member. How many threads
//! there are changes nothing about the bytes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use types::oci::image::media;
use types::{Error, Result, ResultExt};

/// A piece of the uncompressed stream; all but the last have the same size.
pub(crate) type Chunk = Arc<Vec<u8>>;
/// Takes the compressed stream in pieces.
pub(crate) type Out<'a> = dyn FnMut(Bytes) -> io::Result<()> + Send + 'a;

/// How far back deflate looks, in bytes.
const WINDOW: usize = 32 << 10;
/// More threads than this are not worth their memory.
const MOST_THREADS: usize = 4;
/// As Go's `compress/gzip` writes it: no name, no time, no system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last block, with nothing in it.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// RFC 1952, one member.
    Gzip,
    /// RFC 8878, one frame.
    Zstd,
}

impl Encoding {
    /// That of an OCI layer; `None` of anything else, Docker's types included: upstream makes none of those.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            media::OCI_LAYER => Some(Self::Plain),
            media::OCI_LAYER_GZIP => Some(Self::Gzip),
            media::OCI_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Compresses `chunks` until there are no more.
pub(crate) fn encode(encoding: Encoding, chunks: Receiver<Chunk>, out: &mut Out<'_>) -> Result<()> {
    match encoding {
        Encoding::Plain => chunks.iter().try_for_each(|chunk| out(Bytes::from_owner(Piece(chunk))))?,
        Encoding::Zstd => zstd(chunks, out).context(|| "compress with zstd")?,
        Encoding::Gzip => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            gzip(chunks, cores.min(MOST_THREADS), out)?;
        }
    }
    Ok(())
}

/// A chunk that is handed on as it is.
struct Piece(Chunk);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn zstd(chunks: Receiver<Chunk>, out: &mut Out<'_>) -> io::Result<()> {
    struct Pieces<'a, 'b>(&'a mut Out<'b>);
    impl Write for Pieces<'_, '_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)(Bytes::copy_from_slice(bytes))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut encoder = zstd::stream::write::Encoder::new(Pieces(out), zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    for chunk in chunks {
        encoder.write_all(&chunk)?;
    }
    encoder.finish().map(drop)
}

/// A chunk to be deflated.
struct Job {
    chunk: Chunk,
    before: Option<Chunk>,
    done: SyncSender<Result<Packed>>,
}

struct Packed {
    bytes: Vec<u8>,
    crc: Crc,
}

fn gzip(chunks: Receiver<Chunk>, threads: usize, out: &mut Out<'_>) -> Result<()> {
    let (jobs, queue) = sync_channel::<Job>(threads);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..threads {
            let thread = thread::Builder::new().name("diff-deflate".to_owned());
            thread.spawn_scoped(scope, || deflate_all(&queue)).context(|| "start a thread")?;
        }
        let (jobs, mut crc, mut before) = (jobs, Crc::new(), None);
        let mut waiting = VecDeque::new();
        out(Bytes::from_static(&GZIP_HEADER))?;
        for chunk in chunks {
            let (done, packed) = sync_channel(1);
            let job = Job { chunk: Arc::clone(&chunk), before: before.replace(chunk), done };
            jobs.send(job).map_err(|_| crashed())?;
            waiting.push_back(packed);
            if waiting.len() > 2 * threads {
                hand_over(waiting.pop_front(), &mut crc, out)?;
            }
        }
        while !waiting.is_empty() {
            hand_over(waiting.pop_front(), &mut crc, out)?;
        }
        let trailer = [&LAST_BLOCK[..], &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat();
        Ok(out(trailer.into())?)
    })
}

fn hand_over(packed: Option<Receiver<Result<Packed>>>, crc: &mut Crc, out: &mut Out<'_>) -> Result<()> {
    let Some(packed) = packed else { return Ok(()) };
    let packed = packed.recv().map_err(|_| crashed())??;
    crc.combine(&packed.crc);
    Ok(out(packed.bytes.into())?)
}

fn crashed() -> Error {
    Error::internal("a thread that compresses crashed")
}

/// Deflates whatever comes next until nothing comes any more.
fn deflate_all(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { chunk, before, done }) = next else { return };
        // If nobody waits for it any more, nobody misses it.
        let _ = done.send(deflate_chunk(&chunk, before.as_deref()));
    }
}

fn deflate_chunk(chunk: &[u8], before: Option<&Vec<u8>>) -> Result<Packed> {
    let failed = |error| Error::internal(format!("compress with gzip: {error}"));
    // A new one for each chunk: what a reset one still knows of others shows in its output.
    let mut deflate = Compress::new(Compression::default(), false);
    if let Some(before) = before {
        let dictionary = &before[before.len().saturating_sub(WINDOW)..];
        deflate.set_dictionary(dictionary).map_err(failed)?;
    }
    // What cannot be compressed grows by less than this.
    let mut bytes = Vec::with_capacity(chunk.len() + chunk.len() / 8 + 128);
    let status = deflate.compress_vec(chunk, &mut bytes, FlushCompress::Sync).map_err(failed)?;
    if status != Status::Ok || deflate.total_in() != chunk.len() as u64 || bytes.len() == bytes.capacity() {
        return Err(Error::internal("compress with gzip: the output is larger than expected"));
    }
    let mut crc = Crc::new();
    crc.update(chunk);
    Ok(Packed { bytes, crc })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Text that compresses, and noise that does not.
    fn sample() -> Vec<Chunk> {
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let text: Vec<u8> = (0..100_000).flat_map(|_| format!("{} ", next() % 1000).into_bytes()).collect();
        let noise: Vec<u8> = (0..60_000).flat_map(|_| next().to_le_bytes()).collect();
        // Programs are what layers are made of: a compressor that carries something over shows with them.
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let all = [text, noise, vec![0; 1 << 20], program[..program.len().min(6 << 20)].to_vec()].concat();
        all.chunks(256 << 10).map(|chunk| Arc::new(chunk.to_vec())).collect()
    }

    fn send(chunks: &[Chunk]) -> Receiver<Chunk> {
        let (sender, receiver) = sync_channel(chunks.len());
        chunks.iter().for_each(|chunk| sender.send(Arc::clone(chunk)).unwrap());
        receiver
    }

    fn gzipped(chunks: &[Chunk], threads: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = |bytes: Bytes| {
            all.extend_from_slice(&bytes);
            Ok(())
        };
        gzip(send(chunks), threads, &mut out).unwrap();
        all
    }

    #[test]
    fn gzip_is_one_member_whatever_the_number_of_threads() {
        let chunks = sample();
        let plain: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let packed = gzipped(&chunks, 1);
        let mut back = Vec::new();
        // Not the decoder of several members: one must be enough.
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert!(back == plain);
        for threads in [2, 7] {
            assert!(gzipped(&chunks, threads) == packed);
        }
        let mut serial = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        serial.write_all(&plain).unwrap();
        let serial = serial.finish().unwrap();
        assert!(packed.len() < serial.len() * 101 / 100, "{} {}", packed.len(), serial.len());
        assert_eq!(gzipped(&[], 2).len(), 20);
    }

    #[test]
    fn who_takes_no_more_ends_the_work() {
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
            let failed = encode(encoding, send(&sample()), &mut |_| Err(io::Error::other("enough")));
            assert!(failed.unwrap_err().to_string().contains("enough"), "{encoding:?}");
        }
    }
}
