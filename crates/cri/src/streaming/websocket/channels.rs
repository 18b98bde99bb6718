//! Kubernetes' `channel.k8s.io` protocols: the first byte of a message is a channel's number, the rest belongs to that
//! channel. With base64 the number is a digit, and the rest is encoded. From version 5 on, `[255, n]` ends channel n.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use types::{Error, Result};

use super::frame::Opcode;

/// The number of no channel: the one that follows is at its end.
const CLOSE: u8 = 255;

/// How channels are written into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Binary,
    /// As they are; a client can end a channel.
    Closing,
    /// As text.
    Base64,
}

/// What a piece of a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A channel goes on.
    Data(u8, Bytes),
    /// A channel has ended.
    End(u8),
    /// Nothing.
    Nothing,
}

/// Where we are in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before its first byte.
    #[default]
    Beginning,
    /// In what belongs to a channel.
    Channel(u8),
    /// Before the number of a channel that has ended.
    Closing,
    /// Behind that number.
    Closed,
}

/// Reads messages, which come in pieces.
#[derive(Debug)]
pub struct Channels {
    codec: Codec,
    place: Place,
    /// Characters of base64 of which some others are still to come.
    text: BytesMut,
}

impl Channels {
    /// Before the first message.
    pub fn new(codec: Codec) -> Self {
        Self { codec, place: Place::default(), text: BytesMut::new() }
    }

    /// Reads a piece of a message, which is the last one of it if `last`.
    pub fn piece(&mut self, mut bytes: Bytes, last: bool) -> Result<Piece> {
        if self.place == Place::Beginning && !bytes.is_empty() {
            let number = bytes.split_to(1)[0];
            self.place = match self.codec {
                Codec::Closing if number == CLOSE => Place::Closing,
                Codec::Base64 => Place::Channel(number.wrapping_sub(b'0')),
                _ => Place::Channel(number),
            };
        }
        let piece = match self.place {
            Place::Beginning => Piece::Nothing,
            Place::Channel(number) => Piece::Data(number, self.decode(bytes, last)?),
            Place::Closing if bytes.len() == 1 => {
                self.place = Place::Closed;
                Piece::End(bytes[0])
            }
            Place::Closing if bytes.is_empty() && !last => Piece::Nothing,
            Place::Closed if bytes.is_empty() => Piece::Nothing,
            Place::Closing | Place::Closed => {
                return Err(Error::invalid("single channel byte should follow stream close signal"));
            }
        };
        if last {
            self.place = Place::Beginning;
        }
        Ok(piece)
    }

    fn decode(&mut self, bytes: Bytes, last: bool) -> Result<Bytes> {
        if self.codec != Codec::Base64 {
            return Ok(bytes);
        }
        self.text.extend_from_slice(&bytes);
        let whole = if last { self.text.len() } else { self.text.len() / 4 * 4 };
        let decoded = STANDARD.decode(self.text.split_to(whole));
        decoded.map(Bytes::from).map_err(|e| Error::invalid(format!("decode base64 of a channel: {e}")))
    }
}

/// A message for a channel: its kind, what comes first, and the rest.
pub fn encode(codec: Codec, number: u8, bytes: Bytes) -> (Opcode, u8, Bytes) {
    match codec {
        Codec::Binary | Codec::Closing => (Opcode::Binary, number, bytes),
        Codec::Base64 => (Opcode::Text, b'0'.wrapping_add(number), STANDARD.encode(bytes).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that a message says, given in pieces of `step` bytes.
    fn read(channels: &mut Channels, message: &[u8], step: usize) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let count = message.len().div_ceil(step).max(1);
        for number in 0..count {
            let piece = message[(number * step).min(message.len())..].iter().take(step).copied().collect();
            pieces.push(channels.piece(piece, number + 1 == count)?);
        }
        Ok(pieces)
    }

    #[test]
    fn a_channel_is_ended_where_the_protocol_has_a_word_for_it() {
        for step in [1, 2] {
            let mut five = Channels::new(Codec::Closing);
            assert!(read(&mut five, &[255, 0], step).unwrap().contains(&Piece::End(0)));
            assert!(read(&mut five, &[0, b'a'], step).unwrap().contains(&Piece::Data(0, "a".into())));
        }
        for wrong in [&[255][..], &[255, 0, 0]] {
            assert!(read(&mut Channels::new(Codec::Closing), wrong, 1).is_err());
        }
        let four = read(&mut Channels::new(Codec::Binary), &[255, 0], 2).unwrap();
        assert_eq!(four, [Piece::Data(255, Bytes::from_static(&[0]))]);
    }

    #[test]
    fn base64_has_digits_for_channels() {
        let mut channels = Channels::new(Codec::Base64);
        assert_eq!(read(&mut channels, b"0Zm9vCg==", 99).unwrap(), [Piece::Data(0, "foo\n".into())]);
        assert!(read(&mut channels, b"0Zm9vCg=", 99).is_err());
        assert!(read(&mut Channels::new(Codec::Base64), b"0Zm9v Cg=", 3).is_err());
        assert_eq!(encode(Codec::Base64, 1, "\n".into()), (Opcode::Text, b'1', "Cg==".into()));
    }

    #[test]
    fn an_empty_message_says_nothing() {
        assert_eq!(read(&mut Channels::new(Codec::Binary), b"", 1).unwrap(), [Piece::Nothing]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<Vec<u8>>, step in 1..5_usize) {
            for codec in [Codec::Binary, Codec::Closing, Codec::Base64] {
                let mut channels = Channels::new(codec);
                for message in &noise {
                    let _ = read(&mut channels, message, step);
                }
            }
        }

        #[test]
        fn base64_is_read_in_any_pieces(bytes: Vec<u8>, step in 1..9_usize) {
            let (_, digit, text) = encode(Codec::Base64, 0, bytes.clone().into());
            let message = [&[digit], &text[..]].concat();
            let read = read(&mut Channels::new(Codec::Base64), &message, step).unwrap();
            let data = read.iter().flat_map(|piece| match piece {
                Piece::Data(0, bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            });
            prop_assert_eq!(data.collect::<Vec<_>>(), bytes);
        }
    }
}
