//! Carriers: forks that move one stream of output where a disk has a part in it.
//!
//! ```text
//!  container's pipe --carrier--> log file                                 the client gave a `file://`
//!  container's pipe --carrier--> spool --carrier--> FIFO, logger's pipe   nobody takes it, or has taken all yet
//! ```
//!
//! The shim's loop never waits for a disk; a carrier may. While it runs nobody else reads the stream's source. It ends,
//! and the shim goes on where it stopped, when there is nothing left for it to do: when the source has ended, when the
//! reader has caught up with the process, when nothing was said for a while. So an idle container has no carrier.
//!
//! SIGTERM asks for the end after the step at hand; SIGHUP says that the shim is gone: what is left is moved for a moment.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use sys::fifo;
use sys::pidfd::{Ended, PidFd};
use sys::process::{Fork, close_others, exit_now, fork, set_command_line, signal_on_parent_end};
use sys::reaper::Signals;
use types::output::LogFile;
use types::{Result, ResultExt};

use crate::logfile::memo::Left;
use crate::logfile::{Channel, LogWriter};
use crate::spool::{Kept, Limits, Queue, Spool};

/// After so long without output, or without a reader for it, a carrier ends.
const IDLE: Duration = Duration::from_secs(10);
/// How long a terminal whose process has ended may be silent before it is taken to be done.
const QUIET: Duration = Duration::from_millis(500);
/// How long a carrier outlives its shim.
const AFTERWARDS: Duration = Duration::from_secs(10);
const BUFFER: usize = 64 << 10;
/// After so many reads without a pause it looks whether somebody wants it to end.
const TURNS: u32 = 16;

/// What is to be carried.
pub struct Job<'a> {
    /// Whose output, for `ps`.
    pub name: &'a str,
    /// Where output comes from; none if it has ended.
    pub source: Option<BorrowedFd<'a>>,
    /// The process has ended: a terminal that says nothing more is done.
    pub quiet_is_end: bool,
    /// What was read of the source before.
    pub pending: &'a [u8],
    /// Who gets what is logged as well, as far as they take it at once.
    pub copies: Vec<BorrowedFd<'a>>,
    /// Where to.
    pub goal: Goal<'a>,
}

/// Where output is carried to.
pub enum Goal<'a> {
    /// A log file, and what the carrier before has left.
    Log(LogFile, Channel, BorrowedFd<'a>),
    /// Somebody who is not there, or has not taken all yet.
    Reader {
        /// The pipe to them.
        sink: BorrowedFd<'a>,
        /// The FIFO's path, where readers come by that.
        fifo: Option<&'a Path>,
        /// What waits for them.
        spool: &'a Spool,
        /// How much may.
        limits: Limits,
    },
}

/// Why a carrier has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The source has ended, and nothing waits any more.
    Finished,
    /// The source has ended; what waits in the spool waits for a reader.
    Waiting,
    /// The spool is empty, and a reader there.
    CaughtUp,
    /// There was nothing to do, or somebody asked for the end.
    Idle,
    /// It failed, or was killed.
    Failed,
}

const OUTCOMES: [(Outcome, u32); 4] =
    [(Outcome::Finished, 0), (Outcome::Waiting, 40), (Outcome::CaughtUp, 41), (Outcome::Idle, 42)];

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        let known = OUTCOMES.into_iter().find(|(_, code)| ended == Ended::Code(*code));
        known.map_or(Self::Failed, |(outcome, _)| outcome)
    }
}

/// Begins to carry.
pub fn start(job: &Job<'_>) -> Result<PidFd> {
    match fork().context(|| "fork")? {
        Fork::Parent(child) => Ok(child),
        Fork::Child => {
            let outcome = carry(job).unwrap_or(Outcome::Failed);
            exit_now(
                OUTCOMES.into_iter().find(|(o, _)| *o == outcome).map_or(1, |(_, code)| code.cast_signed()),
            )
        }
    }
}

fn carry(job: &Job<'_>) -> Result<Outcome> {
    let mut kept: Vec<BorrowedFd<'_>> = job.source.into_iter().collect();
    kept.extend(&job.copies);
    match &job.goal {
        Goal::Log(_, _, memo) => kept.push(*memo),
        Goal::Reader { sink, spool, .. } => kept.extend([*sink, spool.memo.as_fd()]),
    }
    close_others(&kept).context(|| "close what is not needed")?;
    let _ = set_command_line(&["containerd-output".as_ref(), job.name.as_ref()]);
    signal_on_parent_end(rustix::process::Signal::HUP).context(|| "watch the shim")?;
    let signals = Signals::new(&[libc::SIGTERM, libc::SIGHUP]).context(|| "take signals")?;
    let mut source = Source::new(job, signals);
    match &job.goal {
        Goal::Log(log, channel, memo) => {
            let log = LogWriter::new(log.clone(), *channel, Left::read(*memo));
            let copies = job.copies.clone();
            Logging { log, memo: *memo, copies }.run(&mut source, job.pending)
        }
        Goal::Reader { sink, fifo, spool, limits } => {
            let queue = Queue::open(spool, *limits).context(|| "open the spool")?;
            let (sink, fifo, unkept) = (*sink, *fifo, job.pending.to_vec());
            Delivery { queue, sink, fifo, watch: None, unkept }.run(&mut source)
        }
    }
}

/// The source, and whoever tells us when to end.
struct Source<'a> {
    fd: Option<BorrowedFd<'a>>,
    quiet_is_end: bool,
    signals: Signals,
    /// When it last said something.
    heard: Instant,
    /// When we end at the latest.
    end: Option<Instant>,
    asked_to_end: bool,
}

impl<'a> Source<'a> {
    fn new(job: &Job<'a>, signals: Signals) -> Self {
        let (fd, quiet_is_end) = (job.source, job.quiet_is_end);
        Self { fd, quiet_is_end, signals, heard: Instant::now(), end: None, asked_to_end: false }
    }

    fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Reads what is there; nothing if there is nothing now, or no more.
    fn read<'b>(&mut self, buffer: &'b mut [u8]) -> &'b [u8] {
        let Some(fd) = self.fd else { return &[] };
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {
                if self.quiet_is_end && self.heard.elapsed() >= QUIET {
                    self.fd = None;
                }
                &[]
            }
            // A terminal that nobody holds any more answers with an error.
            Ok(0) | Err(_) => {
                self.fd = None;
                &[]
            }
            Ok(n) => {
                self.heard = Instant::now();
                buffer.get(..n).unwrap_or_default()
            }
        }
    }

    /// Whether it is time to end although there may be more.
    fn is_over(&self) -> bool {
        self.asked_to_end || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Whether the shim is gone.
    fn is_orphan(&self) -> bool {
        self.end.is_some()
    }

    fn is_idle(&self) -> bool {
        self.heard.elapsed() >= IDLE
    }

    /// Waits until the source has something (if `wanted`), or `other` is ready for what it is watched for, or it is time
    /// to look.
    fn wait(&mut self, wanted: bool, other: Option<(BorrowedFd<'_>, PollFlags)>) -> io::Result<()> {
        let limit = if self.quiet_is_end { QUIET } else { IDLE };
        let limit = self.end.map_or(limit, |end| limit.min(end.saturating_duration_since(Instant::now())));
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(fd) = self.fd.as_ref().filter(|_| wanted) {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        if let Some((fd, flags)) = &other {
            fds.push(PollFd::new(fd, *flags));
        }
        let limit = rustix::time::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        drop(fds);
        self.hear_signals()
    }

    /// Whether somebody wants us to end.
    fn hear_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.next()? {
            if signal == libc::SIGHUP {
                self.end.get_or_insert(Instant::now() + AFTERWARDS);
            } else {
                self.asked_to_end = true;
            }
        }
        Ok(())
    }
}

/// Writes a log.
struct Logging<'a> {
    log: LogWriter,
    memo: BorrowedFd<'a>,
    copies: Vec<BorrowedFd<'a>>,
}

impl Logging<'_> {
    fn run(mut self, source: &mut Source<'_>, pending: &[u8]) -> Result<Outcome> {
        let (mut buffer, mut turns) = (vec![0; BUFFER], 0);
        self.log.write(pending);
        loop {
            // Who asks for the end waits for it, however much the process says.
            let said = if source.is_over() { &[] } else { source.read(&mut buffer) };
            if !said.is_empty() {
                self.log.write(said);
                self.copy(said);
                turns = (turns + 1) % TURNS;
                if turns == 0 {
                    source.hear_signals()?;
                }
                continue;
            }
            if !source.is_open() {
                self.log.finish();
                return Ok(Outcome::Finished);
            }
            if source.is_over() || source.is_idle() {
                return self.leave(source);
            }
            source.wait(true, None)?;
        }
    }

    /// Gives a copy to everybody who has room for it now.
    fn copy(&mut self, said: &[u8]) {
        // Those who have gone are the shim's to forget.
        self.copies.retain(
            |fd| !matches!(rustix::io::write(fd, said), Err(e) if e != Errno::AGAIN && e != Errno::INTR),
        );
    }

    /// Ends while the process goes on.
    fn leave(mut self, source: &Source<'_>) -> Result<Outcome> {
        if source.is_orphan() {
            // Nobody comes after us.
            self.log.finish();
        } else {
            self.log.leave().write(self.memo).context(|| "keep what is not written yet")?;
        }
        Ok(Outcome::Idle)
    }
}

/// Delivers by way of a spool.
struct Delivery<'a> {
    queue: Queue,
    sink: BorrowedFd<'a>,
    fifo: Option<&'a Path>,
    watch: Option<std::os::fd::OwnedFd>,
    /// What the process has said and the spool has no room for. The process waits meanwhile if somebody reads.
    unkept: Vec<u8>,
}

impl Delivery<'_> {
    fn run(mut self, source: &mut Source<'_>) -> Result<Outcome> {
        let mut buffer = vec![0; BUFFER];
        self.keep();
        loop {
            let is_read = fifo::is_read(self.sink);
            if is_read && self.queue.has_lost() {
                self.tell_lost();
            }
            let delivered = is_read && self.deliver(&mut buffer)?;
            let held_back = is_read && (!self.unkept.is_empty() || !self.queue.has_room(BUFFER));
            let taken = if held_back { 0 } else { self.take(source, &mut buffer) };
            self.keep();
            let is_read = fifo::is_read(self.sink);
            if self.queue.is_empty() && self.unkept.is_empty() && is_read {
                self.queue.remove();
                return Ok(if source.is_open() { Outcome::CaughtUp } else { Outcome::Finished });
            }
            if let Some(outcome) = self.outcome(source, is_read) {
                self.lose();
                return Ok(outcome);
            }
            if taken == 0 && !delivered {
                self.wait(source, is_read, held_back)?;
            }
        }
    }

    /// Why to end now, if so.
    fn outcome(&self, source: &Source<'_>, is_read: bool) -> Option<Outcome> {
        if source.is_over() {
            return Some(if source.is_open() { Outcome::Idle } else { Outcome::Waiting });
        }
        match (is_read, source.is_open()) {
            // Once more, without a reader to wait for: what finds no room is lost.
            (false, _) if !self.unkept.is_empty() => None,
            (false, false) if self.queue.is_empty() => Some(Outcome::Finished),
            (false, false) => Some(Outcome::Waiting),
            (false, true) if source.is_idle() => Some(Outcome::Idle),
            _ => None,
        }
    }

    /// Takes what the process says; how much.
    fn take(&mut self, source: &mut Source<'_>, buffer: &mut [u8]) -> usize {
        // Nobody reads and there is no room: it is too late for this.
        self.lose();
        let said = source.read(buffer);
        self.unkept.extend_from_slice(said);
        said.len()
    }

    /// Puts it behind what waits already.
    fn keep(&mut self) {
        if !self.unkept.is_empty() && self.queue.push(&self.unkept) == Kept::Yes {
            self.unkept.clear();
        }
    }

    /// Tells the reader of what was lost: behind what waits, or at once where a full disk takes not even that.
    fn tell_lost(&mut self) {
        if self.queue.tell_lost().is_err() && !self.queue.has_bytes() {
            self.unkept.splice(0..0, self.queue.take_mark());
        }
    }

    fn lose(&mut self) {
        if !self.unkept.is_empty() {
            self.queue.lose(self.unkept.len());
            self.unkept.clear();
        }
    }

    /// Moves bytes to the reader, from the spool first; whether any went.
    fn deliver(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let waiting = self.queue.peek(buffer).context(|| "read the spool")?;
        let (from_spool, bytes) = match buffer.get(..waiting) {
            Some(bytes @ [_, ..]) => (true, bytes),
            _ if self.queue.is_empty() && !self.unkept.is_empty() => (false, self.unkept.as_slice()),
            _ => return Ok(false),
        };
        match rustix::io::write(self.sink, bytes) {
            Ok(written) if from_spool => self.queue.taken(written),
            Ok(written) => drop(self.unkept.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR | Errno::PIPE) => return Ok(false),
            Err(e) => return Err(io::Error::from(e)).context(|| "deliver output"),
        }
        Ok(true)
    }

    fn wait(&mut self, source: &mut Source<'_>, is_read: bool, held_back: bool) -> Result<()> {
        if is_read {
            return Ok(source.wait(!held_back, Some((self.sink, PollFlags::OUT)))?);
        }
        let Some(fifo) = self.fifo else { return Ok(source.wait(true, None)?) };
        let watch = match &self.watch {
            Some(watch) => watch,
            None => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let fd = inotify::init(flags).map_err(io::Error::from)?;
                // Nobody can open a FIFO that was removed: then there is nothing to be told of.
                let _ = inotify::add_watch(&fd, fifo, inotify::WatchFlags::OPEN);
                self.watch.insert(fd)
            }
        };
        if fifo::is_read(self.sink) {
            // Somebody came between the look and the watch.
            return Ok(());
        }
        source.wait(true, Some((watch.as_fd(), PollFlags::IN)))?;
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 512];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        while events.next().is_ok() {}
        Ok(())
    }
}
