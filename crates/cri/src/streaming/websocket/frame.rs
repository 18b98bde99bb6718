//! Frames.
//!
//! ```text
//!  fin|0|0|0|opcode (4)    mask|length (7)    more length (0, 16 or 64)    masking key (32)    payload
//! ```

use bytes::{Buf, Bytes, BytesMut};
use types::{Error, Result};

/// The longest head that we write.
const MOST: usize = 10;
/// Control frames are small.
const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A message of text, or its first part.
    Text = 1,
    /// A message of bytes, or its first part.
    Binary = 2,
    /// The last frame.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

/// What the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message: messages may come in several frames, and frames in several pieces.
    Data {
        /// Whether it is the first piece of a message.
        first: bool,
        /// Whether it is the last one.
        last: bool,
        /// The bytes, without the mask.
        bytes: Bytes,
    },
    /// Wants these bytes back.
    Ping(Bytes),
    /// There will be nothing more.
    Close,
}

/// The rest of a data frame of which some is still to come.
#[derive(Clone, Copy, Debug)]
struct Rest {
    left: u64,
    key: [u8; 4],
    first: bool,
    last: bool,
}

/// Reads what a client sends.
#[derive(Debug, Default)]
pub struct Decoder {
    /// A message has begun, and the frame that was its last one has not come yet.
    open: bool,
    rest: Option<Rest>,
}

/// A frame's head.
struct Head {
    fin: bool,
    opcode: u8,
    key: [u8; 4],
    length: u64,
    size: usize,
}

impl Decoder {
    /// The next event in `buffer`, or none before more bytes are there. An error is the connection's end.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>> {
        loop {
            if let Some(rest) = self.rest {
                return Ok(self.piece(rest, buffer));
            }
            let Some(head) = parse(buffer)? else { return Ok(None) };
            if head.opcode < 8 {
                buffer.advance(head.size);
                let first = !self.open;
                if first == (head.opcode == 0) {
                    return Err(Error::invalid("websocket message in the midst of another"));
                }
                self.open = !head.fin;
                self.rest = Some(Rest { left: head.length, key: head.key, first, last: head.fin });
                continue;
            }
            // Known to be small.
            let whole = head.size + head.length as usize;
            if buffer.len() < whole {
                return Ok(None);
            }
            buffer.advance(head.size);
            let mut payload = buffer.split_to(whole - head.size);
            unmask(&mut payload, head.key);
            match head.opcode {
                8 => return Ok(Some(Event::Close)),
                9 => return Ok(Some(Event::Ping(payload.freeze()))),
                _ => {}
            }
        }
    }

    fn piece(&mut self, rest: Rest, buffer: &mut BytesMut) -> Option<Event> {
        if rest.left > 0 && buffer.is_empty() {
            return None;
        }
        let length = usize::try_from(rest.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut bytes = buffer.split_to(length);
        unmask(&mut bytes, rest.key);
        let mut key = rest.key;
        key.rotate_left(length % 4);
        let left = rest.left - length as u64;
        self.rest = (left > 0).then_some(Rest { left, key, first: false, last: rest.last });
        Some(Event::Data { first: rest.first, last: rest.last && left == 0, bytes: bytes.freeze() })
    }
}

/// The head of the frame in `bytes`, if it is there already.
fn parse(bytes: &[u8]) -> Result<Option<Head>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) {
        return Err(Error::invalid("websocket frame of an unknown kind"));
    }
    if second & 0x80 == 0 {
        return Err(Error::invalid("websocket frame of a client without a mask"));
    }
    let (length, more) = match second & 0x7f {
        126 => match rest.first_chunk() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 8),
            None => return Ok(None),
        },
        length => (u64::from(length), 0),
    };
    if length > i64::MAX as u64 || (opcode >= 8 && (length > MAX_CONTROL as u64 || !fin)) {
        return Err(Error::invalid("websocket frame is too large"));
    }
    let Some(key) = rest[more..].first_chunk() else { return Ok(None) };
    Ok(Some(Head { fin, opcode, key: *key, length, size: 2 + more + 4 }))
}

fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(key) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(key) {
        *byte ^= mask;
    }
}

/// In front of a message of `length` bytes.
pub fn head(opcode: Opcode, length: usize) -> Bytes {
    let mut head = [0; MOST];
    head[0] = 0x80 | opcode as u8;
    let size = match length {
        0..126 => {
            head[1] = length as u8;
            2
        }
        126..65536 => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
            MOST
        }
    };
    Bytes::copy_from_slice(&head[..size])
}

/// The last frame.
pub fn close(code: u16) -> Vec<u8> {
    [&head(Opcode::Close, 2)[..], &code.to_be_bytes()].concat()
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    [&head(Opcode::Pong, payload.len()), payload].concat()
}

#[cfg(test)]
pub(in crate::streaming) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as clients send it.
    pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = head(Opcode::Binary, payload.len()).to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        let key = [7, 0xff, 0, 0x5a];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Takes a whole frame of a server from `buffer`: its opcode and its payload.
    pub fn unframe(buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
        let (length, size) = match *buffer.get(1)? {
            126 => (u64::from(u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?), 10),
            length => (u64::from(length), 2),
        };
        let length = usize::try_from(length).unwrap();
        if buffer.len() < size + length {
            return None;
        }
        let opcode = buffer.split_to(size)[0] & 0x0f;
        Some((opcode, buffer.split_to(length).freeze()))
    }

    /// The messages in `bytes`, given in pieces of `step` bytes, and how many control frames there were.
    fn messages(bytes: &[u8], step: usize) -> Result<(Vec<Vec<u8>>, usize)> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let (mut messages, mut control) = (Vec::<Vec<u8>>::new(), 0);
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(event) = decoder.next(&mut buffer)? {
                match event {
                    Event::Data { first: true, bytes, .. } => messages.push(bytes.to_vec()),
                    Event::Data { bytes, .. } => messages.last_mut().unwrap().extend(bytes),
                    Event::Ping(_) | Event::Close => control += 1,
                }
            }
        }
        Ok((messages, control))
    }

    #[test]
    fn messages_are_read_however_they_arrive() {
        let long = vec![b'x'; 70_000];
        let mut bytes = masked(0x82, b"one");
        bytes.extend(masked(0x02, b"t"));
        bytes.extend(masked(0x89, b"are you there"));
        bytes.extend(masked(0x00, b"w"));
        bytes.extend(masked(0x80, b"o"));
        bytes.extend(masked(0x81, &long));
        bytes.extend(masked(0x82, b""));
        bytes.extend(masked(0x8a, b""));
        bytes.extend(masked(0x88, &[3, 0xe8]));
        for step in [1, 3, 4096, bytes.len()] {
            let (messages, control) = messages(&bytes, step).unwrap();
            assert_eq!(messages, [b"one".to_vec(), b"two".to_vec(), long.clone(), Vec::new()]);
            assert_eq!(control, 2);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut huge = masked(0x82, &[0; 70_000]);
        huge[2] = 0xff;
        for bytes in [
            huge,
            // Without a mask; of an unknown kind; a control frame in parts; a large one; a message in another; the rest of none.
            vec![0x82, 1, 0],
            masked(0xc2, b""),
            masked(0x83, b""),
            masked(0x09, b""),
            masked(0x89, &[0; 126]),
            [masked(0x02, b"a"), masked(0x82, b"b")].concat(),
            masked(0x80, b"a"),
        ] {
            assert!(messages(&bytes, 1).is_err(), "{:?}", &bytes[..2]);
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>, step in 1..9_usize) {
            let _ = messages(&noise, step);
        }

        #[test]
        fn what_is_written_is_read(payload: Vec<u8>, step in 1..9_usize) {
            prop_assert_eq!(messages(&masked(0x82, &payload), step).unwrap().0, [payload]);
        }
    }
}
