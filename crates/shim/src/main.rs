//! containerd-shim-runc-v2: supervises the processes of a container, or of a pod's containers, and drives an OCI runtime.
//!
//! ```text
//!  flags      the command line                   bootstrap  `start`: answers, forks
//!  delete     `delete`                           info       `-info`
//!  serve      the server process                 shim       the loop
//!  server     clients          wire  frames      service    Task requests
//!  own        our own requests                handover  another program goes on
//!  output     requests about logs             sandbox   requests about a pod's sandbox
//!  pause      the program of that
//!  driver     one container: performs            state      one container: decides (pure)
//!  runtime    runc and its errors                children   processes, orphans
//!  io         what a process gets                streams    what is moved
//!  carrier    output by way of a disk: forks     carriage   when there is one
//!  spool      output that nobody takes           logfile    lines, rotation
//!  logger     programs that take output          offload    what may block, in a forked child
//!  publisher  events, sent                       journal    events, kept
//!  stats      what a container uses              oom        memory that ran out
//!  death      the record of a death              debug      what is going on, for people
//! ```
//!
//! One thread, one epoll, no runtime beneath; idle it makes no system call.

#![forbid(unsafe_code)]

mod address;
mod bootstrap;
mod call;
mod carriage;
mod carrier;
mod children;
mod context;
mod death;
mod debug;
mod delete;
mod driver;
mod effect;
mod errno;
mod exit_file;
mod flags;
mod handover;
mod info;
mod io;
mod journal;
mod json;
mod log;
mod logfile;
mod logger;
mod message;
mod offload;
mod oom;
mod options;
mod output;
mod own;
mod pause;
mod publisher;
mod runtime;
mod sandbox;
mod serve;
mod server;
mod service;
mod shim;
mod spec;
mod spool;
mod state;
mod stats;
mod streams;
mod terminal;
mod timers;
mod token;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use types::{Error, Result, ResultExt};

use flags::Flags;

fn main() -> ExitCode {
    if let Some(wanted) = pause::wanted(std::env::args_os()) {
        return pause::run(wanted);
    }
    let flags = match Flags::parse(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(mistake) => {
            eprint!("{mistake}\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("io.containerd.runc.v2: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    if !flags.handover.is_empty() {
        return handover::go_on(flags);
    }
    if flags.help {
        eprint!("{}", flags::USAGE);
        return Ok(());
    }
    if flags.version {
        print_version();
        return Ok(());
    }
    if flags.info {
        return info::info();
    }
    if flags.namespace.is_empty() {
        return Err(Error::invalid("shim namespace cannot be empty"));
    }
    match flags.action.as_str() {
        "start" => bootstrap::start(flags),
        "delete" => delete::delete(flags),
        "" => serve_in_foreground(flags),
        other => Err(Error::invalid(format!("unknown action {other:?}"))),
    }
}

fn print_version() {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    println!("{name}:");
    println!("  Version:  {}", types::version::VERSION);
    println!("  Revision: {}", types::version::REVISION);
    println!("  Go version: none, this is Rust");
    println!();
}

/// Serves on the socket of the flags, for tests and debuggers.
fn serve_in_foreground(flags: &Flags) -> Result<()> {
    if flags.socket.is_empty() {
        return Err(Error::invalid("no action: expected start or delete, or -socket to serve on"));
    }
    let path = PathBuf::from(flags.socket.strip_prefix("unix://").unwrap_or(&flags.socket));
    let settings = serve::Settings {
        namespace: flags.namespace.clone(),
        id: flags.id.clone(),
        grpc_address: flags.address.clone(),
        ttrpc_address: std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
        publish_binary: flags.publish_binary.clone(),
        debug: flags.debug,
        bundle: std::env::current_dir().context(|| "working directory")?,
    };
    match address::claim(&path)? {
        address::Claim::Taken => Err(Error::already_exists(format!("{} is served already", path.display()))),
        address::Claim::Ours(listener, socket) => {
            let wanted = flags.debug && !flags.debug_socket.is_empty();
            let door = wanted.then(|| debug::Door::open(Path::new(&flags.debug_socket))).transpose()?;
            serve::run(serve::Doors { listener, socket, debug: door }, &settings)
        }
    }
}
