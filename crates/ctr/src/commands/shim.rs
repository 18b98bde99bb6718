//! `ctr shim`: a shim spoken to without its daemon. The calls block, as there is nothing else to do meanwhile.

pub mod connection;
mod exec;
mod state;

use api::containerd::task::v3 as wire;
use clap::{Args, Subcommand};
use types::Result;

use super::pprof::{self, Profile};
use super::{print, refused};
use crate::cli::Globals;
use crate::flags::Words;
use connection::Connection;

/// `ctr shim`: which one, then what to do with it.
#[derive(Args, Debug)]
pub struct Flags {
    /// shim ID
    #[arg(long, default_value = "")]
    id: String,
    /// shim address (default: computed from shim ID)
    #[arg(long, default_value = "")]
    shim_address: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Delete a container with a task
    Delete(Words),
    /// Exec a new process in the task's container
    Exec(exec::Flags),
    /// Start a container with a task
    Start(Words),
    /// Get the state of all main process of the task
    State {
        /// task ID
        #[arg(long, short, default_value = "")]
        task_id: String,
        #[command(flatten)]
        version: VersionFlags,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Shutdown shim if there is no active container
    Shutdown {
        #[command(flatten)]
        version: VersionFlags,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Provide golang pprof outputs for containerd-shim
    #[command(subcommand)]
    Pprof(Profile),
}

#[derive(Args, Debug)]
struct VersionFlags {
    /// shim API version {2,3}
    #[arg(long, default_value_t = 3)]
    api_version: i64,
}

/// The service's name in both versions; the messages are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

impl VersionFlags {
    fn parse(&self) -> Result<Version> {
        match self.api_version {
            2 => Ok(Version::V2),
            3 => Ok(Version::V3),
            _ => refused("api-version must be 2 or 3"),
        }
    }
}

/// Whose shim it is.
struct Shim<'a> {
    globals: &'a Globals,
    id: &'a str,
    address: &'a str,
}

impl Shim<'_> {
    fn connect(&self) -> Result<Connection> {
        let mut sockets = Vec::new();
        if !self.address.is_empty() {
            sockets.push(self.address.strip_prefix("unix://").unwrap_or(self.address).to_owned());
        }
        if !self.id.is_empty() {
            let (address, namespace) = (&self.globals.address, &self.globals.namespace);
            sockets.push(connection::socket(&format!("{address}/{namespace}/{}", self.id)));
            sockets.push(format!("\0/containerd-shim/{namespace}/{}/shim.sock", self.id));
        }
        if sockets.is_empty() {
            return refused("shim ID (--id) or address (--shim-address) must be specified");
        }
        Connection::open(&sockets, &self.globals.namespace)
    }

    fn profile(&self, profile: &Profile) -> Result<()> {
        if self.id.is_empty() {
            return refused("container id must be provided");
        }
        let (address, namespace) = (&self.globals.address, &self.globals.namespace);
        pprof::get(&connection::socket(&format!("{address}/{namespace}/{}/debug", self.id)), profile)
    }
}

/// Runs a command.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let shim = Shim { globals, id: &flags.id, address: &flags.shim_address };
    match flags.command {
        Command::Delete(words) => {
            let request = wire::DeleteRequest { id: words.first().into(), ..Default::default() };
            let answer: wire::DeleteResponse = shim.connect()?.call(Version::V3, "Delete", &request)?;
            print(format!("container deleted and returned exit status {}\n", answer.exit_status))
        }
        Command::Exec(flags) => exec::run(&shim, &flags).await,
        Command::Start(words) => {
            let request = wire::StartRequest { id: words.first().into(), ..Default::default() };
            shim.connect()?.call::<wire::StartResponse>(Version::V3, "Start", &request).map(drop)
        }
        Command::State { task_id, version, extra: _ } => {
            let version = version.parse()?;
            let id = if task_id.is_empty() { flags.id.clone() } else { task_id };
            state::run(&shim, version, id)
        }
        Command::Shutdown { version, extra: _ } => {
            let version = version.parse()?;
            let request = wire::ShutdownRequest::default();
            shim.connect()?.call::<()>(version, "Shutdown", &request)
        }
        Command::Pprof(profile) => shim.profile(&profile),
    }
}

impl Version {
    fn service(self) -> &'static str {
        match self {
            Self::V2 => "containerd.task.v2.Task",
            Self::V3 => "containerd.task.v3.Task",
        }
    }
}
