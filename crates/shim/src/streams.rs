//! Streams between processes and their clients, a bounded piece of each in a turn.
//!
//! ```text
//!  stdout, stderr:  container's pipe   --splice-->   client's FIFO, logger's pipe
//!                                      --carrier-->  log file; FIFO or logger by way of the spool
//!  stdin:           client's FIFO      --splice-->   container's pipe
//!  terminal:        pty master         <--copy-->    client's FIFOs; output as above
//! ```
//!
//! A stream waits for one thing at a time, and only that is in the loop: its source, its sink, a reader of its FIFO (told
//! by inotify), or a carrier, a fork that does what needs a disk. A terminal is one descriptor, which its two streams wait for
//! together (`terminal`). A reader that is slow holds the container back through the full pipe. One that is absent does not:
//! output goes to the spool, and whoever comes gets it from there, before what is new. Nothing is thrown away while anybody may
//! still come for it, that is until the process is deleted.
//!
//! Who is attached to a process gets copies of what is written to its log, by its carrier.
//!
//! What is here are plain values and descriptors, so that another program can go on with them.

mod copies;
mod handover;
mod stream;

pub use copies::open as open_copy;
pub use handover::{check, read_owner, write_owner};

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::inotify;
use sys::epoll::{Epoll, Ready};
use types::Result;
use types::output::{LogFile, Output};

use crate::carrier::{Goal, Job, Outcome};
use crate::death::{Ring, Tail};
use crate::io::{Direction, Flow, Method, Sink};
use crate::logfile::Channel;
use crate::offload::memory_file;
use crate::spool::{Limits, Spool};
use crate::token::{Kind, Token};
use copies::Copies;
use stream::Next;

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
    /// For output, or for somebody who takes what is in the spool already.
    Either(i32),
    /// For a carrier, by its number among the children.
    Carrier(u64),
    Nothing,
}

struct Stream {
    owner: Owner,
    flow: Flow,
    waiting: Waiting,
    /// What was read of a terminal's stream and not written yet.
    pending: Vec<u8>,
    /// The source has ended; what it wrote waits for a reader.
    ended: bool,
    /// The process has ended, and with it a terminal that says nothing more.
    quiet: bool,
    /// What nobody took yet, if there is any.
    spool: Option<Spool>,
    /// What is not written to a log yet, once there was a carrier.
    memo: Option<OwnedFd>,
    /// The last of a terminal's output.
    ring: Ring,
}

/// What a turn of a stream came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    Open,
    /// It has come to its end and is gone.
    Closed(Owner),
    /// A terminal has nothing more to say for now.
    Empty,
    /// What it has to say waits for a reader.
    Unread(Owner),
    /// It needs a carrier.
    Carry,
    /// Its carrier has failed: it needs another one, after a while.
    Failed,
}

/// All streams.
pub struct Streams {
    open: BTreeMap<u64, Stream>,
    next: u64,
    inotify: Option<OwnedFd>,
    limits: Limits,
    /// The last output of terminals whose streams are gone, until their processes are forgotten.
    said: BTreeMap<Owner, Ring>,
    copies: Copies,
}

impl Streams {
    /// None yet. `limits` is for what nobody takes.
    pub fn new(limits: Limits) -> Self {
        let (said, copies) = (BTreeMap::new(), Copies::default());
        Self { open: BTreeMap::new(), next: 0, inotify: None, limits, said, copies }
    }

    /// Begins to move what `flow` says.
    pub fn add(&mut self, owner: &Owner, flow: Flow, epoll: &Epoll) -> io::Result<()> {
        self.next += 1;
        let mut stream = Stream {
            owner: Rc::clone(owner),
            flow,
            waiting: Waiting::Nothing,
            pending: Vec::new(),
            ended: false,
            quiet: false,
            spool: None,
            memo: None,
            ring: Ring::default(),
        };
        stream.wait(Waiting::Source, self.next, epoll)?;
        self.open.insert(self.next, stream);
        Ok(())
    }

    /// Moves what can be moved.
    pub fn turn(&mut self, serial: u64, epoll: &Epoll) -> Turn {
        let Some(stream) = self.open.get_mut(&serial) else { return Turn::Open };
        let next = stream.next(self.limits);
        let waited = match next {
            Next::Again => return Turn::Open,
            Next::Carry => stream.wait(Waiting::Nothing, serial, epoll),
            Next::Source => stream.wait(Waiting::Source, serial, epoll),
            Next::Sink => stream.wait(Waiting::Sink, serial, epoll),
            Next::Unread => return self.unread(serial, epoll),
            Next::End => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match (waited, next) {
            (Err(_), _) => self.close(serial, epoll).map_or(Turn::Open, Turn::Closed),
            (Ok(()), Next::Source) => Turn::Empty,
            (Ok(()), Next::Carry) => Turn::Carry,
            (Ok(()), _) => Turn::Open,
        }
    }

    /// The streams that wait for what the terminal of the stream `serial` is ready for.
    pub fn at_terminal(&self, serial: u64, ready: Ready) -> [Option<u64>; 2] {
        let terminal = self.open.get(&serial).and_then(|stream| stream.flow.terminal());
        terminal.map_or([None; 2], |terminal| terminal.woken(ready))
    }

    /// What a carrier needs, if the stream waits for one.
    pub fn job<'a>(&'a self, serial: u64, name: &'a mut String) -> Option<Job<'a>> {
        let stream = self.open.get(&serial).filter(|s| s.waiting == Waiting::Nothing)?;
        let (container, exec) = &*stream.owner;
        *name = format!("{container} {exec}");
        let mut copies = Vec::new();
        let goal = match &stream.flow.sink {
            Sink::Log(log, channel) => {
                copies = self.copies.of(&stream.owner, *channel);
                Goal::Log(log.clone(), *channel, stream.memo.as_ref()?.as_fd())
            }
            Sink::Fifo(sink, path) => {
                let (spool, limits) = (stream.spool.as_ref()?, self.limits);
                Goal::Reader { sink: sink.as_fd(), fifo: Some(path), spool, limits }
            }
            Sink::Logger(sink, _) => {
                let (spool, limits) = (stream.spool.as_ref()?, self.limits);
                Goal::Reader { sink: sink.as_fd(), fifo: None, spool, limits }
            }
            // Input never waits on a disk.
            Sink::Process(_) => return None,
        };
        let source = (!stream.ended).then(|| stream.flow.source.as_fd());
        Some(Job { name, source, quiet_is_end: stream.quiet, pending: &stream.pending, copies, goal })
    }

    /// A spool for a stream that has none yet, or a memo for one that goes to a log.
    pub fn prepare(&mut self, serial: u64) -> Result<()> {
        let Some(stream) = self.open.get_mut(&serial) else { return Ok(()) };
        if let (None, Some(path)) = (&stream.spool, &stream.flow.spool) {
            stream.spool = Some(Spool::new(path)?);
        }
        if let (None, Sink::Log(..)) = (&stream.memo, &stream.flow.sink) {
            stream.memo = Some(memory_file("shim-log")?.into());
        }
        Ok(())
    }

    /// The log files of a process, with the carriers that write to them.
    pub fn logs(&self, owner: &(String, String)) -> Vec<(&LogFile, Channel, Option<u64>)> {
        let mut logs = Vec::new();
        for stream in self.open.values().filter(|s| *s.owner == *owner) {
            if let Sink::Log(log, channel) = &stream.flow.sink {
                logs.push((log, *channel, stream.carrier()));
            }
        }
        logs
    }

    /// Gives a copy of what is logged to `fd`, a pipe that does not block, from the next carrier on.
    pub fn attach(&mut self, of: (&Owner, Channel), fd: OwnedFd, epoll: &Epoll) -> io::Result<()> {
        self.copies.add(of, fd, epoll)
    }

    /// Whoever had a copy has gone.
    pub fn detach(&mut self, copy: u64, epoll: &Epoll) {
        self.copies.remove(copy, epoll);
    }

    /// The child `carrier` carries it from now on.
    pub fn carried_by(&mut self, serial: u64, carrier: u64) {
        if let Some(stream) = self.open.get_mut(&serial) {
            stream.pending = Vec::new();
            stream.waiting = Waiting::Carrier(carrier);
        }
    }

    /// A carrier has ended.
    pub fn carrier_ended(&mut self, carrier: u64, outcome: Outcome, epoll: &Epoll) -> Option<(u64, Turn)> {
        let (serial, stream) = self.open.iter_mut().find(|(_, s)| s.waiting == Waiting::Carrier(carrier))?;
        let serial = *serial;
        stream.waiting = Waiting::Nothing;
        stream.ended |= matches!(outcome, Outcome::Finished | Outcome::Waiting);
        if matches!(outcome, Outcome::Finished | Outcome::CaughtUp) {
            stream.spool = None;
        }
        let log = matches!(stream.flow.sink, Sink::Log(..));
        let quiet = stream.quiet;
        let turn = match outcome {
            Outcome::Finished if log => self.close(serial, epoll).map_or(Turn::Open, Turn::Closed),
            // It did not know yet that the process has ended.
            Outcome::Idle if quiet && !stream.ended => Turn::Carry,
            Outcome::Idle if log => self.go_on(serial, epoll),
            Outcome::Finished | Outcome::Waiting | Outcome::Idle => self.unread(serial, epoll),
            Outcome::CaughtUp => self.go_on(serial, epoll),
            Outcome::Failed => Turn::Failed,
        };
        Some((serial, turn))
    }

    /// The streams whose FIFO somebody may have opened.
    pub fn readers_came(&mut self) -> Vec<u64> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 512];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut came = Vec::new();
        while let Ok(event) = reader.next() {
            let waits = [Waiting::Reader(event.wd()), Waiting::Either(event.wd())];
            let of_event = |s: &Stream| waits.contains(&s.waiting) && s.is_read();
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
    pub fn process_ended(&mut self, owner: &(String, String), epoll: &Epoll) -> Vec<u64> {
        let inputs = self.serials(|s| *s.owner == *owner && s.flow.direction == Direction::In);
        for serial in inputs {
            self.take_out(serial, epoll);
        }
        let of_terminal = |s: &Stream| *s.owner == *owner && s.flow.method() == Method::Copy;
        let mut terminals = Vec::new();
        for (serial, stream) in self.open.iter_mut().filter(|(_, s)| of_terminal(s)) {
            stream.quiet = true;
            terminals.push(*serial);
        }
        terminals
    }

    /// A terminal whose process has ended says nothing more.
    pub fn silence(&mut self, serial: u64, epoll: &Epoll) -> Turn {
        let Some(stream) = self.open.get_mut(&serial) else { return Turn::Open };
        match (stream.waiting, &stream.spool) {
            // It hears that itself.
            (Waiting::Carrier(_), _) => Turn::Open,
            (_, Some(_)) => {
                stream.ended = true;
                self.unread(serial, epoll)
            }
            (_, None) => self.close(serial, epoll).map_or(Turn::Open, Turn::Closed),
        }
    }

    /// Whether all output of a process was delivered.
    pub fn is_drained(&self, owner: &(String, String)) -> bool {
        !self.open.values().any(|s| *s.owner == *owner && s.flow.direction == Direction::Out)
    }

    /// Gives up streams of a process that is being deleted. Returns what is to be taken away after them.
    pub fn give_up(&mut self, owner: &Owner, which: Which, epoll: &Epoll) -> Vec<GivenUp> {
        let given_up = |s: &Stream| {
            s.owner == *owner && (which == Which::All || s.flow.direction == Direction::Out && s.is_left())
        };
        if which == Which::All {
            self.said.retain(|of, _| of != owner);
            for channel in [Channel::Out, Channel::Err] {
                self.copies.end(owner, channel, epoll);
            }
        }
        let mut streams = Vec::new();
        for serial in self.serials(given_up) {
            let carrier = self.carrier(serial);
            let spool = self.take_out(serial, epoll).and_then(|s| s.spool).map(|spool| spool.path);
            streams.push(GivenUp { carrier, spool });
        }
        streams
    }

    /// The pipes of a process to the program that takes its output, with the streams; those that are still open.
    pub fn to_logger(&self, owner: &(String, String)) -> Vec<(u64, Channel, BorrowedFd<'_>)> {
        let mut pipes = Vec::new();
        for (serial, stream) in self.open.iter().filter(|(_, s)| *s.owner == *owner) {
            if let Sink::Logger(fd, channel) = &stream.flow.sink {
                pipes.push((*serial, *channel, fd.as_fd()));
            }
        }
        pipes
    }

    /// The carrier of a stream, if one is at work.
    pub fn carrier(&self, serial: u64) -> Option<u64> {
        self.open.get(&serial).and_then(Stream::carrier)
    }

    /// Waits for more of the source.
    fn go_on(&mut self, serial: u64, epoll: &Epoll) -> Turn {
        let Some(stream) = self.open.get_mut(&serial) else { return Turn::Open };
        match stream.wait(Waiting::Source, serial, epoll) {
            Err(_) => self.close(serial, epoll).map_or(Turn::Open, Turn::Closed),
            Ok(()) if stream.quiet => Turn::Empty,
            Ok(()) => Turn::Open,
        }
    }

    fn serials(&self, which: impl Fn(&Stream) -> bool) -> Vec<u64> {
        self.open.iter().filter(|(_, stream)| which(stream)).map(|(serial, _)| *serial).collect()
    }

    /// Takes a stream away, so that the loop is told of it no more.
    fn take_out(&mut self, serial: u64, epoll: &Epoll) -> Option<Stream> {
        let mut stream = self.open.remove(&serial)?;
        // To close its ends would not do: its terminal stays, and forks may hold what it waited for.
        let _ = stream.wait(Waiting::Nothing, serial, epoll);
        Some(stream)
    }

    fn close(&mut self, serial: u64, epoll: &Epoll) -> Option<Owner> {
        let Stream { owner, ring, flow, .. } = self.take_out(serial, epoll)?;
        if let Sink::Log(_, channel) = flow.sink {
            self.copies.end(&owner, channel, epoll);
        }
        if !ring.is_empty() {
            self.said.insert(Rc::clone(&owner), ring);
        }
        Some(owner)
    }

    /// Where the last of what a process said through `name` to `uri` can be found.
    pub fn tail(&self, owner: &Owner, (name, uri): (&'static str, &str)) -> Option<Tail<'_>> {
        let (path, log) = match Output::parse(uri) {
            Ok(Output::File(log)) => (log.path.clone(), Some(log.path)),
            Ok(Output::Path(path)) => (path, None),
            Ok(Output::None | Output::Program(_)) | Err(_) => return None,
        };
        let goes = |s: &&Stream| {
            s.owner == *owner
                && match &s.flow.sink {
                    Sink::Fifo(_, to) => *to == path,
                    Sink::Log(to, _) => to.path == path,
                    Sink::Process(_) | Sink::Logger(..) => false,
                }
        };
        let Some(stream) = self.open.values().find(goes) else {
            return Some(Tail { name, ring: self.said.get(owner), file: log, pipe: None, carried: false });
        };
        Some(Tail {
            name,
            ring: Some(&stream.ring),
            file: log.or_else(|| stream.spool.as_ref().map(|spool| spool.path.clone())),
            pipe: Some(stream.flow.source.as_fd()),
            carried: stream.carrier().is_some(),
        })
    }

    /// Nobody takes what the stream has to say: waits for somebody who does, and for more of it if there is a spool.
    fn unread(&mut self, serial: u64, epoll: &Epoll) -> Turn {
        match self.await_reader(serial, epoll) {
            Err(_) => self.close(serial, epoll).map_or(Turn::Open, Turn::Closed),
            Ok(turn) => turn,
        }
    }

    fn await_reader(&mut self, serial: u64, epoll: &Epoll) -> io::Result<Turn> {
        let Some(stream) = self.open.get_mut(&serial) else { return Ok(Turn::Open) };
        let watch = match &stream.flow.sink {
            Sink::Fifo(_, path) => {
                if self.inotify.is_none() {
                    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                    let fd = inotify::init(flags)?;
                    epoll.add(&fd, Token { kind: Kind::Reader, serial: 0 }.pack(), Ready::IN)?;
                    self.inotify = Some(fd);
                }
                // A FIFO that was removed cannot be opened by anybody: the stream then waits for the deletion.
                let watch = |fd| inotify::add_watch(fd, path, inotify::WatchFlags::OPEN).ok();
                self.inotify.as_ref().and_then(watch).unwrap_or(-1)
            }
            // A program that takes output does not come by itself.
            Sink::Logger(..) if stream.spool.is_some() || !stream.ended => -1,
            Sink::Logger(..) | Sink::Process(_) | Sink::Log(..) => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        if stream.is_read() {
            // Somebody came between the attempt and the watch.
            if stream.spool.is_some() {
                stream.wait(Waiting::Nothing, serial, epoll)?;
                return Ok(Turn::Carry);
            }
            if stream.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return stream.wait(Waiting::Sink, serial, epoll).map(|()| Turn::Open);
        }
        let next = match stream.spool {
            Some(_) if !stream.ended => Waiting::Either(watch),
            Some(_) | None => Waiting::Reader(watch),
        };
        stream.wait(next, serial, epoll)?;
        Ok(Turn::Unread(Rc::clone(&stream.owner)))
    }
}

/// Which streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that wait for a reader.
    Unread,
}

/// What is left of a stream that was given up.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Who carried it, by number among the children.
    pub carrier: Option<u64>,
    /// The file with what nobody took.
    pub spool: Option<std::path::PathBuf>,
}
