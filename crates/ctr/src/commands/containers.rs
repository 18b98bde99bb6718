//! `ctr containers`.

use api::FieldMask;
use api::containerd::services::containers::v1 as wire;
use api::containerd::services::tasks::v1 as tasks;
use api::containerd::v1::types::Status;
use clap::{Args, Subcommand};
use remote::from_status;
use types::{Error, Result};

use super::run::{self, container};
use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::{self, Words};
use crate::go::Columns;
use crate::network::Attached;
use crate::{go, log};

mod checkpoint;
mod restore;

pub use checkpoint::LEASE;
mod info;

/// `ctr containers ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Checkpoint a container
    Checkpoint(checkpoint::Flags),
    /// Create container
    Create(Box<CreateFlags>),
    /// Delete one or more existing containers
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Do not clean up snapshot with container
        #[arg(long)]
        keep_snapshot: bool,
        #[command(flatten)]
        ids: Words,
    },
    /// Get info about a container
    Info {
        /// Only display the spec
        #[arg(long)]
        spec: bool,
        #[command(flatten)]
        id: Words,
    },
    /// List containers
    #[command(visible_alias = "ls")]
    List {
        /// Print only the container id
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        filters: Words,
    },
    /// Set and clear labels for a container
    Label(Words),
    /// Restore a container from checkpoint
    Restore(restore::Flags),
}

/// `ctr containers create`.
#[derive(Args, Debug)]
pub struct CreateFlags {
    #[command(flatten)]
    container: run::flags::ContainerFlags,
    #[command(flatten)]
    words: Words,
}

/// Runs a command; answers its code.
pub async fn run(globals: &Globals, command: Command) -> Result<u8> {
    let done = match command {
        Command::Checkpoint(flags) => checkpoint::run(globals, flags).await,
        Command::Restore(flags) => return restore::run(globals, flags).await,
        Command::Create(flags) => create(globals, *flags).await,
        Command::Delete { ids, .. } if ids.words.is_empty() => {
            Client::open(globals)?;
            refused("must specify at least one container to delete: invalid argument")
        }
        Command::Delete { keep_snapshot, ids } => {
            delete(&Client::open(globals)?, keep_snapshot, &ids.words).await
        }
        Command::Info { id, .. } if id.first().is_empty() => no_id(),
        Command::Info { spec, id } => info::show(&Client::open(globals)?.container(id.first()).await?, spec),
        Command::List { quiet, filters } => list(&Client::open(globals)?, quiet, filters.words).await,
        Command::Label(words) if words.first().is_empty() => no_id(),
        Command::Label(words) => label(&Client::open(globals)?, &words).await,
    };
    done.map(|()| 0)
}

fn no_id() -> Result<()> {
    refused("container id must be provided: invalid argument")
}

async fn create(globals: &Globals, flags: CreateFlags) -> Result<()> {
    let wanted = run::flags::Wanted::for_create(flags.container, flags.words.words)
        .map_err(|error| Error::invalid(format!("{error}: invalid argument")))?;
    let client = Client::open(globals)?;
    container::create(&client, &wanted).await?;
    Ok(())
}

async fn list(client: &Client, quiet: bool, filters: Vec<String>) -> Result<()> {
    if quiet {
        let mut ids = String::new();
        client.list_containers(filters, |container| ids += &format!("{}\n", container.id)).await?;
        return print(ids);
    }
    let mut table = Columns::wide();
    table.line("CONTAINER\tIMAGE\tRUNTIME\t");
    let each = |container: wire::Container| {
        let image = if container.image.is_empty() { "-" } else { &container.image };
        table.line(format!("{}\t{image}\t{}\t", container.id, container.runtime.unwrap_or_default().name));
    };
    client.list_containers(filters, each).await?;
    print(table.finish())
}

async fn delete(client: &Client, keep_snapshot: bool, ids: &[String]) -> Result<()> {
    let mut failed = None;
    for id in ids {
        if let Err(error) = delete_one(client, keep_snapshot, id).await {
            log::error(&format!("failed to delete container {}", go::quote(id)), Some(&error));
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// A task that has ended, or never began, goes with its container.
async fn delete_one(client: &Client, keep_snapshot: bool, id: &str) -> Result<()> {
    let request = tasks::GetRequest { container_id: id.into(), exec_id: String::new() };
    let (container, task) = tokio::join!(client.container(id), async { client.tasks().get(request).await });
    let container = container?;
    if let Some(task) = task.ok().and_then(|task| task.into_inner().process) {
        match Status::try_from(task.status) {
            Ok(Status::Stopped | Status::Created) => {
                let request = tasks::DeleteTaskRequest { container_id: id.into() };
                client.tasks().delete(request).await.map_err(from_status)?;
            }
            status => {
                let name = status.map_or("unknown".into(), |status| status.as_str_name().to_lowercase());
                let text = format!(
                    "cannot delete a non stopped container: {{{name} 0 0001-01-01 00:00:00 +0000 UTC}}"
                );
                return Err(Error::precondition(text));
            }
        }
    }
    let attached = Attached::of(client, &container, None);
    container::remove(client, &container, !keep_snapshot).await?;
    if let Some(attached) = attached {
        attached.remove().await;
    }
    Ok(())
}

async fn label(client: &Client, words: &Words) -> Result<()> {
    let labels = flags::labels(words.tail());
    client.container(words.first()).await?;
    let mask = FieldMask { paths: labels.keys().map(|key| format!("labels.{key}")).collect() };
    let container = wire::Container { id: words.first().into(), labels, ..Default::default() };
    let request = wire::UpdateContainerRequest { container: Some(container), update_mask: Some(mask) };
    let updated = client.containers().update(request).await.map_err(from_status)?.into_inner().container;
    print(format!("{}\n", go::labels(&updated.unwrap_or_default().labels)))
}
