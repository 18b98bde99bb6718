//! Bytes over streams of messages: `Data` one way, `WindowUpdate` the other, so that no more is on its way than somebody has
//! room for.

use std::io::{self, Read};
use std::time::Duration;

use api::any;
use api::containerd::types::transfer::{Data, WindowUpdate};
use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use images::export::Output;
use tokio::sync::mpsc;
use types::{Error, Result};

use super::Gone;
use crate::services::streaming::Stream;

/// How many bytes a sender may be ahead of us. Upstream's window is 64 KiB, which costs an answer a message.
const WINDOW: i64 = 1 << 20;
/// Messages that may wait for who reads them.
const AHEAD: usize = 4;
/// What a client of upstream's has always granted once it has read everything.
const UPSTREAMS_WINDOW: i64 = 64 << 10;
/// How long the end of a stream waits for the client to have read it.
const SETTLING: Duration = Duration::from_secs(1);
/// The most bytes in a message.
const PIECE: usize = 256 << 10;

/// The bytes that a client sends, for a thread that may block.
pub struct ByteReader {
    pieces: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
}

impl ByteReader {
    /// Reads from `stream` until the client closes it. It is an error if the caller goes before that.
    pub fn new(stream: Stream, gone: Gone) -> Self {
        let (sender, pieces) = mpsc::channel(AHEAD);
        tokio::spawn(receive(stream, gone, sender));
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for ByteReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

/// Hands on what comes, and grants more as it is taken.
async fn receive(mut stream: Stream, mut gone: Gone, out: mpsc::Sender<Result<Bytes>>) {
    let mut window = 0;
    loop {
        let piece = gone.or(next(&mut stream, &mut window)).await.transpose();
        let Some(piece) = piece else { return };
        let failed = piece.is_err();
        if out.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// The next bytes, `None` at the end.
async fn next(stream: &mut Stream, window: &mut i64) -> Result<Option<Bytes>> {
    if *window <= WINDOW / 2 {
        let update = i32::try_from(WINDOW - *window).unwrap_or(i32::MAX);
        let update = any::to_wire(any::pack(&WindowUpdate { update }));
        // A client that has sent everything may be gone already.
        if stream.sender.send(Ok(update)).await.is_ok() {
            *window = WINDOW;
        }
    }
    let Some(message) = stream.received.message().await.map_err(broken)? else { return Ok(None) };
    let Data { data } = any::unpack(&any::from_wire(message))?;
    *window -= i64::try_from(data.len()).unwrap_or(i64::MAX);
    Ok(Some(data))
}

fn broken(status: tonic::Status) -> Error {
    Error::new(types::Class::Canceled, format!("the client's stream broke: {}", status.message()))
}

/// Bytes to a client.
pub struct ByteWriter {
    stream: Stream,
    /// How many more it has room for.
    room: i64,
}

impl ByteWriter {
    /// Writes to `stream`.
    pub fn new(stream: Stream) -> Self {
        Self { stream, room: 0 }
    }

    async fn grant(&mut self) -> Result<()> {
        let message = self.stream.received.message().await.map_err(broken)?;
        let message = message.ok_or_else(|| Error::unavailable("the client takes no more"))?;
        let WindowUpdate { update } = any::unpack(&any::from_wire(message))?;
        self.room += i64::from(update.max(0));
        Ok(())
    }

    /// Ends the stream, when the client has read what was written, as far as its window tells: a client of upstream's ends
    /// with the transfer, whether or not it has.
    pub async fn finish(mut self) {
        let settled = async { while self.room < UPSTREAMS_WINDOW && self.grant().await.is_ok() {} };
        // Others may count in another way; then a moment must be enough.
        drop(tokio::time::timeout(SETTLING, settled).await);
    }
}

#[async_trait]
impl Output for ByteWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            while self.room <= 0 {
                self.grant().await?;
            }
            let room = usize::try_from(self.room).unwrap_or(usize::MAX);
            let data = bytes.split_to(bytes.len().min(room).min(PIECE));
            self.room -= i64::try_from(data.len()).unwrap_or(i64::MAX);
            let message = any::to_wire(any::pack(&Data { data }));
            let sent = self.stream.sender.send(Ok(message)).await;
            sent.map_err(|_| Error::unavailable("the client takes no more"))?;
        }
        Ok(())
    }
}

/// Hands the bytes of one stream to another.
pub async fn echo(mut from: Stream, to: Stream, mut gone: Gone) -> Result<()> {
    let (mut to, mut window) = (ByteWriter::new(to), 0);
    while let Some(piece) = gone.or(next(&mut from, &mut window)).await? {
        gone.or(to.write(piece)).await?;
    }
    to.finish().await;
    Ok(())
}
