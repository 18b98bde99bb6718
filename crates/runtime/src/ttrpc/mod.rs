//! ttrpc over tokio: one task a connection, framing from `api::ttrpc`.
//!
//! ```text
//!  caller -- call() --> Wire::send ---------> socket     a frame is written at once if the socket takes it,
//!                         \-> outbox -> task --^          else the connection's task writes the rest
//!  caller <-- oneshot --- task <-- Decoder <-- socket    answers are matched by stream id
//! ```
//!
//! An idle connection costs its descriptor and its parked task: no timer, no polling.

mod client;
mod decoder;
mod server;
mod wire;

pub use client::{Call, Client, Failure};
pub(crate) use server::delivered;
pub use server::{Request, forward_events, serve, serve_connection};

#[cfg(test)]
mod tests;
