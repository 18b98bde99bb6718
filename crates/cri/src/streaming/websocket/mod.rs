//! WebSocket (RFC 6455), the server's side: handshake and frames without I/O, and Kubernetes' channels in messages.

mod channels;
pub(super) mod frame;
mod handshake;

pub use channels::{Channels, Codec, Piece, encode};
pub use frame::{Decoder, Event, Opcode, close, head, pong};
pub use handshake::{accept, is_upgrade, protocol};
