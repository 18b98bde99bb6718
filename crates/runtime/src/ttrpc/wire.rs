//! One connection: frames out from any task, frames in to one function.

use std::io;
use std::sync::{Mutex, PoisonError};

use api::ttrpc::MAX_MESSAGE;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::decoder::{Decoder, Incoming};

/// How many bytes may wait for a peer that does not read; then the connection is given up.
const OUTBOX: usize = 8 * MAX_MESSAGE;

/// A connected stream and what could not be written to it yet.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    outbox: Mutex<Vec<u8>>,
    flush: Notify,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, outbox: Mutex::default(), flush: Notify::new() }
    }

    /// Queues a frame, or writes it at once. Never waits, so a caller that is cancelled cannot leave half a frame.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = frame;
        while outbox.is_empty() && !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        if outbox.len() + rest.len() > OUTBOX {
            return Err(io::Error::other("peer does not read"));
        }
        outbox.extend_from_slice(rest);
        self.flush.notify_one();
        Ok(())
    }

    /// Reads until the peer is gone and hands each frame to `receive`; writes what waits in between.
    pub(super) async fn run(&self, mut receive: impl FnMut(Incoming)) -> io::Result<()> {
        let mut decoder = Decoder::default();
        loop {
            let interest =
                if self.is_flushed() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = tokio::select! {
                ready = self.stream.ready(interest) => ready?,
                () = self.flush.notified() => continue,
            };
            if ready.is_writable() {
                self.write_rest()?;
            }
            if ready.is_readable() {
                if !self.read_some(&mut decoder)? {
                    return Ok(());
                }
                while let Some(incoming) = decoder.next() {
                    receive(incoming);
                }
            }
        }
    }

    fn is_flushed(&self) -> bool {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn write_rest(&self) -> io::Result<()> {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        let result = loop {
            match outbox.get(done..) {
                None | Some([]) => break Ok(()),
                Some(rest) => match self.stream.try_write(rest) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => done += written,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                    Err(e) => break Err(e),
                },
            }
        };
        outbox.drain(..done);
        if outbox.is_empty() {
            *outbox = Vec::new();
        }
        result
    }

    /// One read; false at the end of the stream.
    fn read_some(&self, decoder: &mut Decoder) -> io::Result<bool> {
        let mut buffer = [0; 8 * 1024];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(read) => {
                decoder.push(buffer.get(..read).unwrap_or_default());
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(e),
        }
    }
}
