//! A turn of one stream: what it can do now, and what it waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sys::epoll::{Epoll, Ready};
use sys::fifo::{self, Moved};

use super::{COPY, Stream, TURN, Waiting};
use crate::io::{Direction, Method, Sink};
use crate::spool::Limits;
use crate::token::{Kind, Token};

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The turn is over, there is more.
    Again,
    Source,
    Sink,
    Unread,
    Carry,
    End,
}

impl Stream {
    /// Where it goes to, if that is a descriptor of ours.
    fn sink(&self) -> Option<BorrowedFd<'_>> {
        match &self.flow.sink {
            Sink::Process(end) => Some(end.as_fd()),
            Sink::Fifo(fd, _) | Sink::Logger(fd, _) => Some(fd.as_fd()),
            Sink::Log(..) => None,
        }
    }

    /// Whether somebody takes what it has to say.
    pub(super) fn is_read(&self) -> bool {
        self.sink().is_none_or(fifo::is_read)
    }

    pub(super) fn carrier(&self) -> Option<u64> {
        match self.waiting {
            Waiting::Carrier(child) => Some(child),
            Waiting::Source | Waiting::Sink | Waiting::Reader(_) | Waiting::Either(_) | Waiting::Nothing => {
                None
            }
        }
    }

    /// Whether only a reader could make it go on, and there is none.
    pub(super) fn is_left(&self) -> bool {
        match self.waiting {
            Waiting::Reader(_) | Waiting::Either(_) => true,
            Waiting::Carrier(_) => !self.is_read(),
            Waiting::Source | Waiting::Sink | Waiting::Nothing => false,
        }
    }

    pub(super) fn wait(&mut self, waiting: Waiting, serial: u64, epoll: &Epoll) -> io::Result<()> {
        if self.waiting == waiting {
            return Ok(());
        }
        match self.waiting {
            Waiting::Source | Waiting::Either(_) => self.flow.source.unwatch(Ready::IN, epoll)?,
            Waiting::Sink => self.unwatch_sink(epoll)?,
            Waiting::Reader(_) | Waiting::Carrier(_) | Waiting::Nothing => {}
        }
        self.waiting = waiting;
        match waiting {
            Waiting::Source | Waiting::Either(_) => self.flow.source.watch(Ready::IN, serial, epoll),
            Waiting::Sink => self.watch_sink(serial, epoll),
            Waiting::Reader(_) | Waiting::Carrier(_) | Waiting::Nothing => Ok(()),
        }
    }

    fn watch_sink(&self, serial: u64, epoll: &Epoll) -> io::Result<()> {
        match &self.flow.sink {
            Sink::Process(end) => end.watch(Ready::OUT, serial, epoll),
            Sink::Fifo(fd, _) | Sink::Logger(fd, _) => {
                epoll.add(fd, Token { kind: Kind::Stream, serial }.pack(), Ready::OUT)
            }
            Sink::Log(..) => Ok(()),
        }
    }

    fn unwatch_sink(&self, epoll: &Epoll) -> io::Result<()> {
        match &self.flow.sink {
            Sink::Process(end) => end.unwatch(Ready::OUT, epoll),
            Sink::Fifo(fd, _) | Sink::Logger(fd, _) => epoll.remove(fd),
            Sink::Log(..) => Ok(()),
        }
    }

    pub(super) fn next(&mut self, limits: Limits) -> Next {
        if self.carrier().is_some() {
            return Next::Again;
        }
        let is_log = matches!(self.flow.sink, Sink::Log(..));
        if is_log || self.spool.is_some() {
            return match look(&self.flow.source) {
                _ if !is_log && self.is_read() => Next::Carry,
                Source::Ended | Source::Empty if self.ended => Next::Unread,
                Source::Said => Next::Carry,
                Source::Empty => {
                    if is_log {
                        Next::Source
                    } else {
                        Next::Unread
                    }
                }
                Source::Ended if is_log => Next::End,
                Source::Ended => {
                    self.ended = true;
                    Next::Unread
                }
            };
        }
        match self.pump() {
            Next::Unread if self.flow.direction == Direction::In => Next::End,
            // There is something to be said: it must not wait for a reader if there is room elsewhere.
            Next::Unread if !self.ended && self.flow.spool.is_some() && limits.container > 0 => Next::Carry,
            next => next,
        }
    }

    fn pump(&mut self) -> Next {
        let mut budget = TURN;
        while budget > 0 {
            let moved = match (self.flow.method(), self.sink()) {
                _ if self.ended => Ok(Moved::End),
                (_, None) => return Next::Carry,
                (Method::Splice, Some(sink)) => fifo::transfer(&self.flow.source, sink, budget),
                (Method::Copy, Some(_)) => self.copy(),
            };
            match moved {
                Ok(Moved::Bytes(n)) => budget = budget.saturating_sub(n),
                Ok(Moved::Nothing) if !self.pending.is_empty() || look(&self.flow.source) == Source::Said => {
                    return if self.is_hung_up() { Next::End } else { Next::Sink };
                }
                Ok(Moved::Nothing) => return Next::Source,
                Ok(Moved::Unread) => return Next::Unread,
                Ok(Moved::End) if self.flow.direction == Direction::Out && !self.is_read() => {
                    self.ended = true;
                    return Next::Unread;
                }
                // An error of a descriptor is its end: there is nobody to be told, and nothing that could be repeated.
                Ok(Moved::End) | Err(_) => return Next::End,
            }
        }
        Next::Again
    }

    /// Whether what takes no more input has nobody who would read it: a terminal that is full says no more than that, and is
    /// "ready" for ever.
    fn is_hung_up(&self) -> bool {
        let Sink::Process(end) = &self.flow.sink else { return false };
        let ready = ready(end, PollFlags::OUT);
        ready.contains(PollFlags::HUP) && !ready.contains(PollFlags::OUT)
    }

    /// Moves a piece through our memory, for what cannot be spliced on all kernels.
    fn copy(&mut self) -> io::Result<Moved> {
        let mut buffer = [0; COPY];
        let fresh = match &*self.pending {
            [] => match rustix::io::read(&self.flow.source, &mut buffer) {
                // EIO is what a terminal says that nobody holds any more.
                Ok(0) | Err(Errno::IO) => return Ok(Moved::End),
                Ok(n) => &buffer[..n],
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Moved::Nothing),
                Err(e) => return Err(e.into()),
            },
            _ => &[],
        };
        let rest = if fresh.is_empty() { &self.pending } else { fresh };
        let Some(sink) = self.sink() else { return Ok(Moved::Nothing) };
        let written = match rustix::io::write(sink, rest) {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(Errno::PIPE) => {
                self.pending = rest.to_vec();
                return Ok(Moved::Unread);
            }
            Err(e) => return Err(e.into()),
        };
        if self.flow.direction == Direction::Out {
            self.ring.keep(rest.get(..written).unwrap_or_default());
        }
        self.pending = rest.get(written..).unwrap_or_default().to_vec();
        Ok(if written == 0 { Moved::Nothing } else { Moved::Bytes(written) })
    }
}

/// What a source is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Said,
    Empty,
    Ended,
}

fn look(source: impl AsFd) -> Source {
    match ready(source, PollFlags::IN) {
        ready if ready.contains(PollFlags::IN) => Source::Said,
        ready if ready.is_empty() => Source::Empty,
        _ => Source::Ended,
    }
}

fn ready(fd: impl AsFd, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(&fd, wanted)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).map_or(PollFlags::empty(), |_| fds[0].revents())
}
