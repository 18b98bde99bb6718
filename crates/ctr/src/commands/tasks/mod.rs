//! `ctr tasks`.

mod attach;
mod checkpoint;
mod exec;
mod kill;
mod metrics;
pub mod new;
mod start;

use std::future::Future;
use std::time::Duration;

use api::containerd::services::tasks::v1 as wire;
use clap::Subcommand;
use prost::Message;
use remote::from_status;
use tonic::{Response, Status};
use types::task::Stdio;
use types::{Class, Error, Result};

use super::{print, refused, run};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::Words;
use crate::go::{Columns, quote};
use crate::network::Attached;
use crate::process::{Process, no_task};
use crate::{io, log};

/// `ctr tasks ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Attach to the IO of a running container
    Attach(Words),
    /// Checkpoint a container
    Checkpoint(checkpoint::Flags),
    /// Delete one or more tasks
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Force delete task process
        #[arg(long, short)]
        force: bool,
        /// Process ID to kill
        #[arg(long, default_value = "")]
        exec_id: String,
        #[command(flatten)]
        ids: Words,
    },
    /// Execute additional processes in an existing container
    Exec(exec::Flags),
    /// List tasks
    #[command(visible_alias = "ls")]
    List {
        /// Print only the task id
        #[arg(long, short)]
        quiet: bool,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Signal a container (default: SIGTERM)
    Kill(kill::Flags),
    /// Get a single data point of metrics for a task with the built-in Linux runtime
    #[command(visible_alias = "metric")]
    Metrics(metrics::Flags),
    /// Pause an existing container
    Pause(Words),
    /// List processes for container
    Ps(Words),
    /// Resume a paused container
    Resume(Words),
    /// Start a container that has been created
    Start(start::Flags),
}

/// Runs a command; answers the exit code.
pub async fn run(globals: &Globals, command: Command) -> Result<u8> {
    match command {
        Command::Attach(words) => attach::run(&Client::open(globals)?, words.first()).await,
        Command::Checkpoint(flags) => checkpoint::run(globals, flags).await.map(|()| 0),
        Command::Delete { force, exec_id, ids } => {
            delete(&Client::open(globals)?, force, &exec_id, &ids).await
        }
        Command::Exec(flags) => exec::run(globals, flags).await,
        Command::List { quiet, extra: _ } => list(&Client::open(globals)?, quiet).await.map(|()| 0),
        Command::Kill(flags) => kill::run(globals, flags).await.map(|()| 0),
        Command::Metrics(flags) => metrics::run(&Client::open(globals)?, flags).await.map(|()| 0),
        Command::Pause(words) => {
            let process = Process::init(&Client::open(globals)?, words.first());
            let request = wire::PauseTaskRequest { container_id: process.container.clone() };
            let answer = process.client.tasks().pause(request).await;
            answered(&process, answer).await
        }
        Command::Ps(words) if words.first().is_empty() => refused("container id must be provided"),
        Command::Ps(words) => ps(&Client::open(globals)?, words.first()).await.map(|()| 0),
        Command::Resume(words) => {
            let process = Process::init(&Client::open(globals)?, words.first());
            let request = wire::ResumeTaskRequest { container_id: process.container.clone() };
            let answer = process.client.tasks().resume(request).await;
            answered(&process, answer).await
        }
        Command::Start(flags) => start::run(globals, flags).await,
    }
}

async fn answered(process: &Process, answer: std::result::Result<Response<()>, Status>) -> Result<u8> {
    match answer {
        Ok(_) => Ok(0),
        Err(status) => Err(process.explain(from_status(status)).await),
    }
}

async fn list(client: &Client, quiet: bool) -> Result<()> {
    let request = wire::ListTasksRequest::default();
    let tasks = client.tasks().list(request).await.map_err(from_status)?.into_inner().tasks;
    if quiet {
        return print(tasks.iter().map(|task| format!("{}\n", task.id)).collect::<String>());
    }
    let mut table = Columns::wide();
    table.line("TASK\tPID\tSTATUS\t");
    for task in tasks {
        table.line(format!("{}\t{}\t{}", task.id, task.pid, task.status().as_str_name()));
    }
    print(table.finish())
}

async fn ps(client: &Client, id: &str) -> Result<()> {
    let request = wire::ListPidsRequest { container_id: id.into() };
    let mut tasks = client.tasks();
    let (container, listed) = tokio::join!(client.container(id), tasks.list_pids(request));
    container?;
    let processes = listed.map_err(from_status).map_err(no_task)?.into_inner().processes;
    let mut table = Columns::spaced();
    table.line("PID\tINFO");
    for process in processes {
        let info = match process.info {
            None => "-".into(),
            Some(info) => details(&info)?,
        };
        table.line(format!("{}\t{info}", process.pid));
    }
    print(table.finish())
}

/// What the runc shim says of a process, as Go's `%+v` shows it.
fn details(info: &api::ProtoAny) -> Result<String> {
    let details = api::containerd::runc::v1::ProcessDetails::decode(info.value.as_slice());
    let details = details.map_err(|e| Error::invalid(format!("decode {}: {e}", info.type_url)))?;
    Ok(if details.exec_id.is_empty() {
        String::new()
    } else {
        format!("exec_id:{}", quote(&details.exec_id))
    })
}

async fn delete(client: &Client, force: bool, exec: &str, ids: &Words) -> Result<u8> {
    if !exec.is_empty() {
        let process = Process { exec: exec.into(), ..Process::init(client, ids.first()) };
        return delete_one(&process, force).await.map(run::exit_code);
    }
    let mut failed = None;
    for id in &ids.words {
        match delete_one(&Process::init(client, id), force).await {
            Ok(0) => {}
            Ok(code) => log::warn(&format!("task {id} exit with non-zero exit code {code}"), None),
            Err(error) => {
                let doing =
                    if error.is_not_found() { "failed to load task from" } else { "unable to delete" };
                log::error(&format!("{doing} {id}"), Some(&error));
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// How long each step of a deletion by force may take: a shim may hang.
const FORCE: Duration = Duration::from_secs(20);

/// A step of a deletion, which ends in time if it is by force.
async fn limited<T>(force: bool, process: &Process, step: impl Future<Output = Result<T>>) -> Result<T> {
    if !force {
        return step.await;
    }
    tokio::time::timeout(FORCE, step).await.unwrap_or_else(|_| {
        let id = &process.container;
        let how = match crate::commands::shims::pid_of(process.client.namespace(), id) {
            Some(pid) => format!("kill -9 {pid} ends it, and the daemon cleans up"),
            None => "the daemon is stuck".to_owned(),
        };
        Err(Error::deadline(format!("the shim of {id} does not answer within {FORCE:?}: {how}")))
    })
}

/// Deletes a process that has ended, or with `force` ends it first; answers its code.
async fn delete_one(process: &Process, force: bool) -> Result<u32> {
    use api::containerd::v1::types::Status;
    let container = process.client.container(&process.container).await?;
    let missing = |error: Error| match error.is_not_found() && !process.exec.is_empty() {
        true => error.context("no running process found"),
        false => no_task(error),
    };
    let found = process.get().await.map_err(missing)?;
    let status = found.status();
    let alive = (status != Status::Stopped).then_some(found.pid);
    let whole = process.exec.is_empty();
    let attached = whole.then(|| Attached::of(&process.client, &container, alive)).flatten();
    if force && !matches!(status, Status::Stopped) {
        match limited(force, process, process.kill(9, true)).await {
            Ok(()) => drop(limited(force, process, process.wait()).await),
            Err(error) if error.is_not_found() || error.class() == Class::FailedPrecondition => {}
            Err(error) => return Err(error),
        }
    } else if !matches!(status, Status::Stopped | Status::Unknown) {
        let status = status.as_str_name().to_lowercase();
        let text = match process.exec.as_str() {
            "" => format!("task must be stopped before deletion: {status}"),
            _ => format!("current process state: {status}, process must be stopped before deletion"),
        };
        return Err(Error::precondition(text + ": failed precondition"));
    }
    let code = limited(force, process, process.delete()).await?;
    if let Some(attached) = attached {
        attached.remove().await;
    }
    io::remove(&Stdio {
        stdin: found.stdin,
        stdout: found.stdout,
        stderr: found.stderr,
        terminal: found.terminal,
    });
    Ok(code)
}
