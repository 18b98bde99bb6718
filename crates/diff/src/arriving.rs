//! A layer that is extracted while it arrives.
//!
//! ```text
//!  Sender --Bytes--> Arriving (a source that blocks) -> pipeline -> Target
//! ```
//!
//! Who sends knows when the layer is complete and says so by [`Sender::end`]. A sender that is just dropped has given up,
//! and the extraction fails: an end that is not one must not look like it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;
use types::mount::Mount;
use types::{Class, Error};

use crate::blob::{BlobReader, INPUT};
use crate::compression::Wrapping;
use crate::extract::{Later, Stop, Target, extract};
use crate::pipeline::{self, Passed, Room};
use crate::{stack, tar};

/// So many pieces may wait: some hundred kilobytes of what a connection delivers.
const AHEAD: usize = 8;

enum Piece {
    Bytes(Bytes),
    End,
}

/// Where the pieces of a layer go.
pub struct Sender(mpsc::Sender<Piece>);

impl Sender {
    /// Hands a piece on, as soon as there is room. `false` if nobody wants it any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        bytes.is_empty() || self.0.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// The layer is complete.
    pub async fn end(self) {
        // Nobody listens if the extraction has ended before, and then has told why.
        let _ = self.0.send(Piece::End).await;
    }
}

/// Where the bytes of a layer come from.
pub struct Arriving {
    source: Box<dyn BufRead + Send>,
    taken: Arc<AtomicU64>,
}

impl Arriving {
    /// Bytes that are sent.
    pub fn channel() -> (Sender, Self) {
        let (sender, pieces) = mpsc::channel(AHEAD);
        (Sender(sender), Self::of(Pieces { pieces, current: Bytes::new(), ended: false }))
    }

    fn of(source: impl BufRead + Send + 'static) -> Self {
        Self { source: Box::new(source), taken: Arc::default() }
    }

    /// How many bytes the extraction has taken.
    pub fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    /// The first `len` bytes of `file`, then the others.
    pub fn after(self, file: File, len: u64) -> Self {
        Self::of(BufReader::with_capacity(INPUT, Exactly { file, left: len }).chain(self.source))
    }

    /// The bytes of a blob that is there.
    pub fn of_blob(blob: BlobReader) -> Self {
        Self::of(blob.buffered())
    }
}

impl BufRead for Arriving {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        self.source.consume(count);
    }
}

impl Read for Arriving {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buf)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::other(Error::new(Class::Canceled, "canceled"))),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count.min(self.current.len()));
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buf)?;
        self.consume(count);
        Ok(count)
    }
}

/// A file of which so many bytes must be there.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let count = self.file.read(&mut buf[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The directory of a snapshot that was prepared on nothing, where its mounts are no more than that directory.
pub fn directory(mounts: &[Mount]) -> Option<PathBuf> {
    stack::bind(mounts).filter(|bind| !bind.read_only).map(|bind| bind.source)
}

/// The directories that are stacked in a view, topmost first, where its mounts are no more than those.
pub fn directories(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    stack::dirs(mounts)
}

/// Whether layers can be extracted here before those below them are there.
pub fn can_rebase() -> bool {
    !crate::extract::in_user_namespace()
}

/// Extracts a layer. Blocks until it is complete, has failed, or `cancel` is set.
pub fn unpack(
    layer: Arriving,
    wrapping: Wrapping,
    target: Target,
    room: Option<Room>,
    cancel: &AtomicBool,
) -> Result<(Later, Passed), Stop> {
    let room = room.map_or_else(|| Room::free(target.dir()), Ok)?;
    pipeline::run(layer, wrapping, room, |stream| extract(&mut tar::Reader::new(stream), target, cancel))
}
