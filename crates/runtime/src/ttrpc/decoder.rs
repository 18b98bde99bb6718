//! Bytes to frames, without I/O.

use api::ttrpc::{HEADER, Header, MAX_MESSAGE};

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole frame.
    Frame(Header, Vec<u8>),
    /// A frame over the limit; its message is skipped.
    TooLarge(Header),
}

/// Collects bytes and hands out frames. It never holds more than one message of the largest size and what the last
/// read brought behind it.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame begins in `bytes`.
    start: usize,
    /// Bytes of an oversized message that are still to be thrown away.
    skip: usize,
}

impl Decoder {
    /// Adds what was read.
    pub(super) fn push(&mut self, mut read: &[u8]) {
        let skipped = self.skip.min(read.len());
        self.skip -= skipped;
        read = read.get(skipped..).unwrap_or_default();
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
            // An idle connection must not keep the memory of its largest message.
            if self.bytes.len() < 4096 && self.bytes.capacity() > 64 * 1024 {
                self.bytes.shrink_to(4096);
            }
        }
        self.bytes.extend_from_slice(read);
    }

    /// The next frame, if it is complete.
    pub(super) fn next(&mut self) -> Option<Incoming> {
        let rest = self.bytes.get(self.start..)?;
        let header = Header::decode(rest.first_chunk::<HEADER>()?);
        let body = rest.get(HEADER..)?;
        if header.length > MAX_MESSAGE {
            let present = body.len().min(header.length);
            self.skip = header.length - present;
            self.start += HEADER + present;
            return Some(Incoming::TooLarge(header));
        }
        let message = body.get(..header.length)?.to_vec();
        self.start += HEADER + header.length;
        Some(Incoming::Frame(header, message))
    }
}

#[cfg(test)]
mod tests {
    use api::ttrpc::Kind;

    use super::*;

    fn header(length: usize, stream: u32) -> [u8; HEADER] {
        Header { length, stream, kind: Kind::Request, flags: 0 }.encode()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_were_cut() {
        let mut bytes = Vec::new();
        for (stream, message) in [(1, &b"hello"[..]), (3, b""), (5, b"world!")] {
            bytes.extend_from_slice(&header(message.len(), stream));
            bytes.extend_from_slice(message);
        }
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(Incoming::Frame(header, message)) = decoder.next() {
                    seen.push((header.stream, message));
                }
            }
            assert_eq!(seen, [(1, b"hello".to_vec()), (3, vec![]), (5, b"world!".to_vec())], "step {step}");
        }
    }

    #[test]
    fn an_oversized_message_is_skipped_and_the_next_frame_is_read() {
        let mut decoder = Decoder::default();
        decoder.push(&header(MAX_MESSAGE + 1, 1));
        assert!(matches!(decoder.next(), Some(Incoming::TooLarge(h)) if h.stream == 1));
        let garbage = vec![0xff; 1 << 20];
        for _ in 0..4 {
            decoder.push(&garbage);
            assert_eq!(decoder.next(), None);
        }
        let mut last = vec![0xff];
        last.extend_from_slice(&header(2, 3));
        last.extend_from_slice(b"ok");
        decoder.push(&last);
        assert!(matches!(decoder.next(), Some(Incoming::Frame(h, m)) if h.stream == 3 && m == b"ok"));
        assert!(decoder.bytes.len() < 100, "skipped bytes were kept");
    }
}
