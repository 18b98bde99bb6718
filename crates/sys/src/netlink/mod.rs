//! Netlink: the kernel's tables of links, addresses, routes, queues and packet filters.
//!
//! ```text
//!  Message     what is asked: a header, a structure, attributes, which may hold attributes
//!  Socket      asks, in the network namespace in which it was opened, whatever becomes of its thread
//!    change    one message, done or refused
//!    list      one message, any number of answers
//!    batch     several messages of nf_tables, all done or none
//! ```
//!
//! The kernel works while it is asked: when `send` returns, its answers stand in the socket.

#![allow(unsafe_code, reason = "two options of sockets have no safe wrapper")]

mod message;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with,
};

pub use message::{Attributes, Message, attributes};

/// As long as the kernel's answers are at once.
const ROOM: usize = 64 << 10;
/// How long an answer is waited for: the kernel does not take its time, so that this is an error.
const PATIENCE: Duration = Duration::from_secs(10);

const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// In an error: it carries attributes, and not the whole question.
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
/// In a list: it was changed meanwhile, and may lack what always was there.
const INTERRUPTED: u16 = 0x10;
/// How often a list is asked for that changes meanwhile.
const TRIES: usize = 20;
const HEADER: usize = 16;

/// Which part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, queues.
    Route,
    /// Packet filters and connections.
    Netfilter,
}

/// What the kernel refuses, with its reason if it gave one.
#[derive(Debug)]
pub struct Refused {
    /// The number of the error.
    pub errno: Errno,
    reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from(self.errno);
        if self.reason.is_empty() { error.fmt(f) } else { write!(f, "{error}: {}", self.reason) }
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { errno, reason: String::new() }
    }
}

impl From<Refused> for types::Error {
    fn from(refused: Refused) -> Self {
        let class = Self::from(io::Error::from(refused.errno)).class();
        Self::new(class, refused.to_string())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it is.
    pub kind: u16,
    body: Vec<u8>,
}

impl Answer {
    /// Its structure, which is `length` bytes long; shorter if it is cut off.
    pub fn structure(&self, length: usize) -> &[u8] {
        self.body.get(..length).unwrap_or(&self.body)
    }

    /// The attributes behind a structure of `length` bytes.
    pub fn attributes(&self, length: usize) -> Attributes<'_> {
        attributes(self.body.get(length.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// A connection to the kernel.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    next: AtomicU32,
}

impl Socket {
    /// Opens one in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel has no such family, or no descriptor is left.
    pub fn open(family: Family) -> Result<Self, Refused> {
        let protocol = match family {
            // Its number is 0, the default.
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the descriptor is open, and the option's value an int of ours that is read while this call lasts.
            // rustix has no options of netlink. Without them errors are longer and have no reasons: no error.
            unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
        }
        Ok(Self { fd, next: AtomicU32::new(1) })
    }

    /// Has one thing done.
    ///
    /// # Errors
    /// What the kernel says against it.
    pub fn change(&self, message: Message) -> Result<(), Refused> {
        let sequence = self.number();
        send_all(&self.fd, &message.finished(REQUEST | ACK, sequence)?)?;
        self.answers(sequence, |_| {}).map(drop)
    }

    /// Asks for one thing that is.
    ///
    /// # Errors
    /// What the kernel says against it.
    pub fn get(&self, message: Message) -> Result<Vec<Answer>, Refused> {
        self.ask(message, REQUEST | ACK)
    }

    /// Asks for all there are; once more, if that was changed while it was told.
    ///
    /// # Errors
    /// What the kernel says against it.
    pub fn list(&self, message: Message) -> Result<Vec<Answer>, Refused> {
        self.ask(message, REQUEST | DUMP)
    }

    fn ask(&self, message: Message, flags: u16) -> Result<Vec<Answer>, Refused> {
        for _ in 0..TRIES {
            let sequence = self.number();
            send_all(&self.fd, &message.clone().finished(flags, sequence)?)?;
            let mut found = Vec::new();
            let flags = self.answers(sequence, |answer| found.push(answer))?;
            if flags & INTERRUPTED == 0 {
                return Ok(found);
            }
        }
        Err(Refused { errno: Errno::BUSY, reason: "a list changes faster than it is told".into() })
    }

    /// Has all of `messages` done, or none: what stands between the marks of a batch, in one write. The last one of them is
    /// answered, and each one that is refused.
    ///
    /// # Errors
    /// What the kernel says against the first that it refuses.
    pub fn batch(&self, begin: Message, messages: Vec<Message>, end: Message) -> Result<(), Refused> {
        let (Some(last), first) = (messages.len().checked_sub(1), self.number()) else { return Ok(()) };
        let mut bytes = begin.finished(REQUEST, first)?;
        for (at, message) in messages.into_iter().enumerate() {
            let flags = if at == last { REQUEST | ACK } else { REQUEST };
            bytes.extend(message.finished(flags, first)?);
        }
        bytes.extend(end.finished(REQUEST, first)?);
        send_all(&self.fd, &bytes)?;
        self.drain(first)
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads until the end of an answer; says which flags were on any part of it.
    fn answers(&self, sequence: u32, mut each: impl FnMut(Answer)) -> Result<u16, Refused> {
        let mut flags = 0;
        loop {
            for part in self.receive(RecvFlags::empty())?.into_iter().filter(|part| part.sequence == sequence)
            {
                flags |= part.flags;
                if [ERROR, DONE].contains(&part.kind) {
                    return part.verdict().map(|()| flags);
                }
                each(Answer { kind: part.kind, body: part.body });
            }
        }
    }

    /// Reads what the kernel has already said of a batch: one word for the last message, or an error for each that it refused.
    fn drain(&self, sequence: u32) -> Result<(), Refused> {
        let (mut acknowledged, mut refused) = (false, None);
        loop {
            let parts = match self.receive(RecvFlags::DONTWAIT) {
                Err(error) if error.errno == Errno::AGAIN => break,
                parts => parts?,
            };
            for part in parts.into_iter().filter(|part| part.sequence == sequence && part.kind == ERROR) {
                match part.verdict() {
                    Ok(()) => acknowledged = true,
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(Refused { errno: Errno::IO, reason: "the kernel did not answer a batch".into() }),
        }
    }

    fn receive(&self, flags: RecvFlags) -> Result<Vec<Part>, Refused> {
        let mut room = vec![0; ROOM];
        loop {
            let (count, whole, from) = match recvfrom(&self.fd, &mut room[..], flags | RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let kernel =
                from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|a| a.pid() == 0);
            if !kernel {
                continue;
            }
            if whole > count {
                return Err(Refused {
                    errno: Errno::MSGSIZE,
                    reason: "an answer of netlink is cut off".into(),
                });
            }
            return Ok(Part::all(room.get(..count).unwrap_or_default()));
        }
    }
}

fn send_all(fd: &OwnedFd, bytes: &[u8]) -> Result<(), Refused> {
    loop {
        match send(fd, bytes, SendFlags::empty()) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// A message that was received.
struct Part {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Part {
    /// The messages of what was read; what does not hold together is left out.
    fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut parts = Vec::new();
        while let Some((header, _)) = bytes.split_at_checked(HEADER) {
            let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header else { break };
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let Some(body) = bytes.get(HEADER..length) else { break };
            parts.push(Self {
                kind: u16::from_ne_bytes([k0, k1]),
                flags: u16::from_ne_bytes([f0, f1]),
                sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
                body: body.to_vec(),
            });
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        parts
    }

    /// What an error says, which may be that there is none.
    fn verdict(&self) -> Result<(), Refused> {
        let Some((number, rest)) = self.body.split_first_chunk() else { return Ok(()) };
        let number = i32::from_ne_bytes(*number);
        if number >= 0 {
            return Ok(());
        }
        // Behind it stands the question, whole or its header, and then attributes; those of a list stand at once.
        let skipped = match (self.kind, self.flags & CAPPED != 0) {
            (DONE, _) => 0,
            (_, true) => HEADER,
            (_, false) => rest.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize),
        };
        let told = rest.get(skipped.next_multiple_of(4)..).filter(|_| self.flags & ACK_TLVS != 0);
        let reason = attributes(told.unwrap_or_default()).text(1).unwrap_or_default();
        Err(Refused { errno: Errno::from_raw_os_error(-number), reason })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(name: &str) -> Message {
        let mut message = Message::new(18, 0, &[0; 16]);
        message.text(3, name);
        message
    }

    #[test]
    fn the_kernel_tells_of_lo_and_why_it_refuses() {
        let socket = Socket::open(Family::Route).unwrap();
        let found = socket.get(link("lo")).unwrap();
        assert_eq!(found[0].attributes(16).text(3).as_deref(), Some("lo"));
        let all = socket.list(Message::new(18, 0, &[0; 16])).unwrap();
        assert!(all.iter().any(|link| link.attributes(16).text(3).as_deref() == Some("lo")));
        assert_eq!(socket.get(link("no-such-link")).unwrap_err().errno, Errno::NODEV);
        let refused = socket.change(Message::new(0xfff0, 0, &[0; 16])).unwrap_err();
        assert_eq!(refused.errno, Errno::OPNOTSUPP);
    }

    #[test]
    fn an_attribute_that_is_too_long_is_no_message() {
        let socket = Socket::open(Family::Route).unwrap();
        let refused = socket.get(link(&"x".repeat(70_000))).unwrap_err();
        assert_eq!(refused.errno, Errno::MSGSIZE);
    }

    proptest! {
        #[test]
        fn whatever_is_received_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for part in Part::all(&bytes) {
                let _ = part.verdict();
                let answer = Answer { kind: part.kind, body: part.body };
                for (_, value) in answer.attributes(answer.structure(7).len()) {
                    prop_assert!(attributes(value).count() <= value.len() / 4 + 1);
                }
            }
        }
    }
}
