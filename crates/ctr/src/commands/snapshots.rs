//! `ctr snapshots`.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use remote::RemoteSnapshotter;
use serde::Serialize;
use snapshots::Snapshotter;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind};
use types::time::rfc3339;
use types::{Labels, Result, ResultExt, labels};

use super::print;
use crate::cli::{self, Globals};
use crate::client::Client;
use crate::flags::{self, SnapshotterFlags, Words};
use crate::go::{self, Columns, json};

pub mod diff;
mod tree;
mod unpack;

/// `ctr snapshots`: the snapshotter, then what to do with it.
#[derive(Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    snapshotter: SnapshotterFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Commit an active snapshot into the provided name
    Commit(Words),
    /// Get the diff of two snapshots. the default second snapshot is the first snapshot's parent.
    Diff(Box<diff::Flags>),
    /// Get info about a snapshot
    Info(Words),
    /// List snapshots
    #[command(visible_alias = "ls")]
    List(Words),
    /// Mount gets mount commands for the snapshots
    #[command(visible_aliases = ["m", "mount"])]
    Mounts {
        /// Mounts the snapshot mounts as a temp mount and returns a bind mount
        #[arg(long)]
        temp: bool,
        #[command(flatten)]
        words: Words,
    },
    /// Prepare a snapshot from a committed snapshot
    Prepare(NewFlags),
    /// Remove snapshots
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete(Words),
    /// Add labels to content
    Label(Words),
    /// Display tree view of snapshot branches
    Tree(Words),
    /// Unpack applies layers from a manifest to a snapshot
    Unpack {
        /// Synchronize the underlying filesystem containing files when unpack images, false by default
        #[arg(long)]
        sync_fs: bool,
        #[command(flatten)]
        snapshotter: SnapshotterFlags,
        #[command(flatten)]
        digest: Words,
    },
    /// Usage snapshots
    Usage {
        /// Display size in bytes
        #[arg(short, long = "b")]
        b: bool,
        #[command(flatten)]
        keys: Words,
    },
    /// Create a read-only snapshot from a committed snapshot
    View(NewFlags),
}

#[derive(Args, Debug)]
struct NewFlags {
    /// Mount target path, will print mount, if provided
    #[arg(long, short, default_value = "")]
    target: String,
    /// Print out snapshot mounts as JSON
    #[arg(long)]
    mounts: bool,
    #[command(flatten)]
    words: Words,
}

/// Runs a command.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let name = flags.snapshotter.snapshotter.as_str();
    let words = |words: &Words, from: usize, to: usize| (from..=to).contains(&words.words.len());
    let open = async || Client::open(globals)?.snapshotter(name).await;
    match flags.command {
        Command::Commit(w) if words(&w, 2, 2) => {
            open().await?.commit(w.get(0), w.get(1), None, rooted()).await
        }
        Command::Commit(_) => cli::show_help(&["snapshots", "commit"]),
        Command::Diff(flags) => diff::run(globals, name, *flags).await,
        Command::Info(w) if words(&w, 1, 1) => info(&open().await?, w.first()).await,
        Command::Info(_) => cli::show_help(&["snapshots", "info"]),
        Command::List(_) => list(&open().await?).await,
        Command::Mounts { words: w, .. } if words(&w, 2, 2) => {
            print(mount_commands(w.get(0), &open().await?.mounts(w.get(1)).await?))
        }
        Command::Mounts { .. } => cli::show_help(&["snapshots", "mounts"]),
        Command::Prepare(new) if words(&new.words, 1, 2) => {
            let mounts = open().await?.prepare(new.words.get(0), new.words.get(1), rooted()).await?;
            new.show(&mounts)
        }
        Command::Prepare(_) => cli::show_help(&["snapshots", "prepare"]),
        Command::View(new) if words(&new.words, 1, 2) => {
            let mounts = open().await?.view(new.words.get(0), new.words.get(1), Labels::new()).await?;
            new.show(&mounts)
        }
        Command::View(_) => cli::show_help(&["snapshots", "view"]),
        Command::Delete(keys) => delete(&open().await?, &keys.words).await,
        Command::Label(words) => label(&open().await?, &words).await,
        Command::Tree(_) => print(tree::draw(&all(&open().await?).await?)),
        Command::Unpack { sync_fs, snapshotter, digest } => {
            let name = if snapshotter.snapshotter.is_empty() { name } else { &snapshotter.snapshotter };
            let digest = go::digest(digest.first())?;
            unpack::run(&Client::open(globals)?, name, &digest, sync_fs).await
        }
        Command::Usage { b, keys } => usage(&open().await?, b, keys.words).await,
    }
}

/// What people make by hand is theirs to remove.
fn rooted() -> Labels {
    let (seconds, _) = types::time::unix(SystemTime::now());
    [(labels::GC_ROOT.into(), rfc3339(types::time::from_unix(seconds, 0)))].into()
}

impl NewFlags {
    fn show(&self, mounts: &[Mount]) -> Result<()> {
        if !self.target.is_empty() {
            print(mount_commands(&self.target, mounts))?;
        }
        if self.mounts {
            let shown: Vec<ShownMount<'_>> = mounts.iter().map(ShownMount::of).collect();
            print(json::shown(&shown)?)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownMount<'a> {
    r#type: &'a str,
    source: &'a str,
    target: &'a str,
    options: &'a [String],
}

impl<'a> ShownMount<'a> {
    fn of(mount: &'a Mount) -> Self {
        Self { r#type: &mount.kind, source: &mount.source, target: &mount.target, options: &mount.options }
    }
}

/// The commands that perform `mounts` at `target`.
fn mount_commands(target: &str, mounts: &[Mount]) -> String {
    let command = |mount: &Mount| {
        let at = match mount.target.as_str() {
            "" => target.to_owned(),
            below => format!("{}/{}", target.trim_end_matches('/'), below.trim_start_matches('/')),
        };
        let options =
            if mount.options.is_empty() { String::new() } else { format!(" -o {}", mount.options.join(",")) };
        format!("mount -t {} {} {at}{options}\n", mount.kind, mount.source)
    };
    mounts.iter().map(command).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownInfo<'a> {
    kind: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    parent: &'a str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    created: String,
    updated: String,
}

async fn info(snapshotter: &RemoteSnapshotter, key: &str) -> Result<()> {
    let info = snapshotter.stat(key).await?;
    print(json::shown(&ShownInfo {
        kind: kind(info.kind),
        name: &info.name,
        parent: &info.parent,
        labels: &info.labels,
        created: rfc3339(info.created_at),
        updated: rfc3339(info.updated_at),
    })?)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::View => "View",
        Kind::Active => "Active",
        Kind::Committed => "Committed",
    }
}

async fn all(snapshotter: &RemoteSnapshotter) -> Result<Vec<Info>> {
    let mut found = Vec::new();
    let mut collect = |info| {
        found.push(info);
        Ok(())
    };
    snapshotter.walk(&Filters::default(), &mut collect).await?;
    Ok(found)
}

async fn list(snapshotter: &RemoteSnapshotter) -> Result<()> {
    let mut table = Columns::narrow();
    table.line("KEY\tPARENT\tKIND\t");
    for info in all(snapshotter).await? {
        table.line(format!("{}\t{}\t{}\t", info.name, info.parent, kind(info.kind)));
    }
    print(table.finish())
}

async fn delete(snapshotter: &RemoteSnapshotter, keys: &[String]) -> Result<()> {
    for key in keys {
        snapshotter.remove(key).await.context(|| format!("failed to remove {}", go::quote(key)))?;
    }
    Ok(())
}

async fn usage(snapshotter: &RemoteSnapshotter, bytes: bool, mut keys: Vec<String>) -> Result<()> {
    if keys.is_empty() {
        keys = all(snapshotter).await?.into_iter().map(|info| info.name).collect();
    }
    let mut table = Columns::narrow();
    table.line("KEY\tSIZE\tINODES\t");
    for key in keys {
        let usage = snapshotter.usage(&key).await?;
        let size = if bytes { usage.size.to_string() } else { go::size::binary(usage.size) };
        table.line(format!("{key}\t{size}\t{}\t", usage.inodes));
    }
    print(table.finish())
}

async fn label(snapshotter: &RemoteSnapshotter, words: &Words) -> Result<()> {
    let labels = flags::labels(words.tail());
    let info = if labels.is_empty() {
        snapshotter.stat(words.first()).await?
    } else {
        let fields = FieldPaths(labels.keys().map(|key| format!("labels.{key}")).collect());
        let info = Info {
            kind: Kind::Committed,
            name: words.first().into(),
            parent: String::new(),
            labels: labels.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        };
        snapshotter.update(info, &fields).await?
    };
    print(format!("{}\n", go::labels(&info.labels)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_shown_as_commands() {
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["a=b".into(), "ro".into()],
        };
        assert_eq!(mount_commands("/mnt", &[mount]), "mount -t overlay overlay /mnt -o a=b,ro\n");
    }
}
