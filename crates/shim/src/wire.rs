//! A non-blocking unix socket that speaks ttrpc frames: what has arrived in part, and what could not be written yet.

mod handover;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use api::ttrpc::{HEADER, Header, MAX_MESSAGE};
use rustix::io::Errno;

/// Read at most so much in one turn of the loop.
const TURN: usize = 256 << 10;
/// A peer that does not read its answers is not read from either, beyond so many bytes of them.
const UNSENT: usize = 256 << 10;
/// Buffers above this are given back as soon as they are empty: an idle connection holds next to nothing.
const KEEP: usize = 1 << 10;

/// One end of a connection.
pub struct Wire {
    fd: OwnedFd,
    input: Vec<u8>,
    skip: usize,
    output: Vec<u8>,
    sent: usize,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message.
    Message(Header, Vec<u8>),
    /// The head of a message beyond the limit, which is being skipped.
    TooLarge(Header),
}

/// Whether the peer is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It is.
    There,
    /// It has closed the connection.
    Gone,
}

impl Wire {
    /// Takes over a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, input: Vec::new(), skip: 0, output: Vec::new(), sent: 0 }
    }

    /// Reads what has arrived.
    pub fn receive(&mut self) -> io::Result<Peer> {
        let mut budget = TURN;
        while budget > 0 {
            let room = self.wanted().clamp(512, budget);
            self.input.reserve_exact(room);
            match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(&mut self.input)) {
                Ok(0) => return Ok(Peer::Gone),
                Ok(n) => {
                    budget = budget.saturating_sub(n);
                    let skipped = self.skip.min(self.input.len());
                    self.input.drain(..skipped);
                    self.skip -= skipped;
                    if n < room {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Peer::Gone),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Peer::There)
    }

    /// How many bytes are missing of the message that has begun.
    fn wanted(&self) -> usize {
        let length = self.header().map_or(0, |h| h.length.min(MAX_MESSAGE));
        (HEADER + length).saturating_sub(self.input.len())
    }

    fn header(&self) -> Option<Header> {
        self.input.first_chunk::<HEADER>().map(Header::decode)
    }

    /// Takes the next message out of what has arrived.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let header = self.header()?;
        if header.length > MAX_MESSAGE {
            let drop = (HEADER + header.length).min(self.input.len());
            self.skip = HEADER + header.length - drop;
            self.input.drain(..drop);
            return Some(Frame::TooLarge(header));
        }
        let end = HEADER + header.length;
        let message = self.input.get(HEADER..end)?.to_vec();
        self.input.drain(..end);
        if self.input.is_empty() && self.input.capacity() > KEEP {
            self.input = Vec::new();
        }
        Some(Frame::Message(header, message))
    }

    /// Queues a frame and writes as much as the socket takes.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<Peer> {
        self.output.extend_from_slice(frame);
        self.flush()
    }

    /// Writes as much of what is queued as the socket takes.
    pub fn flush(&mut self) -> io::Result<Peer> {
        while let Some(rest @ [_, ..]) = self.output.get(self.sent..) {
            match rustix::net::send(&self.fd, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Ok(Peer::Gone),
                Err(e) => return Err(e.into()),
            }
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            if self.output.capacity() > KEEP {
                self.output = Vec::new();
            } else {
                self.output.clear();
            }
        }
        Ok(Peer::There)
    }

    /// Whether something waits to be written.
    pub fn has_unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the peer reads its answers too slowly to be listened to.
    pub fn is_clogged(&self) -> bool {
        self.output.len() - self.sent > UNSENT
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Wire::new(ours.into()), theirs)
    }

    fn frame(length: u32, stream: u8) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, stream, 1, 0]);
        bytes
    }

    #[test]
    fn messages_are_put_together_from_pieces_and_taken_apart_from_one_piece() {
        let (mut wire, mut peer) = pair();
        let mut bytes = frame(3, 1);
        bytes.extend(b"abc");
        bytes.extend(frame(0, 3));
        for byte in &bytes[..12] {
            peer.write_all(&[*byte]).unwrap();
            wire.receive().unwrap();
            assert_eq!(wire.next_frame(), None);
        }
        peer.write_all(&bytes[12..]).unwrap();
        wire.receive().unwrap();
        assert!(matches!(wire.next_frame(), Some(Frame::Message(h, m)) if h.stream == 1 && m == b"abc"));
        assert!(matches!(wire.next_frame(), Some(Frame::Message(h, m)) if h.stream == 3 && m.is_empty()));
        drop(peer);
        assert_eq!(wire.receive().unwrap(), Peer::Gone);
    }

    #[test]
    fn a_message_beyond_the_limit_is_skipped_and_the_next_one_is_read() {
        let (mut wire, mut peer) = pair();
        let length = u32::try_from(MAX_MESSAGE).unwrap() + 5;
        let sender = std::thread::spawn(move || {
            peer.write_all(&frame(length, 1)).unwrap();
            peer.write_all(&vec![0; length as usize]).unwrap();
            peer.write_all(&frame(0, 3)).unwrap();
            peer
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            wire.receive().unwrap();
            seen.extend(wire.next_frame());
        }
        drop(sender.join().unwrap());
        assert!(matches!(seen[0], Frame::TooLarge(h) if h.stream == 1));
        assert!(matches!(seen[1], Frame::Message(h, _) if h.stream == 3));
        assert!(wire.input.capacity() <= TURN);
    }

    #[test]
    fn a_peer_that_reads_nothing_clogs() {
        let (mut wire, _peer) = pair();
        while !wire.is_clogged() {
            wire.send(&[0; 4096]).unwrap();
        }
        assert!(wire.has_unsent());
    }
}
