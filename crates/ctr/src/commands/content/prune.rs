//! `ctr content prune`: lets go of layers whose snapshots are enough.

use std::time::Duration;

use api::containerd::services::leases::v1::DeleteRequest;
use clap::{Args, Subcommand};
use content::Store;
use remote::from_status;
use types::content::Info;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Result, labels};

use crate::cli::Globals;
use crate::client::Client;
use crate::log;

/// How long the lease lives whose end makes the daemon collect, should we not come to its end.
const LEASE: Duration = Duration::from_secs(60 * 60);

/// `ctr content prune ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Prunes preference labels from the content store (layers only by default)
    References(Flags),
}

/// `ctr content prune references`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Allow garbage collection to cleanup asynchronously
    #[arg(long = "async")]
    asynchronous: bool,
    /// Just show updates without applying (enables debug logging)
    #[arg(long)]
    dry: bool,
    #[arg(hide = true)]
    extra: Vec<String>,
}

/// Runs a command.
pub async fn run(globals: &Globals, Command::References(flags): Command) -> Result<()> {
    let client = Client::open(globals)?;
    if flags.dry {
        log::debug("dry run, no changes will be applied", &[]);
    }
    let store = client.content();
    let mut found: Vec<Info> = Vec::new();
    let mut look = |info: Info| {
        if info.labels.keys().any(|key| is_layer(key)) {
            found.push(info);
        }
        Ok(())
    };
    store.walk(&Filters::default(), &mut look).await?;
    for info in found {
        remove_references(&store, info, flags.dry).await?;
    }
    // The end of a lease is what makes the daemon collect.
    let lease = client.lease(None, LEASE).await?;
    let request = DeleteRequest { id: lease.id, sync: !flags.asynchronous };
    client.leases().delete(request).await.map_err(from_status)?;
    Ok(())
}

async fn remove_references(store: &dyn Store, mut info: Info, dry: bool) -> Result<()> {
    let keys: Vec<String> = info.labels.keys().filter(|key| is_layer(key)).cloned().collect();
    for key in &keys {
        if dry {
            log::debug("Removing label", &[("digest", info.digest.as_str()), ("label", key)]);
        }
        info.labels.remove(key);
    }
    if !dry {
        store.update(info, &FieldPaths(keys.iter().map(|key| format!("labels.{key}")).collect())).await?;
    }
    Ok(())
}

/// Whether a label refers to a layer. Old ones have only a number, of which 0 is the config.
fn is_layer(key: &str) -> bool {
    let Some(name) = key.strip_prefix(labels::GC_REF_CONTENT).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    name.starts_with("l.") || (name != "0" && name.chars().all(char::is_numeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_of_layers_are_removed() {
        for layer in ["containerd.io/gc.ref.content.l.0", "containerd.io/gc.ref.content.12"] {
            assert!(is_layer(layer), "{layer}");
        }
        for other in [
            "containerd.io/gc.ref.content.config",
            "containerd.io/gc.ref.content.0",
            "containerd.io/gc.ref.content.m.0",
            "containerd.io/gc.ref.content.1x",
            "containerd.io/gc.ref.content",
            "containerd.io/gc.ref.snapshot.overlayfs",
        ] {
            assert!(!is_layer(other), "{other}");
        }
    }
}
