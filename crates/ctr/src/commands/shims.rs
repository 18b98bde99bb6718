//! `ctr shims`: all shims of a daemon, and their replacement while they run.
//!
//! The daemon is not asked: shims are found by their command lines and spoken to over their own sockets. So this works
//! under a daemon that hangs, under none, and under containerd's. A shim of another project is shown, and left alone.

mod found;

use std::time::{Duration, Instant};

use api::containerdrs::shim::v1::{InfoRequest, InfoResponse, UpgradeRequest, UpgradeResponse};
use clap::{Args, Subcommand};
use serde::Serialize;
use types::{Class, Error, Result};

use super::{print, refused};
use crate::cli::Globals;
use crate::go::{Columns, json};
use sys::shims::Shim;

/// How long a shim may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long its replacement may take.
const REPLACEMENT: Duration = Duration::from_secs(20);
/// So many are replaced at a time.
const SIDE_BY_SIDE: usize = 8;

/// `ctr shims ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List the shims of a daemon, in all namespaces
    #[command(visible_alias = "list")]
    Ls {
        /// print as JSON
        #[arg(long)]
        json: bool,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Replace the program of shims by the newest one, while their containers run
    Upgrade(Upgrade),
}

/// Which ones, and by what.
#[derive(Args, Debug)]
pub struct Upgrade {
    /// all shims of the daemon, in all namespaces
    #[arg(long)]
    all: bool,
    /// the program to go on as (default: the file that the shim was started from)
    #[arg(long, default_value = "")]
    binary: String,
    /// ids of the containers
    ids: Vec<String>,
}

/// What is known of a shim.
#[derive(Serialize)]
struct Row {
    namespace: String,
    id: String,
    pid: u32,
    /// Empty for another project's.
    version: String,
    containers: Vec<String>,
    /// Kilobytes.
    pss: u64,
    private: u64,
    liveness: &'static str,
    binary: String,
}

/// The daemon's socket, as its shims are told of it.
fn address(globals: &Globals) -> &str {
    globals.address.strip_prefix("unix://").unwrap_or(&globals.address)
}

/// The one shim on this machine that was started for a container of that name, if there is one.
pub fn pid_of(namespace: &str, id: &str) -> Option<u32> {
    let mut named =
        sys::shims::running().ok()?.into_iter().filter(|shim| shim.namespace == namespace && shim.id == id);
    let first = named.next()?;
    named.next().is_none().then_some(first.pid)
}

/// Runs a command.
pub fn run(globals: &Globals, command: Command) -> Result<()> {
    match command {
        Command::Ls { json, extra: _ } => list(globals, json),
        Command::Upgrade(flags) => upgrade(globals, &flags),
    }
}

fn list(globals: &Globals, as_json: bool) -> Result<()> {
    let found = found::of_daemon(address(globals))?;
    let rows: Vec<Row> = side_by_side(&found, row);
    if as_json {
        return print(json::shown(&rows)?);
    }
    let mut table = Columns::wide();
    table.line("NAMESPACE\tID\tPID\tVERSION\tCONTAINERS\tPSS\tPRIVATE\tLIVENESS\t");
    for row in rows {
        let version = if row.version.is_empty() { "-" } else { &row.version };
        let containers = row.containers.len();
        let (namespace, id, pid, liveness) = (row.namespace, row.id, row.pid, row.liveness);
        let (pss, private) = (row.pss, row.private);
        table.line(format!(
            "{namespace}\t{id}\t{pid}\t{version}\t{containers}\t{pss} kB\t{private} kB\t{liveness}\t"
        ));
    }
    print(table.finish())
}

fn row(shim: &Shim) -> Row {
    let (pss, private) = found::memory(shim);
    let asked = info(shim);
    let liveness = match &asked {
        Ok(_) => "answers",
        Err(error) if error.class() == Class::Unimplemented => "other",
        Err(_) => "silent",
    };
    let InfoResponse { version, containers, .. } = asked.unwrap_or_default();
    Row {
        namespace: shim.namespace.clone(),
        id: shim.id.clone(),
        pid: shim.pid,
        version,
        containers,
        pss,
        private,
        liveness,
        binary: found::binary(shim),
    }
}

fn info(shim: &Shim) -> Result<InfoResponse> {
    let mut connection = found::connect(shim, PATIENCE)?;
    connection.call_service(api::ttrpc::SHIM, "Info", &InfoRequest {})
}

fn upgrade(globals: &Globals, flags: &Upgrade) -> Result<()> {
    if flags.all != flags.ids.is_empty() {
        return refused("either ids of containers or --all must be given");
    }
    let mut found = found::of_daemon(address(globals))?;
    if !flags.all {
        let named = |shim: &Shim| shim.namespace == globals.namespace && flags.ids.contains(&shim.id);
        if let Some(missing) = flags.ids.iter().find(|id| !found.iter().any(|s| named(s) && s.id == **id)) {
            return Err(Error::not_found(format!(
                "no shim of {}/{missing} for the daemon at {}: not found",
                globals.namespace, globals.address
            )));
        }
        found.retain(named);
    }
    let begun = Instant::now();
    let done = side_by_side(&found, |shim| replace(shim, &flags.binary));
    let (mut text, mut failed, mut replaced) = (String::new(), 0, 0);
    for (shim, done) in found.iter().zip(done) {
        let line = match done {
            Ok(answer) => {
                replaced += 1;
                let milliseconds = Duration::from_micros(answer.microseconds).as_secs_f64() * 1000.0;
                format!("goes on as {} {} after {milliseconds:.1} ms", answer.version, answer.revision)
            }
            Err(error) if error.class() == Class::Unimplemented && flags.all => {
                format!("left alone: {} cannot be replaced while it runs", found::binary(shim))
            }
            Err(error) => {
                failed += 1;
                format!("goes on as it was: {error}")
            }
        };
        text.push_str(&format!("{}/{} (pid {}) {line}\n", shim.namespace, shim.id, shim.pid));
    }
    text.push_str(&format!(
        "{replaced} of {} replaced in {:.2} s\n",
        found.len(),
        begun.elapsed().as_secs_f64()
    ));
    print(text)?;
    if failed > 0 {
        return Err(Error::unknown(format!("{failed} shims go on as they were")));
    }
    Ok(())
}

fn replace(shim: &Shim, binary: &str) -> Result<UpgradeResponse> {
    let binary = if binary.is_empty() { found::binary(shim) } else { binary.to_owned() };
    let mut connection = found::connect(shim, REPLACEMENT)?;
    connection.call_service(api::ttrpc::SHIM, "Upgrade", &UpgradeRequest { binary })
}

/// Does `work` for each, some at a time, and keeps the order.
fn side_by_side<T: Send>(found: &[Shim], work: impl Fn(&Shim) -> T + Sync) -> Vec<T> {
    let some = found.len().div_ceil(SIDE_BY_SIDE).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = found
            .chunks(some)
            .map(|some| scope.spawn(|| some.iter().map(&work).collect::<Vec<T>>()))
            .collect();
        // A panic of a thread is one of ours.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}
