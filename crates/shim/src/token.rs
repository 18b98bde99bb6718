//! What a ready descriptor belongs to, packed into epoll's 64 bits.

/// The kinds, in the order in which a turn handles them: requests first, bulk output last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The socket that clients connect to.
    Listener,
    /// A client.
    Client,
    /// Memory ran out: told before the ends of processes that it led to.
    Memory,
    /// A process has ended.
    Child,
    /// A signal: an orphan has ended, or we are asked to end.
    Signal,
    /// The daemon's event socket.
    Publisher,
    /// A program that takes output says that it is ready.
    Logger,
    /// Somebody opened a FIFO that nobody read.
    Reader,
    /// The socket that debuggers connect to.
    Debugger,
    /// Somebody who was attached to a process.
    Copy,
    /// A terminal, which output and input of a process wait for.
    Terminal,
    /// Output or input of a process.
    Stream,
}

const KINDS: [Kind; 12] = [
    Kind::Listener,
    Kind::Client,
    Kind::Memory,
    Kind::Child,
    Kind::Signal,
    Kind::Publisher,
    Kind::Logger,
    Kind::Reader,
    Kind::Debugger,
    Kind::Copy,
    Kind::Terminal,
    Kind::Stream,
];

/// A kind and a serial number, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// See [`Kind`].
    pub kind: Kind,
    /// Which of them.
    pub serial: u64,
}

impl Token {
    /// For epoll.
    pub fn pack(self) -> u64 {
        ((self.kind as u64) << 56) | self.serial
    }

    /// From epoll.
    pub fn unpack(bits: u64) -> Option<Self> {
        let kind = *KINDS.get(usize::try_from(bits >> 56).ok()?)?;
        Some(Self { kind, serial: bits & ((1 << 56) - 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_requests_sort_before_output() {
        for kind in KINDS {
            let token = Token { kind, serial: 77 };
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
        let bits = |kind| Token { kind, serial: 1 }.pack();
        assert!(bits(Kind::Client) < bits(Kind::Child) && bits(Kind::Child) < bits(Kind::Stream));
    }
}
