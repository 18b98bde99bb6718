#![no_main]
//! What a client of exec, attach and port-forward sends over a WebSocket.

use bytes::BytesMut;
use cri::foreign::websocket::{Channels, Codec, Decoder, Event, Piece};
use libfuzzer_sys::fuzz_target;

/// What a channel got, and whether it ended with an error.
fn read(data: &[u8], step: usize, codec: Codec) -> (Vec<(u8, u8)>, bool) {
    let (mut decoder, mut channels) = (Decoder::default(), Channels::new(codec));
    let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            let read = match decoder.next(&mut buffer) {
                Ok(Some(Event::Data { bytes, last, .. })) => channels.piece(bytes, last),
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(_) => return (got, true),
            };
            match read {
                Ok(Piece::Data(number, bytes)) => got.extend(bytes.iter().map(|byte| (number, *byte))),
                Ok(_) => {}
                Err(_) => return (got, true),
            }
        }
    }
    (got, false)
}

fuzz_target!(|data: &[u8]| {
    for codec in [Codec::Binary, Codec::Closing, Codec::Base64] {
        let (got, failed) = read(data, data.len().max(1), codec);
        assert!(got.len() <= data.len());
        // Where base64 is wrong, more of it may have been read in pieces.
        if codec != Codec::Base64 {
            assert_eq!((got, failed), read(data, 7, codec));
        }
    }
});
