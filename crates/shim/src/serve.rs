//! The server process: sets itself up, runs the loop, takes its socket away.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use sys::epoll::{Epoll, Ready};
use sys::process::exit_now;
use sys::reaper::{Signals, become_subreaper};
use types::{Result, ResultExt};

use crate::address::Socket;
use crate::children::Children;
use crate::context::Context;
use crate::errno::Os;
use crate::log::Log;
use crate::oom::Watches;
use crate::publisher::{Publisher, Way};
use crate::server::Server;
use crate::shim::Shim;
use crate::spool::Limits;
use crate::streams::Streams;
use crate::timers::Timers;
use crate::token::{Kind, Token};

/// What a server must know.
pub struct Settings {
    /// The namespace of all its containers.
    pub namespace: String,
    /// The container it was started for.
    pub id: String,
    /// The daemon's gRPC socket.
    pub grpc_address: String,
    /// The daemon's ttrpc socket, for events.
    pub ttrpc_address: String,
    /// The daemon's program, which tells it of events where there is no such socket.
    pub publish_binary: String,
    /// Whether to log more.
    pub debug: bool,
    /// The bundle it was started in.
    pub bundle: PathBuf,
}

impl Settings {
    fn way(&self) -> Way {
        Way::new(&self.ttrpc_address, &self.publish_binary, &self.grpc_address)
    }
}

/// Serves in a forked child: on its own, with nothing of the caller's but the socket.
pub fn detached(listener: OwnedFd, socket: Socket, settings: &Settings) -> ! {
    // First of all, as the caller reads our standard output to its end.
    let detached = let_go_of_caller();
    let address = settings.grpc_address.as_str();
    let mut name = vec!["containerd-shim-runc-v2", "-namespace", &settings.namespace, "-id", &settings.id];
    name.extend(["-address", address]);
    if settings.debug {
        name.push("-debug");
    }
    let name: Vec<&OsStr> = name.into_iter().map(OsStr::new).collect();
    let _ = sys::process::set_command_line(&name);
    let served = detached.and_then(|()| run(listener, &socket, settings));
    socket.remove();
    if let Err(error) = &served {
        Log::new(&settings.bundle, settings.debug).error(&error.to_string(), &settings.id);
    }
    exit_now(i32::from(served.is_err()))
}

/// Serves on `listener` until it is shut down.
pub fn run(listener: OwnedFd, socket: &Socket, settings: &Settings) -> Result<()> {
    become_subreaper().context(|| "become subreaper")?;
    let signals = Signals::new(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]).context(|| "take signals")?;
    let epoll = Epoll::new().context(|| "create epoll")?;
    epoll
        .add(&signals, Token { kind: Kind::Signal, serial: 0 }.pack(), Ready::IN)
        .context(|| "watch signals")?;
    let server = Server::new(listener, &epoll).context(|| "serve")?;
    let console_prefix = socket.path().with_file_name(format!("p{}.", std::process::id()));
    let cx = Context {
        namespace: settings.namespace.clone(),
        server,
        epoll,
        children: Children::default(),
        watches: Watches::default(),
        streams: Streams::new(Limits::from_environment()),
        loggers: Vec::new(),
        publisher: Publisher::new(settings.way(), &settings.namespace),
        timers: Timers::default(),
        log: Log::new(&settings.bundle, settings.debug),
        console_prefix,
        consoles: 0,
    };
    log_panics(settings);
    let mut shim = Shim::new(cx, signals);
    shim.cx.log.debug("serving", &settings.id);
    let result = shim.run();
    // Nobody new finds us from here on; who is connected sees the end when we are gone.
    socket.remove();
    result
}

fn let_go_of_caller() -> Result<()> {
    let null =
        std::fs::File::options().read(true).write(true).open("/dev/null").context(|| "open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).os().context(|| "redirect stdin")?;
    rustix::stdio::dup2_stdout(&null).os().context(|| "redirect stdout")?;
    rustix::stdio::dup2_stderr(&null).os().context(|| "redirect stderr")?;
    rustix::process::setsid().os().context(|| "setsid")?;
    Ok(())
}

/// A panic ends the shim; the daemon's log should say why.
fn log_panics(settings: &Settings) {
    let (bundle, id, debug) = (settings.bundle.clone(), settings.id.clone(), settings.debug);
    std::panic::set_hook(Box::new(move |info| Log::new(&bundle, debug).error(&info.to_string(), &id)));
}
