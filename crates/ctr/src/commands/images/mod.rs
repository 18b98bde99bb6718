//! `ctr images`.

mod check;
mod convert;
mod export;
mod import;
mod inspect;
mod list;
mod mount;
pub mod pull;
mod push;
mod tag;

use std::collections::BTreeSet;

use api::FieldMask;
use api::containerd::services::images::v1 as wire;
use clap::Subcommand;
use remote::from_status;
use snapshots::Snapshotter;
use types::platform::Platform;
use types::{Error, Result, ResultExt};

use super::run::image::resolve;
use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::{self, SnapshotterFlags, Words};
use crate::go::{self, Columns};
use crate::log;

/// `ctr images ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check existing images to ensure all content is available locally
    Check {
        /// Print only the ready image refs (fully downloaded and unpacked)
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        snapshotter: SnapshotterFlags,
        #[command(flatten)]
        filters: Words,
    },
    /// Convert an image
    Convert(Box<convert::Flags>),
    /// Export images
    Export(Box<export::Flags>),
    /// Import images
    Import(Box<import::Flags>),
    /// inspect an image
    #[command(visible_alias = "i")]
    Inspect {
        /// Show JSON content
        #[arg(long)]
        content: bool,
        #[command(flatten)]
        name: Words,
    },
    /// List images known to containerd
    #[command(visible_alias = "ls")]
    List {
        /// Print only the image refs
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        filters: Words,
    },
    /// Mount an image to a target path
    Mount(mount::MountFlags),
    /// Unmount the image from the target
    Unmount(mount::UnmountFlags),
    /// Pull an image from a remote
    Pull(Box<pull::Flags>),
    /// Push an image to a remote
    Push(Box<push::Flags>),
    /// Remove unused images
    Prune {
        /// Remove all unused images, not just dangling ones (if all is not specified no images will be pruned)
        #[arg(long)]
        all: bool,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Remove one or more images by reference
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Synchronously remove image and all associated resources
        #[arg(long)]
        sync: bool,
        #[command(flatten)]
        names: Words,
    },
    /// Tag an image
    Tag(tag::Flags),
    /// Set and clear labels for an image
    Label {
        /// Replace all labels
        #[arg(long, short)]
        replace_all: bool,
        #[command(flatten)]
        words: Words,
    },
    /// Display usage of snapshots for a given image ref
    Usage {
        #[command(flatten)]
        snapshotter: SnapshotterFlags,
        #[command(flatten)]
        name: Words,
    },
}

/// Runs a command.
pub async fn run(globals: &Globals, command: Command) -> Result<()> {
    match command {
        Command::Check { quiet, snapshotter, filters } => {
            check::run(&Client::open(globals)?, quiet, &snapshotter.snapshotter, filters.words).await
        }
        Command::Export(flags) => export::run(globals, *flags).await,
        Command::Convert(flags) => convert::run(globals, &flags).await,
        Command::Import(flags) => import::run(globals, *flags).await,
        Command::Inspect { content, name } => {
            inspect::run(&Client::open(globals)?, name.first(), content).await
        }
        Command::Pull(flags) => pull::run(globals, &flags).await,
        Command::Push(flags) => push::run(globals, &flags).await,
        Command::List { quiet, filters } => list::run(&Client::open(globals)?, quiet, filters.words).await,
        Command::Mount(flags) => mount::mount(globals, flags).await,
        Command::Unmount(flags) => mount::unmount(globals, flags).await,
        Command::Prune { all, extra: _ } => prune(&Client::open(globals)?, all).await,
        Command::Delete { sync, names } => delete(&Client::open(globals)?, sync, &names.words).await,
        Command::Tag(flags) => tag::run(globals, flags).await,
        Command::Label { replace_all, words } => label(&Client::open(globals)?, replace_all, &words).await,
        Command::Usage { snapshotter, name } => usage(globals, &snapshotter.snapshotter, name.first()).await,
    }
}

async fn delete(client: &Client, sync: bool, names: &[String]) -> Result<()> {
    let mut failed = None;
    for (at, name) in names.iter().enumerate() {
        // One collection is enough: with the last.
        match delete_one(client, name, sync && at + 1 == names.len()).await {
            Ok(()) => print(format!("{name}\n"))?,
            Err(error) if error.is_not_found() => log::warn(&format!("{name}: image not found"), None),
            Err(error) => {
                log::error(&format!("unable to delete {name}"), Some(&error));
                failed.get_or_insert(error.context(format!("unable to delete {name}")));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn delete_one(client: &Client, name: &str, sync: bool) -> Result<()> {
    let request = wire::DeleteImageRequest { name: name.into(), sync, target: None };
    client.images().delete(request).await.map_err(from_status)?;
    Ok(())
}

async fn prune(client: &Client, all: bool) -> Result<()> {
    if !all {
        log::warn("No images pruned. `image prune` requires --all to be specified.", None);
        return Ok(());
    }
    let mut used = BTreeSet::new();
    client.list_containers(Vec::new(), |container| used.extend([container.image])).await?;
    let images = client.list_images(Vec::new()).await?;
    let unused: Vec<String> =
        images.into_iter().map(|i| i.name).filter(|name| !used.contains(name)).collect();
    for (at, name) in unused.iter().enumerate() {
        match delete_one(client, name, at + 1 == unused.len()).await {
            Err(error) if !error.is_not_found() => {
                log::warn(&format!("failed to delete image {name}"), Some(&error));
            }
            Err(_) => {}
            Ok(()) => log::info(&format!("deleted image: {name}\n")),
        }
    }
    Ok(())
}

async fn label(client: &Client, replace: bool, words: &Words) -> Result<()> {
    if words.first().is_empty() {
        return refused("please specify an image");
    }
    let labels = flags::labels(words.tail());
    let path = |key: &String| if replace { "labels".to_owned() } else { format!("labels.{key}") };
    let mask = FieldMask { paths: labels.keys().map(path).collect() };
    // Upstream's daemon 2.3.4 does not survive an update without a target.
    let target = Some(api::containerd::types::Descriptor::default());
    let image = wire::Image { name: words.first().into(), labels, target, ..Default::default() };
    let request =
        wire::UpdateImageRequest { image: Some(image), update_mask: Some(mask), source_date_epoch: None };
    let updated = client.images().update(request).await.map_err(from_status)?.into_inner().image;
    print(format!("{}\n", go::labels(&updated.unwrap_or_default().labels)))
}

async fn usage(globals: &Globals, snapshotter: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return refused("please provide an image reference to mount");
    }
    let client = Client::open(globals)?;
    let image = client.image(name).await.context(|| format!("failed to ensure if image {name} exists"))?;
    let snapshots = client.snapshotter(snapshotter).await?;
    let resolved = resolve(&client.content(), &image, &Platform::host()).await?;
    let mut key = resolved.chain()?.to_string();
    match snapshots.stat(&key).await {
        Err(error) if error.is_not_found() => {
            return Err(Error::precondition(format!(
                "image {name} isn't unpacked in snapshotter {}",
                snapshots.name()
            )));
        }
        found => {
            let snapshotter = snapshots.name();
            found.context(|| {
                format!("failed to ensure if image {name} has been unpacked in snapshotter {snapshotter}")
            })?;
        }
    }
    let mut table = Columns::narrow();
    table.line("KEY\tSIZE\tINODES\t");
    while !key.is_empty() {
        let (usage, info) = tokio::try_join!(snapshots.usage(&key), snapshots.stat(&key))?;
        table.line(format!("{key}\t{}\t{}\t", go::size::binary(usage.size), usage.inodes));
        key = info.parent;
    }
    print(table.finish())
}
