//! One stream of a connection: what comes from the client, and what goes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use types::{Error, Result};

use super::Speaker;
use crate::streaming::spdy::{self, Headers, encode};
use crate::streaming::websocket;

/// Bytes, and the room that they take.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The reader's end of an [`Inbound`].
#[derive(Debug)]
pub struct Sender(mpsc::UnboundedSender<Chunk>);

impl Sender {
    /// Puts bytes for which there is room.
    pub(super) fn put(&self, bytes: Bytes, room: OwnedSemaphorePermit) {
        // Nobody wants them: they are gone, and so is the room that they took.
        drop(self.0.send(Chunk { bytes, _room: room }));
    }

    /// Whether nobody takes anything any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until nobody takes anything any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// What comes from the client. What is not taken once this is dropped is thrown away.
#[derive(Debug)]
pub struct Inbound(mpsc::UnboundedReceiver<Chunk>);

impl Inbound {
    /// How much there can be is limited by the connection's room.
    pub(super) fn new() -> (Sender, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Sender(sender), Self(receiver))
    }

    /// The next bytes; none when the client has ended the stream, or is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        Some(self.0.recv().await?.bytes)
    }
}

/// How a stream is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    /// By number.
    Spdy(u32),
    /// By channel.
    Channel(websocket::Codec, u8),
}

/// What goes to the client.
#[derive(Debug)]
pub struct Outbound {
    speaker: Speaker,
    address: Address,
    reset: Arc<AtomicBool>,
}

impl Outbound {
    pub(super) fn new(speaker: Speaker, address: Address, reset: Arc<AtomicBool>) -> Self {
        Self { speaker, address, reset }
    }

    /// Tells, also later, whether the client has reset the stream.
    pub fn reset_mark(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reset)
    }

    /// Sends bytes, an empty message if there are none. Fails if the client is gone, or does not want the stream any more. Not
    /// cancel safe: they may be sent or not.
    pub async fn send(&self, bytes: Bytes) -> Result<()> {
        if self.reset.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the client has reset the stream"));
        }
        match self.address {
            Address::Spdy(stream) => {
                self.speaker.say(encode::data(stream, bytes.len(), false).to_vec(), bytes).await
            }
            Address::Channel(codec, number) => {
                let (opcode, number, bytes) = websocket::encode(codec, number, bytes);
                let head = [&websocket::head(opcode, bytes.len() + 1)[..], &[number]].concat();
                self.speaker.say(head, bytes).await
            }
        }
    }

    /// Says that nothing more will come. A channel of a WebSocket has no word for that.
    pub async fn finish(self) {
        if let Address::Spdy(stream) = self.address
            && !self.reset.load(Ordering::Relaxed)
        {
            // Who is gone need not know.
            drop(self.speaker.say(encode::data(stream, 0, true).to_vec(), Bytes::new()).await);
        }
    }

    /// Ends the stream in both directions, if that can be said.
    pub async fn reset(self) {
        if let Address::Spdy(stream) = self.address
            && !self.reset.load(Ordering::Relaxed)
        {
            drop(self.speaker.say(encode::reset(stream, spdy::Reset::Cancel), Bytes::new()).await);
        }
    }
}

/// Both directions, and what the client has said that they are for.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    /// From the client.
    pub input: Inbound,
    /// To the client.
    pub output: Outbound,
}
