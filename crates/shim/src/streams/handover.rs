//! Streams, handed over with the bytes that are under way and with whoever carries them.

use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use api::containerdrs::shim::v1 as wire;
use sys::epoll::Epoll;
use sys::handover::Inherited;
use types::output::{Format, LogFile, MAX_LINE, Rotation};
use types::{Error, Result, ResultExt};

use super::copies::Attached;
use super::{Owner, Stream, Streams, Waiting};
use crate::death::Ring;
use crate::handover::{Kept, required};
use crate::io::{Direction, Flow, Method, Sink};
use crate::logfile::Channel;
use crate::spool::{Limits, Spool};
use crate::terminal::{End, Terminal, Terminals};

const METHODS: [Method; 2] = [Method::Splice, Method::Copy];
const FORMATS: [Format; 3] = [Format::Raw, Format::Cri, Format::Json];

/// Kinds of sinks on the wire.
const PROCESS: u32 = 0;
const FIFO: u32 = 1;
const PROGRAM: u32 = 2;
const LOG: u32 = 3;

/// Whether a stream that was written down means something to us.
pub fn check(stream: &wire::Stream) -> Result<()> {
    known(&METHODS, stream.method, "a way of moving a stream")?;
    let sink = required(stream.sink.as_ref(), "sink of a stream")?;
    known(&FORMATS, sink.format, "a format of a log file")?;
    known(&[PROCESS, FIFO, PROGRAM, LOG], sink.kind, "a kind of sink")?;
    required(stream.owner.as_ref(), "owner of a stream").map(drop)
}

fn known<T: Copy>(all: &[T], number: u32, what: &str) -> Result<T> {
    let found = usize::try_from(number).ok().and_then(|number| all.get(number).copied());
    found.ok_or_else(|| Error::unimplemented(format!("{what}: {number} is not known here: not implemented")))
}

fn number<T: PartialEq>(all: &[T], one: &T) -> u32 {
    all.iter().position(|known| known == one).and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX)
}

/// Whose it is.
pub fn write_owner(owner: &Owner) -> wire::Owner {
    wire::Owner { container: owner.0.clone(), exec: owner.1.clone() }
}

/// The same, back.
pub fn read_owner(owner: wire::Owner) -> Owner {
    Rc::new((owner.container, owner.exec))
}

impl Streams {
    /// Puts them into `state`.
    pub fn write_down<'a>(&'a self, state: &mut wire::State, kept: &mut Kept<'a>) {
        // Who waits for a reader looks again, and is told anew. The environment says the limits.
        let Self { open, next, inotify: _, limits: _, said, copies } = self;
        state.next_stream = *next;
        state.next_copy = copies.next;
        state.copies = copies.open.iter().map(|(serial, copy)| write_copy(*serial, copy, kept)).collect();
        state.streams = open.iter().map(|(serial, stream)| stream.write_down(*serial, kept)).collect();
        let gone = |(owner, ring): (&Owner, &'a Ring)| {
            write_ring(ring, kept).map(|ring| wire::Ring { owner: Some(write_owner(owner)), ..ring })
        };
        state.rings = said.iter().filter_map(gone).collect();
    }

    /// Those of `state`. Each that nobody carries has to have a turn before the loop begins.
    pub fn read_back(
        state: &mut wire::State,
        limits: Limits,
        (inherited, terminals): (&mut Inherited, &Terminals),
        epoll: &Epoll,
    ) -> Result<Self> {
        let mut streams = Self { next: state.next_stream, ..Self::new(limits) };
        for stream in std::mem::take(&mut state.streams) {
            let (serial, carried) = (stream.serial, stream.carrier != 0);
            let mut stream = Stream::read_back(stream, inherited, terminals)?;
            if !carried {
                stream.wait(Waiting::Source, serial, epoll).context(|| "watch a stream")?;
            }
            streams.open.insert(serial, stream);
        }
        for copy in std::mem::take(&mut state.copies) {
            let (serial, copy) = (copy.serial, read_copy(copy, inherited)?);
            streams.copies.put(serial, copy, epoll).context(|| "watch who is attached")?;
        }
        streams.copies.next = state.next_copy;
        for mut ring in std::mem::take(&mut state.rings) {
            let owner = read_owner(required(ring.owner.take(), "owner of a terminal")?);
            streams.said.insert(owner, read_ring(ring, inherited)?);
        }
        Ok(streams)
    }

    /// The streams that nobody carries.
    pub fn uncarried(&self) -> Vec<u64> {
        self.open.iter().filter(|(_, stream)| stream.carrier().is_none()).map(|(serial, _)| *serial).collect()
    }
}

impl Stream {
    fn write_down<'a>(&'a self, serial: u64, kept: &mut Kept<'a>) -> wire::Stream {
        // What it waits for follows from the rest, but for who carries it.
        let Self { owner, flow, waiting: _, pending, ended, quiet, spool, memo, ring } = self;
        let Flow { direction, source, sink, keeper, spool: may_wait } = flow;
        let waiting = |spool: &'a Spool, kept: &mut Kept<'a>| {
            let Spool { path, memo } = spool;
            wire::Spool { path: path.to_string_lossy().into_owned(), memo: kept.add(memo) }
        };
        wire::Stream {
            serial,
            owner: Some(write_owner(owner)),
            input: *direction == Direction::In,
            method: number(&METHODS, &flow.method()),
            source: write_end(source, kept),
            sink: Some(write_sink(sink, kept)),
            keeper: keeper.as_ref().map(|fd| kept.add(fd)),
            spool: may_wait.as_ref().map(|path| path.to_string_lossy().into_owned()),
            pending: pending.clone(),
            ended: *ended,
            quiet: *quiet,
            carrier: self.carrier().unwrap_or(0),
            waiting: spool.as_ref().map(|spool| waiting(spool, kept)),
            memo: memo.as_ref().map(|fd| kept.add(fd)),
            ring: write_ring(ring, kept),
        }
    }

    fn read_back(stream: wire::Stream, inherited: &mut Inherited, terminals: &Terminals) -> Result<Self> {
        check(&stream)?;
        let owner = read_owner(required(stream.owner, "owner of a stream")?);
        let sink = required(stream.sink, "sink of a stream")?;
        let method = known(&METHODS, stream.method, "a way of moving a stream")?;
        let terminal = terminals.of(&owner).filter(|_| method == Method::Copy);
        let mut spool = None;
        if let Some(wire::Spool { path, memo }) = stream.waiting {
            spool = Some(Spool { path: PathBuf::from(path), memo: inherited.take(memo)? });
        }
        Ok(Self {
            owner,
            flow: Flow {
                direction: if stream.input { Direction::In } else { Direction::Out },
                source: read_end(stream.source, terminal.clone().filter(|_| !stream.input), inherited)?,
                sink: read_sink(sink, terminal, inherited)?,
                keeper: stream.keeper.map(|fd| inherited.take(fd)).transpose()?,
                spool: stream.spool.map(PathBuf::from),
            },
            waiting: if stream.carrier == 0 { Waiting::Nothing } else { Waiting::Carrier(stream.carrier) },
            pending: stream.pending,
            ended: stream.ended,
            quiet: stream.quiet,
            spool,
            memo: stream.memo.map(|fd| inherited.take(fd)).transpose()?,
            ring: stream.ring.map(|ring| read_ring(ring, inherited)).transpose()?.unwrap_or_default(),
        })
    }
}

fn write_copy<'a>(serial: u64, copy: &'a Attached, kept: &mut Kept<'a>) -> wire::Copy {
    let Attached { owner, channel, fd } = copy;
    wire::Copy { serial, owner: Some(write_owner(owner)), error: *channel == Channel::Err, fd: kept.add(fd) }
}

fn read_copy(copy: wire::Copy, inherited: &mut Inherited) -> Result<Attached> {
    Ok(Attached {
        owner: read_owner(required(copy.owner, "owner of a copy")?),
        channel: channel(copy.error),
        fd: inherited.take(copy.fd)?,
    })
}

fn channel(error: bool) -> Channel {
    if error { Channel::Err } else { Channel::Out }
}

fn write_ring<'a>(ring: &'a Ring, kept: &mut Kept<'a>) -> Option<wire::Ring> {
    let (file, written) = ring.parts();
    file.map(|file| wire::Ring { fd: kept.add(file), written, owner: None })
}

fn read_ring(ring: wire::Ring, inherited: &mut Inherited) -> Result<Ring> {
    Ok(Ring::of(Some(File::from(inherited.take(ring.fd)?)), ring.written))
}

/// A terminal is the process's; what its streams have of it are copies.
fn write_end<'a>(end: &'a End, kept: &mut Kept<'a>) -> i32 {
    match end {
        End::Own(fd) => kept.add(fd),
        End::Terminal(terminal) => kept.add_copy(terminal),
    }
}

fn read_end(number: i32, terminal: Option<Rc<Terminal>>, inherited: &mut Inherited) -> Result<End> {
    Ok(match terminal {
        Some(terminal) => End::Terminal(terminal),
        None => End::Own(inherited.take(number)?),
    })
}

fn write_sink<'a>(sink: &'a Sink, kept: &mut Kept<'a>) -> wire::Sink {
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let error = |channel: &Channel| *channel == Channel::Err;
    match sink {
        Sink::Process(end) => {
            wire::Sink { kind: PROCESS, fd: Some(write_end(end, kept)), ..wire::Sink::default() }
        }
        Sink::Fifo(fd, at) => {
            wire::Sink { kind: FIFO, fd: Some(kept.add(fd)), path: path(at), ..wire::Sink::default() }
        }
        Sink::Logger(fd, channel) => wire::Sink {
            kind: PROGRAM,
            fd: Some(kept.add(fd)),
            error: error(channel),
            ..wire::Sink::default()
        },
        Sink::Log(LogFile { path: at, format, rotation, max_line }, channel) => wire::Sink {
            kind: LOG,
            path: path(at),
            error: error(channel),
            format: number(&FORMATS, format),
            max_size: rotation.map_or(0, |rotation| rotation.max_size),
            max_files: rotation.map_or(0, |rotation| rotation.max_files),
            max_line: max_line.map_or(-1, i64::from),
            ..wire::Sink::default()
        },
    }
}

fn read_sink(sink: wire::Sink, terminal: Option<Rc<Terminal>>, inherited: &mut Inherited) -> Result<Sink> {
    let channel = channel(sink.error);
    let rotation =
        (sink.max_files != 0).then_some(Rotation { max_size: sink.max_size, max_files: sink.max_files });
    let path = PathBuf::from(sink.path);
    let mut fd = || Ok::<_, Error>(inherited.take(required(sink.fd, "descriptor of a sink")?)?);
    match sink.kind {
        PROCESS => {
            let number = required(sink.fd, "descriptor of a sink")?;
            read_end(number, terminal, inherited).map(Sink::Process)
        }
        FIFO => Ok(Sink::Fifo(fd()?, path)),
        PROGRAM => Ok(Sink::Logger(fd()?, channel)),
        _ => {
            let format = known(&FORMATS, sink.format, "a format of a log file")?;
            let max_line = match sink.max_line {
                // As long as nothing else could be said.
                0 => Some(MAX_LINE),
                max => u32::try_from(max).ok(),
            };
            Ok(Sink::Log(LogFile { path, format, rotation, max_line }, channel))
        }
    }
}
