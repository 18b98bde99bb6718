#![no_main]
//! What a client of exec, attach and port-forward sends over SPDY.

use bytes::BytesMut;
use cri::foreign::spdy::{Decoder, Event};
use libfuzzer_sys::fuzz_target;

/// What was read, data of a stream put together, and whether it ended with an error.
fn read(data: &[u8], step: usize) -> (Vec<Event>, bool) {
    let (mut decoder, mut buffer, mut events) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in data.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Event::Data { bytes, finished: false, .. })) if bytes.is_empty() => {}
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

fn bytes(events: &[Event]) -> Vec<u8> {
    let data = events.iter().filter_map(|event| match event {
        Event::Data { bytes, .. } => Some(bytes.to_vec()),
        _ => None,
    });
    data.flatten().collect()
}

fuzz_target!(|data: &[u8]| {
    let (whole, failed) = read(data, data.len().max(1));
    let (pieces, also) = read(data, 7);
    assert_eq!(failed, also);
    assert_eq!(bytes(&whole), bytes(&pieces));
    assert!(bytes(&whole).len() <= data.len());
});
