//! ttrpc framing without I/O: a ten-byte header, a message of at most 4 MiB, and the call's envelope
//! (containerd/ttrpc PROTOCOL.md). tokio's side of it lives in `runtime`, epoll's in the shim.
//!
//! ```text
//!  0        4         8      9       10
//!  | length | stream  | type | flags | message (length bytes) |
//!    u32 BE   u32 BE    u8     u8
//! ```
//!
//! Clients use odd stream ids. A unary call is one request and one response with the same stream id.

use prost::Message;
use types::{Class, Error, Result};

pub use crate::proto::ttrpc::{KeyValue, Request, Response};

/// Bytes of a header.
pub const HEADER: usize = 10;
/// The largest message, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// The metadata key that carries the namespace.
pub const NAMESPACE: &str = "containerd-namespace-ttrpc";

/// The service of `proto/shim`, which only shims of this project have.
pub const SHIM: &str = "containerdrs.shim.v1.Shim";
/// The service of `proto/shim/v1/output.proto`; a shim that has it says so under this name in its metadata.
pub const OUTPUT: &str = "containerdrs.shim.v1.Output";

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Request`].
    Request,
    /// A [`Response`].
    Response,
    /// A message of a stream.
    Data,
    /// A type this version does not know; to be ignored.
    Other(u8),
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the message behind it.
    pub length: usize,
    /// The call.
    pub stream: u32,
    /// See [`Kind`].
    pub kind: Kind,
    /// 1 remote closed, 2 remote open, 4 no data.
    pub flags: u8,
}

impl Header {
    /// Reads a header. A length over [`MAX_MESSAGE`] is returned as it is: the receiver must skip that many bytes and
    /// answer with [`too_large`].
    pub fn decode(bytes: &[u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, kind, flags] = *bytes;
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            other => Kind::Other(other),
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        Self { length, stream: u32::from_be_bytes([e, f, g, h]), kind, flags }
    }

    /// Writes a header.
    pub fn encode(self) -> [u8; HEADER] {
        // A message is at most 4 MiB, so its length fits.
        let [a, b, c, d] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let [e, f, g, h] = self.stream.to_be_bytes();
        let kind = match self.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
            Kind::Other(other) => other,
        };
        [a, b, c, d, e, f, g, h, kind, self.flags]
    }
}

/// A whole frame around `message`.
pub fn frame<M: Message>(kind: Kind, stream: u32, message: &M) -> Result<Vec<u8>> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&Header { length, stream, kind, flags: 0 }.encode());
    message.encode(&mut bytes).map_err(|e| Error::internal(format!("encode ttrpc message: {e}")))?;
    Ok(bytes)
}

/// The response to a call: the payload, or the error as a status.
pub fn response(result: Result<Vec<u8>>) -> Response {
    match result {
        Ok(payload) => Response { status: None, payload },
        Err(error) => Response { status: Some(crate::status::to_status(&error)), payload: Vec::new() },
    }
}

/// The payload of a response, or the error it carries.
pub fn result(response: Response) -> Result<Vec<u8>> {
    match response.status {
        Some(status) if status.code != 0 => Err(crate::status::from_status(status)),
        _ => Ok(response.payload),
    }
}

/// What a receiver answers to a frame over the limit.
pub fn too_large(length: usize) -> Error {
    Error::new(
        Class::ResourceExhausted,
        format!("message length {length} exceed maximum message size of {MAX_MESSAGE}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn headers_come_back_as_they_went(bytes: [u8; HEADER]) {
            assert_eq!(Header::decode(&bytes).encode(), bytes);
        }
    }
}
