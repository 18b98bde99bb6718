//! A process's standard streams: what it gets, and what is to be moved between that and what the client named.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::fifo;
use sys::pidfd::PidFd;
use types::output::{LogFile, Output, Program};
use types::{Error, Result, ResultExt};

use crate::errno::Os;
use crate::logfile::{self, Channel};
use crate::logger::{self, Said, Subject};
use crate::runtime::Streams;
use crate::terminal::{End, Terminal};

/// The paths of a process's streams, as the client gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// FIFO, or empty for none.
    pub stdin: String,
    /// See [`types::output`].
    pub stdout: String,
    /// As standard output; unused with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// From or to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Input of the process.
    In,
    /// Output of the process.
    Out,
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the kernel, between two pipes.
    Splice,
    /// Through our memory: a terminal is at one end.
    Copy,
}

/// What is to be moved.
pub struct Flow {
    /// See [`Direction`].
    pub direction: Direction,
    /// Where it comes from; non-blocking.
    pub source: End,
    /// Where it goes to.
    pub sink: Sink,
    /// Keeps the end of input away, until the client asks for it.
    pub keeper: Option<OwnedFd>,
    /// Where output may wait while nobody takes it, if it may.
    pub spool: Option<PathBuf>,
}

/// Where bytes go to; descriptors are non-blocking.
pub enum Sink {
    /// The process.
    Process(End),
    /// The client's FIFO, and its path.
    Fifo(OwnedFd, PathBuf),
    /// A program that takes output.
    Logger(OwnedFd, Channel),
    /// A log file, opened by whoever writes to it.
    Log(LogFile, Channel),
}

impl Flow {
    fn output(source: End, (sink, spool): Goal) -> Self {
        Self { direction: Direction::Out, source, sink, keeper: None, spool }
    }

    fn input((source, keeper): (OwnedFd, OwnedFd), sink: End) -> Self {
        let (direction, source, sink) = (Direction::In, End::Own(source), Sink::Process(sink));
        Self { direction, source, sink, keeper: Some(keeper), spool: None }
    }

    /// The terminal that is at one end, if there is one.
    pub fn terminal(&self) -> Option<&Terminal> {
        match (&self.source, &self.sink) {
            (End::Own(_), Sink::Process(end)) => end.terminal(),
            (source, Sink::Process(_) | Sink::Fifo(..) | Sink::Logger(..) | Sink::Log(..)) => {
                source.terminal()
            }
        }
    }

    /// How its bytes are moved.
    pub fn method(&self) -> Method {
        if self.terminal().is_some() { Method::Copy } else { Method::Splice }
    }
}

/// What the runtime call gets, and what begins when it has succeeded.
pub struct Plan {
    streams: Planned,
    logger: Option<Logger>,
}

/// A program that takes output.
pub struct Logger {
    /// What it is.
    pub program: Program,
    /// Whose output it takes.
    pub subject: Subject,
    /// Its process, until somebody watches over it.
    pub child: Option<PidFd>,
    /// Where it says that it is ready, until it has.
    ready: Option<OwnedFd>,
}

enum Planned {
    Pipes {
        /// Standard input, output and error of the process, until it has them.
        child: Option<[OwnedFd; 3]>,
        /// What is to be moved.
        flows: Vec<Flow>,
    },
    /// A terminal, whose master comes over this socket.
    Terminal {
        /// Where the runtime sends the master.
        socket: ConsoleSocket,
        /// Where output goes to.
        stdout: Option<Goal>,
        /// The client's FIFO for input, opened, with its keeper.
        stdin: Option<(OwnedFd, OwnedFd)>,
    },
}

/// Where output goes to, and where it may wait.
type Goal = (Sink, Option<PathBuf>);

/// Whose streams, and what there is around them.
pub struct Place<'a> {
    /// The container's namespace.
    pub namespace: &'a str,
    /// The container and the exec id, empty for init.
    pub process: (&'a str, &'a str),
    /// The container's bundle.
    pub bundle: &'a Path,
    /// Where a console socket may be made.
    pub console: &'a Path,
    /// Whom pipes belong to.
    pub owner: PipeOwner,
}

/// Where a runtime call sends the terminal's master. Removed from the filesystem when it is dropped.
pub struct ConsoleSocket {
    listener: OwnedFd,
    /// Its path.
    pub path: PathBuf,
}

/// Whom the process's pipes belong to.
#[derive(Clone, Copy, Debug, Default)]
pub struct PipeOwner {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

impl Plan {
    /// Opens everything that `stdio` names, and starts the program that takes output, if there is one.
    pub fn open(stdio: &Stdio, place: &Place<'_>) -> Result<Self> {
        let (mut goals, logger) = place.goals(stdio)?;
        let stdin = Some(stdio.stdin.as_str()).filter(|path| !path.is_empty()).map(open_stdin).transpose()?;
        if stdio.terminal {
            let [stdout, _] = &mut goals;
            let (socket, stdout) = (ConsoleSocket::new(place.console)?, stdout.take());
            return Ok(Self { streams: Planned::Terminal { socket, stdout, stdin }, logger });
        }
        let mut flows = Vec::new();
        let input = match stdin {
            None => null()?,
            Some(opened) => {
                let (reader, writer) = pipe(place.owner, Direction::In)?;
                flows.push(Flow::input(opened, End::Own(writer)));
                reader
            }
        };
        let mut output = |goal: Option<Goal>| -> Result<OwnedFd> {
            let Some(goal) = goal else { return null() };
            let (source, writer) = pipe(place.owner, Direction::Out)?;
            flows.push(Flow::output(End::Own(source), goal));
            Ok(writer)
        };
        let [stdout, stderr] = goals.map(&mut output);
        let child = [input, stdout?, stderr?];
        Ok(Self { streams: Planned::Pipes { child: Some(child), flows }, logger })
    }

    /// The program that takes output, if there is one.
    pub fn logger(&mut self) -> Option<&mut Logger> {
        self.logger.as_mut()
    }

    /// What becomes readable when the program that takes output is ready, while it is not.
    pub fn awaits(&self) -> Option<&OwnedFd> {
        self.logger.as_ref().and_then(|logger| logger.ready.as_ref())
    }

    /// The program that takes output has said something, or ended: whether the process can be made now.
    pub fn logger_said(&mut self) -> Result<Said> {
        let Some(logger) = &mut self.logger else { return Ok(Said::Ready) };
        let Some(ready) = &logger.ready else { return Ok(Said::Ready) };
        let said = logger::listen(ready, &logger.program)?;
        if said == Said::Ready {
            logger.ready = None;
        }
        Ok(said)
    }

    /// What the runtime call gets for streams.
    pub fn streams(&self) -> Streams<'_> {
        match &self.streams {
            Planned::Pipes { child: Some(child), .. } => Streams::Given(child.each_ref().map(AsFd::as_fd)),
            Planned::Pipes { child: None, .. } | Planned::Terminal { .. } => Streams::Captured,
        }
    }

    /// Where the runtime call sends the terminal's master, if there is one.
    pub fn console(&self) -> Option<&ConsoleSocket> {
        match &self.streams {
            Planned::Pipes { .. } => None,
            Planned::Terminal { socket, .. } => Some(socket),
        }
    }

    /// The runtime call has its streams: as long as we held them too, their end would never come.
    pub fn launched(&mut self) {
        if let Planned::Pipes { child, .. } = &mut self.streams {
            *child = None;
        }
    }

    /// The runtime call has succeeded: what is to be moved, and the terminal.
    pub fn begin(self) -> Result<(Vec<Flow>, Option<Rc<Terminal>>)> {
        match self.streams {
            Planned::Pipes { flows, .. } => Ok((flows, None)),
            Planned::Terminal { socket, stdout, stdin } => {
                let master = socket.receive().context(|| "failed to retrieve console master")?;
                set_nonblocking(&master)?;
                let terminal = Rc::new(Terminal::new(master));
                let end = || End::Terminal(Rc::clone(&terminal));
                let mut flows = Vec::new();
                flows.extend(stdout.map(|goal| Flow::output(end(), goal)));
                flows.extend(stdin.map(|opened| Flow::input(opened, end())));
                Ok((flows, Some(terminal)))
            }
        }
    }
}

impl Place<'_> {
    /// Where standard output and error go to.
    fn goals(&self, stdio: &Stdio) -> Result<([Option<Goal>; 2], Option<Logger>)> {
        let stdout = Output::parse(&stdio.stdout)?;
        // A terminal has no second stream.
        let stderr = if stdio.terminal { Output::None } else { Output::parse(&stdio.stderr)? };
        match (stdout, stderr) {
            // It takes both, whatever the second says.
            (Output::Program(program), _) => {
                let subject = Subject {
                    namespace: self.namespace.to_owned(),
                    container: self.process.0.to_owned(),
                    directory: self.bundle.to_owned(),
                };
                let logger::Started { child, stdout, stderr, ready } = logger::start(&program, &subject)?;
                let goals = [(stdout, Channel::Out), (stderr, Channel::Err)]
                    .map(|(fd, channel)| Some((Sink::Logger(fd, channel), self.spool(channel))));
                Ok((goals, Some(Logger { program, subject, child: Some(child), ready: Some(ready) })))
            }
            (_, Output::Program(_)) => Err(Error::invalid("a program that takes standard error alone")),
            (stdout, stderr) => {
                Ok(([self.goal(stdout, Channel::Out)?, self.goal(stderr, Channel::Err)?], None))
            }
        }
    }

    fn goal(&self, output: Output, channel: Channel) -> Result<Option<Goal>> {
        let log_to = |log: LogFile| -> Result<Option<Goal>> {
            // Opened by who writes to it; here only so that the client hears of a mistake.
            logfile::open(&log).context(|| format!("open log file {}", log.path.display()))?;
            Ok(Some((Sink::Log(log, channel), None)))
        };
        match output {
            Output::None | Output::Program(_) => Ok(None),
            Output::File(log) => log_to(log),
            Output::Path(path) => {
                let kind = kind(&path)?;
                if kind == FileType::Fifo {
                    let doing = || format!("containerd-shim: opening w/o fifo {:?} failed", path.display());
                    let fd = fifo::open_writer(&path).context(doing)?;
                    return Ok(Some((Sink::Fifo(fd, path), self.spool(channel))));
                }
                if kind == FileType::RegularFile {
                    return log_to(LogFile::plain(path));
                }
                if path == Path::new("/dev/null") { Ok(None) } else { Err(not_stdio(&path)) }
            }
        }
    }

    /// Where output waits while nobody takes it: nowhere without a directory on disk.
    fn spool(&self, channel: Channel) -> Option<PathBuf> {
        let work = self.bundle.join("work");
        // A link. Whoever needs it follows it, which may take long.
        work.symlink_metadata().ok()?;
        let process = match self.process.1 {
            "" => "init".to_owned(),
            exec => format!("exec-{exec}"),
        };
        Some(work.join("spool").join(format!("{process}.{}", channel.name())))
    }
}

impl ConsoleSocket {
    fn new(path: &Path) -> Result<Self> {
        let doing = || "failed to create OCI runtime console socket";
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .os()
            .context(doing)?;
        let address = SocketAddrUnix::new(path).os().context(doing)?;
        rustix::net::bind(&listener, &address).os().context(doing)?;
        let socket = Self { listener, path: path.to_owned() };
        rustix::net::listen(&socket.listener, 1).os().context(doing)?;
        Ok(socket)
    }

    /// Takes the master. The runtime has sent it before it ended, so there is nothing to wait for.
    fn receive(&self) -> Result<OwnedFd> {
        let connection =
            rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).os()?;
        Ok(sys::pty::receive(&connection)?)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn kind(path: &Path) -> Result<FileType> {
    let stat = rustix::fs::stat(path).os().context(|| format!("stat {}", path.display()))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn not_stdio(path: &Path) -> Error {
    Error::unimplemented(format!("{} is no FIFO: other files as STDIO: not implemented", path.display()))
}

fn open_stdin(path: &str) -> Result<(OwnedFd, OwnedFd)> {
    let Output::Path(path) = Output::parse(path)? else {
        return Err(Error::invalid(format!("STDIO {path:?}: input comes from a FIFO")));
    };
    if kind(&path)? != FileType::Fifo {
        return Err(not_stdio(&path));
    }
    fifo::open_reader(&path).context(|| format!("failed to open stdin fifo {}", path.display()))
}

/// Nothing to read, and a place for what nobody wants.
pub fn null() -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null").context(|| "open /dev/null")?;
    Ok(file.into())
}

/// A pipe whose end on our side does not block, and whose other end belongs to `owner`.
fn pipe(owner: PipeOwner, direction: Direction) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).os().context(|| "create a pipe")?;
    let (ours, theirs) = match direction {
        Direction::In => (&writer, &reader),
        Direction::Out => (&reader, &writer),
    };
    set_nonblocking(ours)?;
    if (owner.uid, owner.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(theirs, Some(uid), Some(gid)).os().context(|| "failed to chown a pipe")?;
    }
    Ok((reader, writer))
}

/// Makes reads and writes of `fd` return at once.
pub fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = fcntl_getfl(fd).os()?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK).os()?)
}

/// Standard streams for a call that needs none: nothing to read, and what it writes goes to `output`.
pub struct Captured<'a> {
    null: OwnedFd,
    output: &'a File,
}

impl<'a> Captured<'a> {
    /// Everything written goes to `output`.
    pub fn new(output: &'a File) -> Result<Self> {
        Ok(Self { null: null()?, output })
    }

    /// For the call.
    pub fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        [self.null.as_fd(), self.output.as_fd(), self.output.as_fd()]
    }
}
