//! Streams between processes and clients' FIFOs, a bounded piece of each in a turn.
//!
//! ```text
//!  stdout, stderr:  container's pipe   --splice-->  client's FIFO
//!  stdin:           client's FIFO      --splice-->  container's pipe
//!  terminal:        pty master         <--copy-->   client's FIFOs
//! ```
//!
//! A stream waits for one thing at a time, and only that is in the loop: its source, its sink, or a reader of its FIFO
//! (told by inotify). A reader that is slow or absent holds the container back through the full pipe; nothing is thrown
//! away while anybody may still come for it, that is until the process is deleted.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use sys::epoll::{Epoll, Ready};
use sys::fifo::{self, Moved};

use crate::io::{Direction, Flow, Method};
use crate::token::{Kind, Token};

/// At most so much of a stream moves in one turn.
const TURN: usize = 256 << 10;
/// At most so much of a terminal's stream is in our memory.
const COPY: usize = 4 << 10;

/// Whose stream: the container and the exec id.
pub type Owner = Rc<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Source,
    Sink,
    /// For somebody to open the FIFO; the number is inotify's.
    Reader(i32),
    Nothing,
}

struct Stream {
    owner: Owner,
    flow: Flow,
    waiting: Waiting,
    /// What was read of a terminal's stream and not written yet.
    pending: Vec<u8>,
    /// The source has ended; what it wrote waits in the FIFO for a reader.
    ended: bool,
}

/// What a turn of a stream came to.
pub enum Turn {
    /// It goes on.
    Open,
    /// It has come to its end and is gone.
    Closed(Owner),
    /// A terminal has nothing more to say for now.
    Empty,
    /// What it has to say waits for a reader.
    Unread(Owner),
}

/// All streams.
#[derive(Default)]
pub struct Streams {
    open: BTreeMap<u64, Stream>,
    next: u64,
    inotify: Option<OwnedFd>,
}

impl Streams {
    /// Begins to move what `flow` says.
    pub fn add(&mut self, owner: &Owner, flow: Flow, epoll: &Epoll) -> io::Result<()> {
        self.next += 1;
        let owner = Rc::clone(owner);
        let mut stream = Stream { owner, flow, waiting: Waiting::Nothing, pending: Vec::new(), ended: false };
        stream.wait(Waiting::Source, self.next, epoll)?;
        self.open.insert(self.next, stream);
        Ok(())
    }

    /// Moves what can be moved.
    pub fn turn(&mut self, serial: u64, epoll: &Epoll) -> Turn {
        let Some(stream) = self.open.get_mut(&serial) else { return Turn::Open };
        let next = stream.pump();
        let unread = next == Next::Unread && stream.flow.direction == Direction::Out;
        let waited = match next {
            Next::Again => return Turn::Open,
            Next::Source => stream.wait(Waiting::Source, serial, epoll),
            Next::Sink => stream.wait(Waiting::Sink, serial, epoll),
            Next::Unread if unread => self.await_reader(serial, epoll),
            Next::Unread | Next::End => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match (waited, next) {
            (Err(_), _) => self.close(serial).map_or(Turn::Open, Turn::Closed),
            (Ok(()), Next::Source) => Turn::Empty,
            (Ok(()), Next::Unread) => self.open.get(&serial).map_or(Turn::Open, Stream::unread),
            (Ok(()), _) => Turn::Open,
        }
    }

    /// The streams whose FIFO somebody may have opened.
    pub fn readers_came(&mut self) -> Vec<u64> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 512];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut came = Vec::new();
        while let Ok(event) = reader.next() {
            let of_event =
                |s: &Stream| s.waiting == Waiting::Reader(event.wd()) && fifo::is_read(&s.flow.sink);
            came.extend(self.open.iter().filter(|(_, s)| of_event(s)).map(|(serial, _)| *serial));
        }
        came
    }

    /// The client's last byte of input is on its way: the process sees the end when the client has closed too.
    pub fn close_stdin(&mut self, owner: &(String, String)) {
        for stream in self.open.values_mut().filter(|s| *s.owner == *owner) {
            stream.flow.keeper = None;
        }
    }

    /// The process has ended: nobody reads its input, and its terminal ends when nothing more comes.
    /// Returns the terminals' streams.
    pub fn process_ended(&mut self, owner: &(String, String)) -> Vec<u64> {
        self.open.retain(|_, s| *s.owner != *owner || s.flow.direction == Direction::Out);
        let of_terminal = |s: &Stream| *s.owner == *owner && s.flow.method == Method::Copy;
        self.open.iter().filter(|(_, s)| of_terminal(s)).map(|(serial, _)| *serial).collect()
    }

    /// Whether all output was delivered. Output that nobody reads is given up: the process is being deleted.
    pub fn is_drained(&mut self, owner: &(String, String)) -> bool {
        self.open.retain(|_, s| *s.owner != *owner || !matches!(s.waiting, Waiting::Reader(_)));
        !self.open.values().any(|s| *s.owner == *owner && s.flow.direction == Direction::Out)
    }

    /// Ends all streams of a process, delivered or not.
    pub fn abandon(&mut self, owner: &(String, String)) {
        self.open.retain(|_, s| *s.owner != *owner);
    }

    /// Ends a stream.
    pub fn close(&mut self, serial: u64) -> Option<Owner> {
        self.open.remove(&serial).map(|s| s.owner)
    }

    fn await_reader(&mut self, serial: u64, epoll: &Epoll) -> io::Result<()> {
        let Some(stream) = self.open.get_mut(&serial) else { return Ok(()) };
        if self.inotify.is_none() {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            epoll.add(&fd, Token { kind: Kind::Reader, serial: 0 }.pack(), Ready::IN)?;
            self.inotify = Some(fd);
        }
        let Some(inotify) = &self.inotify else { return Ok(()) };
        // A FIFO that was removed cannot be opened by anybody: the stream then waits for the deletion.
        let watch = inotify::add_watch(inotify, &stream.flow.path, inotify::WatchFlags::OPEN).unwrap_or(-1);
        let next = if fifo::is_read(&stream.flow.sink) {
            // Somebody came between the attempt and the watch.
            if stream.ended { return Err(io::ErrorKind::UnexpectedEof.into()) } else { Waiting::Sink }
        } else {
            Waiting::Reader(watch)
        };
        stream.wait(next, serial, epoll)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The turn is over, there is more.
    Again,
    Source,
    Sink,
    Unread,
    End,
}

impl Stream {
    fn unread(&self) -> Turn {
        match self.waiting {
            Waiting::Reader(_) => Turn::Unread(Rc::clone(&self.owner)),
            Waiting::Source | Waiting::Sink | Waiting::Nothing => Turn::Open,
        }
    }

    fn wait(&mut self, waiting: Waiting, serial: u64, epoll: &Epoll) -> io::Result<()> {
        if self.waiting == waiting {
            return Ok(());
        }
        let token = Token { kind: Kind::Stream, serial }.pack();
        match self.waiting {
            Waiting::Source => epoll.remove(&self.flow.source)?,
            Waiting::Sink => epoll.remove(&self.flow.sink)?,
            Waiting::Reader(_) | Waiting::Nothing => {}
        }
        self.waiting = waiting;
        match waiting {
            Waiting::Source => epoll.add(&self.flow.source, token, Ready::IN),
            Waiting::Sink => epoll.add(&self.flow.sink, token, Ready::OUT),
            Waiting::Reader(_) | Waiting::Nothing => Ok(()),
        }
    }

    fn pump(&mut self) -> Next {
        let mut budget = TURN;
        while budget > 0 {
            let moved = match self.flow.method {
                _ if self.ended => Ok(Moved::End),
                Method::Splice => fifo::transfer(&self.flow.source, &self.flow.sink, budget),
                Method::Copy | Method::Append => self.copy(),
            };
            match moved {
                Ok(Moved::Bytes(n)) => budget = budget.saturating_sub(n),
                Ok(Moved::Nothing) if !self.pending.is_empty() || has_data(&self.flow.source) => {
                    return Next::Sink;
                }
                Ok(Moved::Nothing) => return Next::Source,
                Ok(Moved::Unread) => return Next::Unread,
                Ok(Moved::End)
                    if self.flow.direction == Direction::Out && !fifo::is_read(&self.flow.sink) =>
                {
                    self.ended = true;
                    return Next::Unread;
                }
                // An error of a descriptor is its end: there is nobody to be told, and nothing that could be repeated.
                Ok(Moved::End) | Err(_) => return Next::End,
            }
        }
        Next::Again
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
        let written = match rustix::io::write(&self.flow.sink, rest) {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(Errno::PIPE) => {
                self.pending = rest.to_vec();
                return Ok(Moved::Unread);
            }
            Err(e) => return Err(e.into()),
        };
        self.pending = rest.get(written..).unwrap_or_default().to_vec();
        Ok(if written == 0 { Moved::Nothing } else { Moved::Bytes(written) })
    }
}

fn has_data(source: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&source, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}
