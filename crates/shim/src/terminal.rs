//! A process's terminal: one descriptor of its master, for its output, its input and its size.
//!
//! ```text
//!  stream of output  --waits for something to read-->  \
//!                                                        one descriptor, registered once with what both wait for
//!  stream of input   --waits for room to write------>  /
//! ```
//!
//! epoll knows a descriptor once, and tells of a hang-up whether or not that was asked for. So the descriptor is registered
//! exactly as long as a stream waits for it, and a hang-up is told to each that does: what each then reads or writes fails, which
//! is its end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use api::containerdrs::shim::v1 as wire;
use sys::epoll::{Epoll, Ready};
use sys::handover::Inherited;
use types::Result;

use crate::token::{Kind, Token};

/// The master of a terminal.
pub struct Terminal {
    master: OwnedFd,
    waits: Cell<Waits>,
}

/// The streams that wait for a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waits {
    reader: Option<u64>,
    writer: Option<u64>,
}

impl Waits {
    fn with(self, interest: Ready, serial: Option<u64>) -> Self {
        if interest == Ready::IN { Self { reader: serial, ..self } } else { Self { writer: serial, ..self } }
    }

    /// How epoll has to know the terminal, if it has to.
    fn registration(self) -> Option<(u64, Ready)> {
        let serial = self.reader.or(self.writer)?;
        let wanted = |stream: Option<u64>, interest| if stream.is_some() { interest } else { Ready::empty() };
        let interest = wanted(self.reader, Ready::IN) | wanted(self.writer, Ready::OUT);
        Some((Token { kind: Kind::Terminal, serial }.pack(), interest))
    }
}

impl Terminal {
    /// The terminal of `master`, which does not block.
    pub fn new(master: OwnedFd) -> Self {
        Self { master, waits: Cell::default() }
    }

    /// The streams that wait for what the terminal is ready for.
    pub fn woken(&self, ready: Ready) -> [Option<u64>; 2] {
        let Waits { reader, writer } = self.waits.get();
        let is_told = |interest| ready.intersects(interest | Ready::HUP | Ready::ERR);
        [reader.filter(|_| is_told(Ready::IN)), writer.filter(|_| is_told(Ready::OUT))]
    }

    fn set(&self, waits: Waits, epoll: &Epoll) -> io::Result<()> {
        match (self.waits.get().registration(), waits.registration()) {
            (before, now) if before == now => {}
            (None, Some((token, interest))) => epoll.add(&self.master, token, interest)?,
            (Some(_), Some((token, interest))) => epoll.modify(&self.master, token, interest)?,
            (Some(_), None) => epoll.remove(&self.master)?,
            (None, None) => {}
        }
        self.waits.set(waits);
        Ok(())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// A stream's end: its own descriptor, or the terminal that it shares.
pub enum End {
    /// Nobody else's.
    Own(OwnedFd),
    /// See [`Terminal`].
    Terminal(Rc<Terminal>),
}

impl End {
    /// The terminal, if it is one.
    pub fn terminal(&self) -> Option<&Terminal> {
        match self {
            Self::Own(_) => None,
            Self::Terminal(terminal) => Some(terminal),
        }
    }

    /// Lets the loop tell the stream `serial` when its end is ready: for reading (`IN`) or for writing (`OUT`).
    pub fn watch(&self, interest: Ready, serial: u64, epoll: &Epoll) -> io::Result<()> {
        match self {
            Self::Own(fd) => epoll.add(fd, Token { kind: Kind::Stream, serial }.pack(), interest),
            Self::Terminal(terminal) => {
                terminal.set(terminal.waits.get().with(interest, Some(serial)), epoll)
            }
        }
    }

    /// The opposite.
    pub fn unwatch(&self, interest: Ready, epoll: &Epoll) -> io::Result<()> {
        match self {
            Self::Own(fd) => epoll.remove(fd),
            Self::Terminal(terminal) => terminal.set(terminal.waits.get().with(interest, None), epoll),
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Terminal(terminal) => terminal.as_fd(),
        }
    }
}

/// The terminals that were handed over. A state has a descriptor of its own for each use of a terminal, as there were once; what
/// is not taken here is closed with everything else that nobody takes.
pub struct Terminals(BTreeMap<(String, String), Rc<Terminal>>);

impl Terminals {
    /// Those of `state`.
    pub fn read_back(state: &wire::State, inherited: &mut Inherited) -> Result<Self> {
        let mut all = BTreeMap::new();
        for container in &state.containers {
            for process in &container.processes {
                if let Some(console) = process.console {
                    let terminal = Rc::new(Terminal::new(inherited.take(console)?));
                    all.insert((container.id.clone(), process.exec.clone()), terminal);
                }
            }
        }
        Ok(Self(all))
    }

    /// The terminal of a process.
    pub fn of(&self, owner: &(String, String)) -> Option<Rc<Terminal>> {
        self.0.get(owner).map(Rc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// Something that can be read and written, and hangs up, like a terminal; and its other side.
    fn terminal() -> (Rc<Terminal>, UnixStream) {
        let (master, process) = UnixStream::pair().unwrap();
        master.set_nonblocking(true).unwrap();
        process.set_nonblocking(true).unwrap();
        (Rc::new(Terminal::new(master.into())), process)
    }

    /// Who is woken now.
    fn woken(terminal: &Terminal, epoll: &Epoll) -> Vec<u64> {
        let mut events = Vec::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.len() <= 1);
        events.iter().flat_map(|event| terminal.woken(event.ready)).flatten().collect()
    }

    #[test]
    fn two_streams_wait_for_one_descriptor_and_each_is_told_of_what_it_waits_for() {
        let (epoll, (terminal, mut process)) = (Epoll::new().unwrap(), terminal());
        let (output, input) = (End::Terminal(Rc::clone(&terminal)), End::Terminal(Rc::clone(&terminal)));
        output.watch(Ready::IN, 7, &epoll).unwrap();
        assert!(woken(&terminal, &epoll).is_empty());
        input.watch(Ready::OUT, 8, &epoll).unwrap();
        assert_eq!(woken(&terminal, &epoll), [8]);
        while rustix::io::write(&terminal, &[0; 4096]).is_ok() {}
        assert!(woken(&terminal, &epoll).is_empty());
        process.write_all(b"x").unwrap();
        assert_eq!(woken(&terminal, &epoll), [7]);
        process.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(woken(&terminal, &epoll), [7, 8]);
        // The one that goes takes nothing from the other.
        output.unwatch(Ready::IN, &epoll).unwrap();
        assert_eq!(woken(&terminal, &epoll), [8]);
        output.watch(Ready::IN, 7, &epoll).unwrap();
        input.unwatch(Ready::OUT, &epoll).unwrap();
        assert_eq!(woken(&terminal, &epoll), [7]);
    }

    #[test]
    fn a_hang_up_is_told_to_who_waits_and_to_nobody_when_nobody_does() {
        let (epoll, (terminal, process)) = (Epoll::new().unwrap(), terminal());
        let end = End::Terminal(Rc::clone(&terminal));
        while rustix::io::write(&terminal, &[0; 4096]).is_ok() {}
        end.watch(Ready::IN, 7, &epoll).unwrap();
        end.watch(Ready::OUT, 8, &epoll).unwrap();
        drop(process);
        assert_eq!(woken(&terminal, &epoll), [7, 8]);
        end.unwatch(Ready::IN, &epoll).unwrap();
        assert_eq!(woken(&terminal, &epoll), [8]);
        end.unwatch(Ready::OUT, &epoll).unwrap();
        let mut events = Vec::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        // Again: nothing is there to be taken away.
        end.unwatch(Ready::OUT, &epoll).unwrap();
    }
}
