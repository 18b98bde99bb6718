//! The reader of SPDY, over the socket or in messages of a WebSocket.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use types::Result;

use super::stream::{Address, Sender};
use super::{Connection, Inbound, Message, Outbound, Parts, Protocol, Source, Speaker, Stream, Upgraded};
use crate::streaming::spdy::{Decoder, Event, Headers, Reset, encode};
use crate::streaming::websocket;

/// More streams than this at once are refused.
const MAX_STREAMS: usize = 4096;
/// How many new streams may wait to be taken.
const WAITING: usize = 16;

/// Says whether a stream with such headers can be.
pub type Accept = fn(&Headers) -> Result<()>;

/// A stream from which something may still come.
struct Entry {
    sender: Sender,
    reset: Arc<AtomicBool>,
}

struct Reader {
    source: Source,
    speaker: Speaker,
    accept: Accept,
    incoming: mpsc::Sender<Stream>,
    streams: HashMap<u32, Entry>,
    /// The lowest number that a new stream can have.
    next: u32,
    /// Whether a stream was accepted already.
    replied: bool,
}

impl Connection {
    /// Speaks SPDY; new streams come in the order in which the client opens them. When they are not taken any more, they are
    /// refused.
    pub fn spdy(upgraded: Upgraded, tunnel: bool, accept: Accept) -> Result<(Self, mpsc::Receiver<Stream>)> {
        let Parts { mut connection, source, teller } = Self::start(upgraded, Protocol::Spdy, tunnel)?;
        let (incoming, streams) = mpsc::channel(WAITING);
        let speaker = connection.speaker.clone();
        let mut reader =
            Reader { source, speaker, accept, incoming, streams: HashMap::new(), next: 1, replied: false };
        connection.tasks.spawn(async move {
            let ended = if tunnel { reader.tunnelled().await } else { reader.plain().await };
            if let Err(error) = ended {
                tracing::debug!(%error, "read from a streaming client");
            }
            teller.send_replace(true);
        });
        Ok((connection, streams))
    }
}

impl Reader {
    async fn plain(&mut self) -> Result<()> {
        let mut decoder = Decoder::default();
        loop {
            let mut buffer = std::mem::take(&mut self.source.buffer);
            let end = self.events(&mut decoder, &mut buffer).await?;
            self.source.buffer = buffer;
            if end || !self.source.more().await? {
                return Ok(());
            }
        }
    }

    /// The same inside of a WebSocket's messages.
    async fn tunnelled(&mut self) -> Result<()> {
        let (mut outer, mut decoder, mut buffer) =
            (websocket::Decoder::default(), Decoder::default(), BytesMut::new());
        loop {
            while let Some(event) = outer.next(&mut self.source.buffer)? {
                match event {
                    websocket::Event::Data { bytes, .. } => {
                        buffer.extend_from_slice(&bytes);
                        if self.events(&mut decoder, &mut buffer).await? {
                            return Ok(());
                        }
                    }
                    websocket::Event::Ping(payload) => {
                        let head = websocket::pong(&payload);
                        self.speaker.put(Message { head, body: Bytes::new(), last: false }).await?;
                    }
                    websocket::Event::Close => return Ok(()),
                }
            }
            if !self.source.more().await? {
                return Ok(());
            }
        }
    }

    /// Handles what is in `buffer`; true at the client's last word.
    async fn events(&mut self, decoder: &mut Decoder, buffer: &mut BytesMut) -> Result<bool> {
        while let Some(event) = decoder.next(buffer)? {
            match event {
                Event::Open { stream, headers, finished } => self.open(stream, headers, finished).await?,
                Event::Data { stream, bytes, finished } => {
                    if let Some(entry) = self.streams.get(&stream) {
                        self.source.give(&entry.sender, bytes).await?;
                        if finished {
                            self.streams.remove(&stream);
                        }
                    }
                }
                Event::Headers { stream, finished: true } => {
                    self.streams.remove(&stream);
                }
                Event::Reset { stream } => {
                    if let Some(entry) = self.streams.remove(&stream) {
                        entry.reset.store(true, Ordering::Relaxed);
                    }
                }
                Event::Ping { id } if !id.is_multiple_of(2) => {
                    self.speaker.say(encode::ping(id), Bytes::new()).await?
                }
                Event::GoAway => return Ok(true),
                Event::Headers { .. } | Event::Ping { .. } | Event::Reply { .. } => {}
            }
        }
        Ok(false)
    }

    async fn open(&mut self, id: u32, headers: Headers, finished: bool) -> Result<()> {
        if self.streams.len() >= MAX_STREAMS {
            self.streams.retain(|_, entry| !entry.sender.is_closed());
        }
        let why = if id < self.next || id.is_multiple_of(2) {
            Some(Reset::Protocol)
        } else if self.streams.len() >= MAX_STREAMS {
            Some(Reset::Refused)
        } else if let Err(error) = (self.accept)(&headers) {
            tracing::debug!(%error, "stream rejected");
            Some(Reset::Cancel)
        } else {
            None
        };
        self.next = self.next.max(id.saturating_add(1));
        if let Some(why) = why {
            return self.speaker.say(encode::reset(id, why), Bytes::new()).await;
        }
        let (sender, input) = Inbound::new();
        let reset = Arc::new(AtomicBool::new(false));
        let output = Outbound::new(self.speaker.clone(), Address::Spdy(id), Arc::clone(&reset));
        self.speaker.say(encode::reply(id, !self.replied), Bytes::new()).await?;
        self.replied = true;
        match self.incoming.send(Stream { id, headers, input, output }).await {
            Ok(()) if finished => Ok(()),
            Ok(()) => {
                self.streams.insert(id, Entry { sender, reset });
                Ok(())
            }
            // Nobody takes streams any more.
            Err(_) => self.speaker.say(encode::reset(id, Reset::Refused), Bytes::new()).await,
        }
    }
}
