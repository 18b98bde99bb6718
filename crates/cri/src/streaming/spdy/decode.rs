//! Frames that we read.

use bytes::{Buf, Bytes, BytesMut};
use types::{Error, Result};

use super::encode::HEAD;
use super::headers::{Headers, Inflater};
use super::{
    FIN, GOAWAY, HEADERS, MAX_CONTROL, PING, RST_STREAM, SETTINGS, SYN_REPLY, SYN_STREAM, VERSION,
    WINDOW_UPDATE,
};

/// What the other side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a new stream.
    Open {
        /// Its number.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// Whether nothing comes in it.
        finished: bool,
    },
    /// A stream of ours was accepted.
    Reply {
        /// Which.
        stream: u32,
    },
    /// A piece of a stream.
    Data {
        /// Which.
        stream: u32,
        /// As much as is there already: a frame may come as several pieces.
        bytes: Bytes,
        /// Whether it was the last one.
        finished: bool,
    },
    /// A stream is over, in both directions.
    Reset {
        /// Which.
        stream: u32,
    },
    /// More headers of a stream, which mean nothing to us.
    Headers {
        /// Which.
        stream: u32,
        /// Whether nothing comes any more.
        finished: bool,
    },
    /// Somebody wants an answer.
    Ping {
        /// Whose: odd numbers are the client's.
        id: u32,
    },
    /// There will be no more streams.
    GoAway,
}

/// The rest of a data frame of which some is still to come.
#[derive(Clone, Copy, Debug)]
struct Rest {
    stream: u32,
    left: usize,
    finished: bool,
}

/// Reads frames of one direction of a connection.
#[derive(Debug, Default)]
pub struct Decoder {
    inflater: Inflater,
    rest: Option<Rest>,
}

impl Decoder {
    /// The next event in `buffer`, or none before more bytes are there. An error is the connection's end.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>> {
        loop {
            if let Some(rest) = self.rest {
                return Ok(self.piece(rest, buffer));
            }
            let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = *head;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            let first = u32::from_be_bytes([a, b, c, d]);
            if first & 0x8000_0000 == 0 {
                buffer.advance(HEAD);
                if first == 0 {
                    return Err(Error::invalid("stream id zero is disallowed"));
                }
                self.rest = Some(Rest { stream: first, left: length, finished: flags & FIN != 0 });
                continue;
            }
            if length > MAX_CONTROL {
                return Err(Error::invalid("control frame is too large"));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let payload = buffer.split_to(length);
            if (first >> 16) as u16 & 0x7fff != VERSION {
                return Err(Error::invalid("this is not SPDY/3"));
            }
            if let Some(event) = self.control(first as u16, flags, &payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn piece(&mut self, rest: Rest, buffer: &mut BytesMut) -> Option<Event> {
        if rest.left > 0 && buffer.is_empty() {
            return None;
        }
        let bytes = buffer.split_to(rest.left.min(buffer.len())).freeze();
        let left = rest.left - bytes.len();
        self.rest = (left > 0).then_some(Rest { left, ..rest });
        Some(Event::Data { stream: rest.stream, bytes, finished: rest.finished && left == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: &[u8]) -> Result<Option<Event>> {
        let finished = flags & FIN != 0;
        let event = match kind {
            SYN_STREAM => {
                let stream = id(&mut payload)?;
                // Another stream that this one belongs to, a priority, and a slot for certificates.
                let block = payload.get(6..).ok_or_else(short)?;
                Event::Open { stream, headers: self.inflater.headers(block)?, finished }
            }
            SYN_REPLY => {
                let stream = id(&mut payload)?;
                self.inflater.headers(payload)?;
                Event::Reply { stream }
            }
            HEADERS => {
                let stream = id(&mut payload)?;
                self.inflater.headers(payload)?;
                Event::Headers { stream, finished }
            }
            RST_STREAM => {
                let stream = id(&mut payload)?;
                whole(payload.len(), 4)?;
                Event::Reset { stream }
            }
            PING => {
                let id = id(&mut payload)?;
                whole(payload.len(), 0)?;
                Event::Ping { id }
            }
            GOAWAY => {
                whole(payload.len(), 8)?;
                Event::GoAway
            }
            SETTINGS | WINDOW_UPDATE => return Ok(None),
            _ => return Err(Error::invalid(format!("control frame of an unknown type {kind}"))),
        };
        Ok(Some(event))
    }
}

/// A number that is not zero.
fn id(payload: &mut &[u8]) -> Result<u32> {
    let (number, rest) = payload.split_first_chunk().ok_or_else(short)?;
    *payload = rest;
    match u32::from_be_bytes(*number) & 0x7fff_ffff {
        0 => Err(Error::invalid("stream id zero is disallowed")),
        number => Ok(number),
    }
}

fn whole(length: usize, expected: usize) -> Result<()> {
    if length == expected { Ok(()) } else { Err(Error::invalid("control frame of a wrong length")) }
}

fn short() -> Error {
    Error::invalid("control frame ends too early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::headers::tests::Deflater;
    use super::super::{Reset, encode};
    use super::*;

    fn open(deflater: &mut Deflater, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = deflater.headers(headers);
        encode::control(SYN_STREAM, &[&stream.to_be_bytes()[..], &[0; 6], &block].concat())
    }

    /// All events of `bytes`, given in pieces of `step` bytes, pieces of one frame put together again.
    fn events(bytes: &[u8], step: usize) -> Result<Vec<Event>> {
        let (mut decoder, mut buffer, mut events) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(event) = decoder.next(&mut buffer)? {
                match (events.last_mut(), event) {
                    (
                        Some(Event::Data { stream: last, bytes: known, finished: done }),
                        Event::Data { stream, bytes, finished },
                    ) if *last == stream && !*done => {
                        *known = [known.as_ref(), bytes.as_ref()].concat().into();
                        *done = finished;
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        Ok(events)
    }

    #[test]
    fn frames_are_read_however_they_arrive() {
        let mut deflater = Deflater::new();
        let mut bytes = open(&mut deflater, 1, &[("streamtype", "error")]);
        bytes.extend(open(&mut deflater, 3, &[("streamtype", "stdin")]));
        bytes.extend(encode::control(WINDOW_UPDATE, &[0; 8]));
        bytes.extend(encode::control(SETTINGS, &[0xff; 4]));
        bytes.extend(encode::data(3, 5, true));
        bytes.extend(b"hello");
        bytes.extend(encode::data(1, 0, true));
        bytes.extend(encode::ping(7));
        bytes.extend(encode::reset(3, Reset::Cancel));
        bytes.extend(encode::go_away(3));
        for step in [1, 2, 7, bytes.len()] {
            let read = events(&bytes, step).unwrap();
            assert!(matches!(&read[1], Event::Open { stream: 3, headers, finished: false }
                if headers.get("streamtype") == "stdin"));
            let hello = Event::Data { stream: 3, bytes: Bytes::from_static(b"hello"), finished: true };
            let end = Event::Data { stream: 1, bytes: Bytes::new(), finished: true };
            assert_eq!(
                read[2..],
                [hello, end, Event::Ping { id: 7 }, Event::Reset { stream: 3 }, Event::GoAway]
            );
        }
    }

    #[test]
    fn a_large_data_frame_is_given_out_before_it_is_whole() {
        let mut buffer = BytesMut::from(&encode::data(1, 16 << 20, false)[..]);
        buffer[4..].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        buffer.extend_from_slice(b"first");
        let mut decoder = Decoder::default();
        let first = Event::Data { stream: 1, bytes: Bytes::from_static(b"first"), finished: false };
        assert_eq!(decoder.next(&mut buffer).unwrap(), Some(first));
        assert_eq!(decoder.next(&mut buffer).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bytes in [
            // Another version, a type that there is not, sixteen megabytes of settings, stream zero.
            [0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1].to_vec(),
            encode::control(5, &[]),
            [0x80, 3, 0, 4, 0, 0xff, 0xff, 0xff].to_vec(),
            [0; 8].to_vec(),
            encode::ping(0),
            encode::control(SYN_STREAM, &[0, 0, 0, 1]),
            encode::control(RST_STREAM, &[0, 0, 0, 1]),
            encode::control(GOAWAY, &[]),
        ] {
            assert!(events(&bytes, 1).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>, step in 1..9_usize) {
            let _ = events(&noise, step);
        }

        #[test]
        fn noise_in_control_frames_never_panics(kind in 0..12_u16, noise: Vec<u8>) {
            let _ = events(&encode::control(kind, &noise), 64);
        }
    }
}
