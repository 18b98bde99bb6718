//! The reader of channels in a WebSocket's messages.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use types::Result;

use super::stream::{Address, Sender};
use super::{Connection, Inbound, Message, Outbound, Parts, Protocol, Source, Speaker, Stream, Upgraded};
use crate::streaming::spdy::Headers;
use crate::streaming::websocket::{Channels, Codec, Decoder, Event, Piece, pong};

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the client, or nowhere: what comes in it is thrown away.
    Out,
    /// From the client, or both ways.
    In,
}

impl Connection {
    /// Has channels of these directions, by their numbers.
    pub fn channels(
        upgraded: Upgraded,
        codec: Codec,
        directions: &[Direction],
    ) -> Result<(Self, Vec<Stream>)> {
        let Parts { mut connection, source, teller } = Self::start(upgraded, Protocol::Channels, false)?;
        let (mut senders, mut streams) = (Vec::new(), Vec::new());
        for (number, direction) in (0_u8..).zip(directions) {
            let (sender, input) = Inbound::new();
            senders.push((*direction == Direction::In).then_some(sender));
            let reset = Arc::new(AtomicBool::new(false));
            let output = Outbound::new(connection.speaker.clone(), Address::Channel(codec, number), reset);
            streams.push(Stream { id: u32::from(number), headers: Headers::default(), input, output });
        }
        let speaker = connection.speaker.clone();
        let mut reader = Reader { source, speaker, channels: Channels::new(codec), senders };
        connection.tasks.spawn(async move {
            if let Err(error) = reader.run().await {
                tracing::debug!(%error, "read from a streaming client");
            }
            teller.send_replace(true);
        });
        Ok((connection, streams))
    }
}

struct Reader {
    source: Source,
    speaker: Speaker,
    channels: Channels,
    /// By number; none for channels from which nothing comes any more.
    senders: Vec<Option<Sender>>,
}

impl Reader {
    async fn run(&mut self) -> Result<()> {
        let mut decoder = Decoder::default();
        loop {
            while let Some(event) = decoder.next(&mut self.source.buffer)? {
                match event {
                    Event::Data { bytes, last, .. } => self.piece(bytes, last).await?,
                    Event::Ping(payload) => {
                        let head = pong(&payload);
                        self.speaker.put(Message { head, body: Bytes::new(), last: false }).await?;
                    }
                    Event::Close => return Ok(()),
                }
            }
            if !self.source.more().await? {
                return Ok(());
            }
        }
    }

    async fn piece(&mut self, bytes: Bytes, last: bool) -> Result<()> {
        match self.channels.piece(bytes, last)? {
            Piece::Data(number, bytes) => {
                if let Some(Some(sender)) = self.senders.get(usize::from(number)) {
                    self.source.give(sender, bytes).await?;
                }
            }
            Piece::End(number) => {
                if let Some(sender) = self.senders.get_mut(usize::from(number)) {
                    *sender = None;
                }
            }
            Piece::Nothing => {}
        }
        Ok(())
    }
}
