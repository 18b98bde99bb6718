//! Bodies that tell what passes through them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::layer::{Call, Tally};

/// Counts gRPC's messages in a body: each has five bytes in front, the last four of which are its length.
#[derive(Debug, Default)]
pub struct Messages {
    head: [u8; 4],
    /// How many of the five bytes have come.
    have: usize,
    /// Bytes of the message that are still to come.
    rest: usize,
}

impl Messages {
    /// How many messages begin in `data`.
    pub fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.rest > 0 {
                let part = self.rest.min(data.len());
                self.rest -= part;
                data = &data[part..];
                continue;
            }
            // The first byte says whether the message is compressed.
            if self.have > 0 {
                self.head[self.have - 1] = data[0];
            }
            self.have += 1;
            data = &data[1..];
            if self.have == 5 {
                self.have = 0;
                self.rest = u32::from_be_bytes(self.head) as usize;
                begun += 1;
            }
        }
        begun
    }
}

/// The requests of a streaming call.
pub struct Received {
    body: tonic::body::Body,
    messages: Messages,
    tally: Tally,
}

impl Received {
    /// Counts what comes at `tally`.
    pub fn new(body: tonic::body::Body, tally: Tally) -> Self {
        Self { body, messages: Messages::default(), tally }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            let begun = self.messages.count(data);
            self.tally.received(begun);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The replies of a call, and its end: the trailers, or that nobody wants them any more.
pub struct Sent {
    body: tonic::body::Body,
    messages: Option<Messages>,
    /// Until the end.
    call: Option<Call>,
}

impl Sent {
    /// The body of `call`'s reply. `None`: the call has ended.
    pub fn new(body: tonic::body::Body, call: Option<Call>) -> Self {
        let messages = call.as_ref().filter(|call| call.streams()).map(|_| Messages::default());
        Self { body, messages, call }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match (&frame, &mut this.messages, &this.call) {
            (Some(Ok(frame)), messages, Some(call)) => {
                if let (Some(data), Some(messages)) = (frame.data_ref(), messages) {
                    call.tally().sent(messages.count(data));
                }
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(call) = this.call.take()
                {
                    call.end(trailers);
                }
            }
            (Some(Err(status)), _, _) => {
                let code = status.code();
                if let Some(call) = this.call.take() {
                    call.end_with(code, status.message());
                }
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn messages_that_are_no_messages_are_counted_the_same_in_parts(
            bytes in proptest::collection::vec(0u8..4, 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut parts) = (Messages::default(), Messages::default());
            let counted = parts.count(&bytes[..cut]) + parts.count(&bytes[cut..]);
            proptest::prop_assert_eq!(whole.count(&bytes), counted);
        }
    }

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut bytes = vec![0, 0, 0, 0, 3, 1, 2, 3];
        bytes.extend([0, 0, 0, 0, 0]);
        bytes.extend([1, 0, 0, 1, 0]);
        bytes.extend([7; 256]);
        for size in [1, 2, 3, 5, 7, 100, bytes.len()] {
            let mut messages = Messages::default();
            assert_eq!(bytes.chunks(size).map(|part| messages.count(part)).sum::<u64>(), 3, "by {size}");
        }
    }
}
