//! SPDY/3.1 as Kubernetes' clients speak it (moby/spdystream): frames without I/O.
//!
//! ```text
//!  control   1|version (15 bits)|type (16)    flags (8)|length (24)    payload
//!  data      0|stream (31)                    flags (8)|length (24)    payload
//! ```
//!
//! No side of theirs keeps flow control windows, so neither do we: the connection itself is what holds a fast sender back.
//! Priorities mean nothing to us either.

mod decode;
mod dictionary;
pub mod encode;
pub(super) mod headers;

pub use decode::{Decoder, Event};
pub use headers::{Headers, Inflater};

/// The only version.
const VERSION: u16 = 3;
/// A stream is done in one direction.
const FIN: u8 = 1;
/// More than any control frame of a well-meaning client: stream types, ports, ids.
const MAX_CONTROL: usize = 64 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Its number cannot be.
    Protocol = 1,
    /// It is not wanted.
    Refused = 3,
    /// It is over.
    Cancel = 5,
}
