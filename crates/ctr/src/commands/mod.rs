//! The commands, a module per noun. Each answers the exit code.

pub mod containers;
pub mod content;
pub mod demo;
pub mod deprecations;
pub mod events;
pub mod images;
pub mod info;
pub mod install;
pub mod leases;
pub mod namespaces;
pub mod oci;
pub mod plugins;
pub mod pprof;
pub mod registry;
pub mod run;
pub mod sandboxes;
pub mod shim;
pub mod shims;
pub mod snapshots;
pub mod tasks;
pub mod version;
pub mod why;

use std::io::Write;

use types::{Error, Result};

use crate::cli::{Cli, Command};
use crate::client::Client;

/// Runs a command to its exit code.
pub async fn dispatch(cli: Cli) -> Result<u8> {
    let globals = &cli.globals;
    match cli.command {
        Command::Plugins(command) => done(plugins::run(&Client::open(globals)?, command).await),
        Command::Version(flags) => done(version::run(globals, flags).await),
        Command::Containers(command) => containers::run(globals, command).await,
        // It has exit codes of its own.
        Command::Content(content::Command::Check(flags)) => content::check::run(globals, flags).await,
        Command::Content(command) => done(content::run(globals, command).await),
        Command::Events(flags) => done(events::run(&Client::open(globals)?, flags).await),
        Command::Images(command) => done(images::run(globals, command).await),
        Command::Install(flags) => done(install::run(globals, flags).await),
        Command::Leases(command) => done(leases::run(globals, command).await),
        Command::Namespaces(command) => done(namespaces::run(globals, command).await),
        Command::Run(flags) => run::run(globals, *flags).await,
        Command::Snapshots(flags) => done(snapshots::run(globals, flags).await),
        Command::Pprof(flags) => done(pprof::run(&flags)),
        Command::Sandboxes(command) => done(sandboxes::run(globals, command).await),
        Command::Shim(flags) => done(shim::run(globals, flags).await),
        Command::Shims(command) => done(shims::run(globals, command)),
        Command::Why(flags) => done(why::run(globals, flags).await),
        Command::Tasks(command) => tasks::run(globals, command).await,
        Command::Oci(command) => done(oci::run(globals, command)),
        Command::Info => done(info::run(&Client::open(globals)?).await),
        Command::Demo => done(demo::run().map_err(|error| Error::unknown(format!("demo: {error:#}")))),
        Command::Registry(command) => done(registry::run(globals, command).await),
        Command::Deprecations(command) => done(deprecations::run(&Client::open(globals)?, command).await),
    }
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| 0)
}

/// Why nothing more is printed: whoever read our output went away. The program ends by SIGPIPE, as others do, but
/// not before what a command made on the way was taken back.
#[derive(Debug)]
pub struct NobodyReads;

impl std::fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads")
    }
}

impl std::error::Error for NobodyReads {}

/// Writes to stdout.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_ref()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => {
            Error::caused(types::Class::Canceled, "write /dev/stdout", NobodyReads)
        }
        _ => crate::go::path_error("write", "/dev/stdout", error),
    })
}

/// Whether an error says that nobody reads our output.
pub fn is_unread(error: &Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.into_iter().any(|cause| cause.is::<NobodyReads>())
}

/// An error about how a command is used.
pub fn refused<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}
