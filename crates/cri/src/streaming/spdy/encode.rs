//! Frames that we send.

use super::{FIN, GOAWAY, PING, RST_STREAM, Reset, SYN_REPLY, VERSION};

/// What is in front of every frame's payload.
pub const HEAD: usize = 8;

/// In front of `length` bytes of a stream's data.
pub fn data(stream: u32, length: usize, finished: bool) -> [u8; HEAD] {
    // No piece of ours is anywhere near 16 MiB.
    let length = u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
    head(stream & 0x7fff_ffff, if finished { FIN } else { 0 }, length)
}

/// Accepts a stream. The block of headers is empty. A connection's first one begins its zlib stream.
///
/// It is stored, not compressed, so no connection needs the 256 KiB of a compressor; the empty block at the end is what makes a
/// reader give out what it has.
pub fn reply(stream: u32, first: bool) -> Vec<u8> {
    const BEGIN: &[u8] = &[0x78, 0x01];
    const NOTHING: &[u8] = &[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let begin = if first { BEGIN } else { &[] };
    control(SYN_REPLY, &[&stream.to_be_bytes(), begin, NOTHING].concat())
}

/// Ends a stream at once.
pub fn reset(stream: u32, why: Reset) -> Vec<u8> {
    control(RST_STREAM, &[stream.to_be_bytes(), (why as u32).to_be_bytes()].concat())
}

/// Answers a ping.
pub fn ping(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

/// Says that there will be no more streams.
pub fn go_away(last: u32) -> Vec<u8> {
    control(GOAWAY, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat())
}

/// A control frame.
pub(in crate::streaming) fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let first = u32::from(0x8000 | VERSION) << 16 | u32::from(kind);
    let length = u32::try_from(payload.len()).unwrap_or(0);
    [&head(first, 0, length)[..], payload].concat()
}

fn head(first: u32, flags: u8, length: u32) -> [u8; HEAD] {
    let second = u32::from(flags) << 24 | length;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&first.to_be_bytes());
    head[4..].copy_from_slice(&second.to_be_bytes());
    head
}
