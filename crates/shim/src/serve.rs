//! The server process: sets itself up, runs the loop, takes its socket away.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use api::containerdrs::shim::v1 as wire;
use sys::epoll::{Epoll, Ready};
use sys::handover::Inherited;
use sys::process::exit_now;
use sys::reaper::{Signals, become_subreaper};
use types::{Result, ResultExt};

use crate::address::Socket;
use crate::carriage::Logger;
use crate::children::Children;
use crate::context::Context;
use crate::debug::Door;
use crate::errno::Os;
use crate::handover::required;
use crate::log::Log;
use crate::oom::Watches;
use crate::publisher::{Publisher, Way};
use crate::server::Server;
use crate::shim::Shim;
use crate::spool::Limits;
use crate::streams::Streams;
use crate::terminal::Terminals;
use crate::timers::Timers;
use crate::token::{Kind, Token};

/// What a server must know.
#[derive(Clone, Debug)]
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

    /// The command line of a server, as tools look for it.
    pub fn command_line(&self) -> Vec<String> {
        let mut words = vec!["containerd-shim-runc-v2", "-namespace", &self.namespace, "-id", &self.id];
        words.extend(["-address", &self.grpc_address]);
        if self.debug {
            words.push("-debug");
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// Lets `ps` show it. The old one is of no harm.
    fn set_command_line(&self) {
        let words = self.command_line();
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let _ = sys::process::set_command_line(&words);
    }

    /// For another program of this process.
    pub fn write_down(&self) -> wire::Settings {
        let Self { namespace, id, grpc_address, ttrpc_address, publish_binary, debug, bundle } = self.clone();
        let bundle = bundle.to_string_lossy().into_owned();
        wire::Settings { namespace, id, grpc_address, ttrpc_address, debug, bundle, publish_binary }
    }

    fn read_back(settings: wire::Settings) -> Self {
        let wire::Settings { namespace, id, grpc_address, ttrpc_address, debug, bundle, publish_binary } =
            settings;
        Self { namespace, id, grpc_address, ttrpc_address, publish_binary, debug, bundle: bundle.into() }
    }
}

/// Where a server is reached.
pub struct Doors {
    /// Its socket, listening.
    pub listener: OwnedFd,
    /// The same in the filesystem.
    pub socket: Socket,
    /// For debuggers, where they are wanted.
    pub debug: Option<Door>,
}

impl Doors {
    /// The sockets in the filesystem, which are removed when nobody listens any more.
    pub fn sockets(&self) -> Vec<Socket> {
        let debug = self.debug.iter().map(|door| door.socket.clone());
        debug.chain([self.socket.clone()]).collect()
    }
}

/// Serves in a forked child: on its own, with nothing of the caller's but the sockets.
pub fn detached(doors: Doors, settings: &Settings) -> ! {
    // First of all, as the caller reads our standard output to its end.
    let detached = let_go_of_caller();
    settings.set_command_line();
    let sockets = doors.sockets();
    let served = detached.and_then(|()| run(doors, settings));
    sockets.iter().for_each(Socket::remove);
    if let Err(error) = &served {
        Log::new(&settings.bundle, settings.debug).error(&error.to_string(), &settings.id);
    }
    exit_now(i32::from(served.is_err()))
}

/// Serves until it is shut down.
pub fn run(doors: Doors, settings: &Settings) -> Result<()> {
    let sockets = doors.sockets();
    let Doors { listener, socket, debug } = doors;
    become_subreaper().context(|| "become subreaper")?;
    let (signals, epoll) = signals()?;
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
        awaiting: Vec::new(),
        wordings: Vec::new(),
        publisher: Publisher::new(settings.way(), &settings.namespace),
        timers: Timers::default(),
        log: Log::new(&settings.bundle, settings.debug),
        console_prefix,
        consoles: 0,
    };
    log_panics(settings);
    let mut shim = Shim::new(cx, signals, settings.clone(), socket);
    shim.open_to_debuggers(debug)?;
    shim.cx.log.debug("serving", &settings.id);
    let result = shim.run();
    // Nobody new finds us from here on; who is connected sees the end when we are gone.
    sockets.iter().for_each(Socket::remove);
    result
}

fn signals() -> Result<(Signals, Epoll)> {
    let signals = Signals::new(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1])
        .context(|| "take signals")?;
    let epoll = Epoll::new().context(|| "create epoll")?;
    epoll
        .add(&signals, Token { kind: Kind::Signal, serial: 0 }.pack(), Ready::IN)
        .context(|| "watch signals")?;
    Ok((signals, epoll))
}

/// Serves in place of another program of this process, until it is shut down. `begin` is called when everything is there.
pub fn go_on(mut state: wire::State, mut inherited: Inherited, begin: impl FnOnce(&mut Shim)) -> Result<()> {
    let settings = Settings::read_back(required(state.settings.take(), "settings")?);
    let mut sockets = vec![Socket::read_back(required(state.socket.clone(), "socket")?)];
    sockets.extend(state.debug_socket.clone().map(Socket::read_back));
    settings.set_command_line();
    log_panics(&settings);
    let served = restore(state, &mut inherited, &settings).and_then(|mut shim| {
        // What nobody has taken is nobody's.
        drop(inherited);
        begin(&mut shim);
        shim.look_around();
        shim.run()
    });
    sockets.iter().for_each(Socket::remove);
    if let Err(error) = &served {
        Log::new(&settings.bundle, settings.debug).error(&error.to_string(), &settings.id);
    }
    served
}

fn restore(mut state: wire::State, inherited: &mut Inherited, settings: &Settings) -> Result<Shim> {
    let (signals, epoll) = signals()?;
    let server = Server::read_back(&mut state, inherited, &epoll)?;
    let children = Children::read_back(&mut state, inherited, &epoll)?;
    let terminals = Terminals::read_back(&state, inherited)?;
    let limits = Limits::from_environment();
    let streams = Streams::read_back(&mut state, limits, (inherited, &terminals), &epoll)?;
    let events = required(state.publisher.take(), "publisher")?;
    let cx = Context {
        namespace: settings.namespace.clone(),
        server,
        children,
        streams,
        watches: Watches::read_back(&mut state, inherited, &epoll)?,
        loggers: std::mem::take(&mut state.loggers)
            .into_iter()
            .map(Logger::read_back)
            .collect::<Result<_>>()?,
        awaiting: Vec::new(),
        wordings: Vec::new(),
        publisher: Publisher::read_back(events, (settings.way(), &settings.namespace), inherited, &epoll)?,
        epoll,
        timers: Timers::read_back(std::mem::take(&mut state.timers)),
        log: Log::new(&settings.bundle, settings.debug),
        console_prefix: PathBuf::from(&state.console_prefix),
        consoles: state.consoles,
    };
    Shim::read_back(cx, signals, settings.clone(), state, (inherited, &terminals))
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
