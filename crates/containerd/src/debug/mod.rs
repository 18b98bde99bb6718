//! The debug socket: what Go's daemon serves under `/debug`, as far as it has a meaning here.
//!
//! | path | here |
//! | --- | --- |
//! | `/debug/pprof/` | an index |
//! | `/debug/pprof/goroutine` | calls, changes, tasks and threads ([`dump()`]) |
//! | `/debug/pprof/heap`, `allocs` | memory by the kernel's account and by the allocator's |
//! | `/debug/pprof/threadcreate` | as `goroutine` |
//! | `/debug/pprof/cmdline` | the command line |
//! | `/debug/vars` | numbers as JSON |
//! | `/debug/pprof/{profile,trace,block,mutex,symbol}` | 501: `perf` does that from outside |
//!
//! Off unless an address is configured. Nothing here shows environment, specs or labels.

mod dump;
mod memory;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::info;
use types::Result;

pub use dump::{dump, threads_of};

use crate::config::Config;
use crate::config::telemetry::Debug;
use crate::pages::{self, Door, Page};
use crate::services::House;
use crate::socket::SocketFile;

const INDEX: &str = "/debug/pprof/\n\n\
    goroutine     calls and changes under way, tasks, threads\n\
    heap          memory\n\
    threadcreate  as goroutine\n\
    cmdline       the command line\n\n\
    /debug/vars   numbers as JSON\n\n\
    There are no samples of a running program here: use perf record -g -p PID.\n";

const ELSEWHERE: &str = "not implemented: use perf record -g -p PID\n";

/// Listens where the configuration says, if it does. Pages are served until the process ends; the socket's file goes with
/// what is returned.
pub async fn start(config: &Config, house: &House) -> Result<Option<SocketFile>> {
    let Debug { address, uid, gid } = &config.telemetry.debug;
    let disabled = config.disabled.iter().any(|uri| uri == "io.containerd.server.v1.debug");
    if address.is_empty() || disabled {
        return Ok(None);
    }
    let (door, file) = Door::anywhere(address, *uid, *gid).await?;
    info!(address = door.address(), "serving debug");
    let house = house.clone();
    tokio::spawn(door.serve(move |request| answer(house.clone(), request)));
    Ok(file)
}

async fn answer(house: House, request: Request<Incoming>) -> Page {
    let path = request.uri().path();
    let Some(profile) = path.strip_prefix("/debug/pprof/") else {
        return match path {
            "/debug/vars" => pages::typed(StatusCode::OK, "application/json; charset=utf-8", vars(&house)),
            _ => pages::missing(),
        };
    };
    match profile {
        "" => pages::text(StatusCode::OK, INDEX),
        "goroutine" | "threadcreate" => pages::text(StatusCode::OK, dump(&house)),
        "heap" | "allocs" => pages::text(StatusCode::OK, memory::text()),
        "cmdline" => pages::text(StatusCode::OK, std::fs::read("/proc/self/cmdline").unwrap_or_default()),
        "profile" | "trace" | "block" | "mutex" | "symbol" => {
            pages::text(StatusCode::NOT_IMPLEMENTED, ELSEWHERE)
        }
        _ => pages::text(StatusCode::NOT_FOUND, "Unknown profile\n"),
    }
}

/// Numbers for programs.
fn vars(house: &House) -> String {
    let metrics = tokio::runtime::Handle::current().metrics();
    let command: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let memory: serde_json::Map<_, _> =
        memory::numbers().into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    let vars = serde_json::json!({
        "cmdline": command,
        "memory": memory,
        "calls": house.calls.under_way().len(),
        "changes": house.work.under_way().len(),
        "tasks": metrics.num_alive_tasks(),
        "workers": metrics.num_workers(),
    });
    format!("{vars}\n")
}
