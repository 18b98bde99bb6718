//! `ctr namespaces`.

use api::FieldMask;
use api::containerd::services::namespaces::v1 as wire;
use clap::Subcommand;
use remote::from_status;
use types::{Error, Result};

use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::{self, Words};
use crate::{go, log};

/// `ctr namespaces ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a new namespace
    #[command(visible_alias = "c")]
    Create(Words),
    /// List namespaces
    #[command(visible_alias = "ls")]
    List {
        /// Print only the namespace name
        #[arg(long, short)]
        quiet: bool,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Remove one or more namespaces
    #[command(visible_alias = "rm")]
    Remove {
        /// Delete the namespace's cgroup
        #[arg(long, short)]
        cgroup: bool,
        #[command(flatten)]
        names: Words,
    },
    /// Set and clear labels for a namespace
    Label(Words),
}

/// Runs a command.
pub async fn run(globals: &Globals, command: Command) -> Result<()> {
    match command {
        Command::Create(words) => create(globals, &words).await,
        Command::List { quiet, extra: _ } => list(&Client::open(globals)?, quiet).await,
        Command::Remove { cgroup, names } => remove(&Client::open(globals)?, cgroup, &names).await,
        Command::Label(words) => label(globals, &words).await,
    }
}

async fn create(globals: &Globals, words: &Words) -> Result<()> {
    if words.first().is_empty() {
        return refused("please specify a namespace");
    }
    let namespace = wire::Namespace { name: words.first().into(), labels: flags::labels(words.tail()) };
    let request = wire::CreateNamespaceRequest { namespace: Some(namespace) };
    Client::open(globals)?.namespaces().create(request).await.map_err(from_status)?;
    Ok(())
}

async fn label(globals: &Globals, words: &Words) -> Result<()> {
    if words.first().is_empty() {
        return refused("please specify a namespace");
    }
    let client = Client::open(globals)?;
    for (key, value) in flags::labels(words.tail()) {
        let mask = FieldMask { paths: vec![format!("labels.{key}")] };
        let namespace = wire::Namespace { name: words.first().into(), labels: [(key, value)].into() };
        let request = wire::UpdateNamespaceRequest { namespace: Some(namespace), update_mask: Some(mask) };
        client.namespaces().update(request).await.map_err(from_status)?;
    }
    Ok(())
}

async fn list(client: &Client, quiet: bool) -> Result<()> {
    let request = wire::ListNamespacesRequest::default();
    let found = client.namespaces().list(request).await.map_err(from_status)?.into_inner().namespaces;
    if quiet {
        return print(found.iter().map(|namespace| format!("{}\n", namespace.name)).collect::<String>());
    }
    let mut table = go::Columns::narrow();
    table.line("NAME\tLABELS\t");
    for namespace in found {
        table.line(format!("{}\t{}\t", namespace.name, go::labels(&namespace.labels)));
    }
    print(table.finish())
}

async fn remove(client: &Client, cgroup: bool, names: &Words) -> Result<()> {
    let mut failed = None;
    for name in &names.words {
        let request = wire::DeleteNamespaceRequest { name: name.clone() };
        let mut removed = client.namespaces().delete(request).await.map(drop).map_err(from_status);
        if cgroup && removed.is_ok() {
            removed = remove_cgroup(name);
        }
        match removed {
            Err(error) if !error.is_not_found() => {
                log::error(&format!("unable to delete {name}"), Some(&error));
                failed.get_or_insert(error.context(format!("unable to delete {name}")));
            }
            _ => print(format!("{name}\n"))?,
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The namespace's cgroup is empty by now: one directory per hierarchy.
fn remove_cgroup(name: &str) -> Result<()> {
    let name: types::Namespace = name.parse()?;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_path_buf()];
    for entry in std::fs::read_dir(root).map_err(Error::from)?.flatten() {
        // On a v2 host these are cgroups themselves, of which none is called like one of ours.
        if !root.join("cgroup.controllers").exists() {
            hierarchies.push(entry.path());
        }
    }
    for hierarchy in hierarchies {
        let directory = hierarchy.join(name.as_str());
        match std::fs::remove_dir(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(go::path_error("remove", directory, error));
            }
            _ => {}
        }
    }
    Ok(())
}
