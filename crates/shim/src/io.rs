//! A process's standard streams: what it gets, and what is to be moved between that and the client's FIFOs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::fifo;
use types::{Error, Result, ResultExt};

use crate::errno::Os;
use crate::runtime::Streams;

/// The paths of a process's streams, as the client gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// FIFO, or empty for none.
    pub stdin: String,
    /// FIFO, `file://` and the path of a log, or empty for none.
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
    /// Through our memory.
    Copy,
    /// Through our memory to a file that grows: the kernel does not splice to its end.
    Append,
}

/// What is to be moved, and how.
pub struct Flow {
    /// See [`Direction`].
    pub direction: Direction,
    /// See [`Method`].
    pub method: Method,
    /// Where it comes from; non-blocking.
    pub source: OwnedFd,
    /// Where it goes to; non-blocking.
    pub sink: OwnedFd,
    /// The client's FIFO or log file.
    pub path: PathBuf,
    /// Keeps the end of input away, until the client asks for it.
    pub keeper: Option<OwnedFd>,
}

/// What the runtime call gets, and what begins when it has succeeded.
pub enum Plan {
    /// Pipes, or nothing.
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
        /// The client's FIFO for output, opened.
        stdout: Option<(PathBuf, OwnedFd)>,
        /// The client's FIFO for input, opened, with its keeper.
        stdin: Option<(PathBuf, OwnedFd, OwnedFd)>,
    },
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
    /// Opens everything that `stdio` names. `console` is where a console socket may be made.
    pub fn open(stdio: &Stdio, owner: PipeOwner, console: &Path) -> Result<Self> {
        for path in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
            check(path)?;
        }
        if stdio.terminal {
            return Self::terminal(stdio, console);
        }
        let mut flows = Vec::new();
        let stdin = if stdio.stdin.is_empty() {
            null()?
        } else {
            let (path, source, keeper) = open_stdin(&stdio.stdin)?;
            let (reader, writer) = pipe(owner, Direction::In)?;
            flows.push(Flow {
                direction: Direction::In,
                method: Method::Splice,
                source,
                sink: writer,
                path,
                keeper: Some(keeper),
            });
            reader
        };
        let mut output = |path: &str| -> Result<OwnedFd> {
            if path.is_empty() {
                return null();
            }
            let method = if log_file(path).is_some() { Method::Append } else { Method::Splice };
            let (path, sink) = open_output(path)?;
            let (source, writer) = pipe(owner, Direction::Out)?;
            let direction = Direction::Out;
            flows.push(Flow { direction, method, source, sink, path, keeper: None });
            Ok(writer)
        };
        let child = [stdin, output(&stdio.stdout)?, output(&stdio.stderr)?];
        Ok(Self::Pipes { child: Some(child), flows })
    }

    fn terminal(stdio: &Stdio, console: &Path) -> Result<Self> {
        let given = |path: &str| !path.is_empty();
        Ok(Self::Terminal {
            socket: ConsoleSocket::new(console)?,
            stdout: Some(stdio.stdout.as_str()).filter(|p| given(p)).map(open_output).transpose()?,
            stdin: Some(stdio.stdin.as_str()).filter(|p| given(p)).map(open_stdin).transpose()?,
        })
    }

    /// What the runtime call gets for streams.
    pub fn streams(&self) -> Streams<'_> {
        match self {
            Self::Pipes { child: Some(child), .. } => Streams::Given(child.each_ref().map(AsFd::as_fd)),
            Self::Pipes { child: None, .. } | Self::Terminal { .. } => Streams::Captured,
        }
    }

    /// Where the runtime call sends the terminal's master, if there is one.
    pub fn console(&self) -> Option<&ConsoleSocket> {
        match self {
            Self::Pipes { .. } => None,
            Self::Terminal { socket, .. } => Some(socket),
        }
    }

    /// The runtime call has its streams: as long as we held them too, their end would never come.
    pub fn launched(&mut self) {
        if let Self::Pipes { child, .. } = self {
            *child = None;
        }
    }

    /// The runtime call has succeeded: what is to be moved, and the terminal's master.
    pub fn begin(self) -> Result<(Vec<Flow>, Option<OwnedFd>)> {
        match self {
            Self::Pipes { flows, .. } => Ok((flows, None)),
            Self::Terminal { socket, stdout, stdin } => {
                let master = socket.receive().context(|| "failed to retrieve console master")?;
                set_nonblocking(&master)?;
                let copy = |fd: &OwnedFd| fd.try_clone().context(|| "duplicate the console master");
                let mut flows = Vec::new();
                if let Some((path, sink)) = stdout {
                    let (direction, method, source) = (Direction::Out, Method::Copy, copy(&master)?);
                    flows.push(Flow { direction, method, source, sink, path, keeper: None });
                }
                if let Some((path, source, keeper)) = stdin {
                    let (direction, method, sink) = (Direction::In, Method::Copy, copy(&master)?);
                    flows.push(Flow { direction, method, source, sink, path, keeper: Some(keeper) });
                }
                Ok((flows, Some(master)))
            }
        }
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

/// Refuses what is neither empty nor a path of a FIFO or of a log file.
fn check(path: &str) -> Result<()> {
    match path.split_once("://") {
        Some(("fifo" | "file", _)) | None => Ok(()),
        Some((scheme @ ("binary" | "binary-v2"), _)) => {
            Err(Error::unimplemented(format!("STDIO scheme {scheme}: not implemented")))
        }
        Some((scheme, _)) => Err(Error::unknown(format!("unknown STDIO scheme {scheme}"))),
    }
}

fn fifo_path(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path.strip_prefix("fifo://").unwrap_or(path));
    if !fifo::is_fifo(&path).context(|| format!("stat {}", path.display()))? {
        let what = format!("{} is no FIFO: other files as STDIO: not implemented", path.display());
        return Err(Error::unimplemented(what));
    }
    Ok(path)
}

/// The path of a log file that output is added to; its directory may have to be made.
fn log_file(path: &str) -> Option<&Path> {
    path.strip_prefix("file://").map(Path::new)
}

fn open_log(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("open log file {}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(doing)?;
    }
    let file = File::options().append(true).create(true).mode(0o644).open(path).context(doing)?;
    Ok(file.into())
}

fn open_output(path: &str) -> Result<(PathBuf, OwnedFd)> {
    if let Some(path) = log_file(path) {
        return Ok((path.to_owned(), open_log(path)?));
    }
    let path = fifo_path(path)?;
    let doing = || format!("containerd-shim: opening w/o fifo {:?} failed", path.display());
    let fd = fifo::open_writer(&path).context(doing)?;
    Ok((path, fd))
}

fn open_stdin(path: &str) -> Result<(PathBuf, OwnedFd, OwnedFd)> {
    let path = fifo_path(path)?;
    let (reader, keeper) =
        fifo::open_reader(&path).context(|| format!("failed to open stdin fifo {}", path.display()))?;
    Ok((path, reader, keeper))
}

fn null() -> Result<OwnedFd> {
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

fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
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
