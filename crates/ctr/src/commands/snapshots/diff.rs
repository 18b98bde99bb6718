//! `ctr snapshots diff`: what one snapshot has that another, or its parent, has not, as a layer on stdout.

use std::time::Duration;

use clap::Args;
use content::Store as _;
use diff::differ::{CompareOptions, Differ as _};
use diff::tar::Time;
use remote::RemoteSnapshotter;
use snapshots::Snapshotter as _;
use types::mount::Mount;
use types::oci::Descriptor;
use types::oci::image::media;
use types::snapshot::Kind;
use types::{Digest, Error, Labels, Result};

use crate::cli::Globals;
use crate::client::{Client, random_lease_id};
use crate::commands::run::container;
use crate::commands::{print, refused};
use crate::flags::{self, Words};
use crate::log;

/// Bytes of the layer that are read at a time.
const PIECE: usize = 1 << 20;

/// `ctr snapshots diff`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Media type to use for creating diff
    #[arg(long, default_value = media::OCI_LAYER_GZIP)]
    media_type: String,
    /// Content upload reference to use
    #[arg(long = "ref", default_value = "")]
    reference: String,
    /// Keep diff content. up to creator to delete it.
    #[arg(long)]
    keep: bool,
    /// Labels to attach to the image
    #[arg(long)]
    label: Vec<String>,
    #[command(flatten)]
    ids: Words,
}

impl Flags {
    fn options(self) -> Result<CompareOptions> {
        let mut labels = flags::labels(&self.label);
        if self.keep {
            labels.extend(super::rooted());
        }
        Ok(CompareOptions { media_type: self.media_type, reference: self.reference, labels, epoch: epoch()? })
    }
}

/// The time that no file may be younger than, from the environment.
fn epoch() -> Result<Option<Time>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    let secs =
        text.parse().map_err(|_| Error::invalid(format!("invalid SOURCE_DATE_EPOCH value {text:?}")))?;
    Ok(Some(Time { secs, nanos: 0 }))
}

/// Compares and writes the layer to stdout.
pub async fn run(globals: &Globals, snapshotter: &str, flags: Flags) -> Result<()> {
    let (one, two) = (flags.ids.get(0).to_owned(), flags.ids.get(1).to_owned());
    if one.is_empty() {
        return refused("snapshot id must be provided");
    }
    let client = Client::open(globals)?;
    let options = flags.options()?;
    let lease = client.lease(None, Duration::from_secs(24 * 3600)).await?;
    let snapshotter = lease.client.snapshotter(snapshotter).await?;
    let mut views = Views { snapshotter, made: Vec::new() };
    let done = async {
        let layer = compare(&lease.client, &mut views, (&one, &two), options).await?;
        show(&lease.client, &layer.digest).await
    };
    let done = done.await;
    views.remove().await;
    container::end(lease).await;
    done
}

async fn compare(
    client: &Client,
    views: &mut Views,
    (one, two): (&str, &str),
    options: CompareOptions,
) -> Result<Descriptor> {
    let (lower, upper) = if two.is_empty() {
        let parent = views.snapshotter.stat(one).await?.parent;
        let view = format!("{parent}-parent-view-{}", random_lease_id());
        (views.view(view, &parent).await?, views.mounts(one).await?)
    } else {
        (views.mounts(one).await?, views.mounts(two).await?)
    };
    client.differ().compare(&lower, &upper, options).await
}

/// Stores what the snapshot `key` has that its parent has not, as a layer.
pub async fn layer_of(
    client: &Client,
    snapshotter: RemoteSnapshotter,
    key: &str,
    options: CompareOptions,
) -> Result<Descriptor> {
    let mut views = Views { snapshotter, made: Vec::new() };
    let layer = compare(client, &mut views, (key, ""), options).await;
    views.remove().await;
    layer
}

/// Views of snapshots that can only be read that way.
struct Views {
    snapshotter: RemoteSnapshotter,
    made: Vec<String>,
}

impl Views {
    async fn mounts(&mut self, id: &str) -> Result<Vec<Mount>> {
        match self.snapshotter.stat(id).await?.kind {
            Kind::Active => self.snapshotter.mounts(id).await,
            _ => self.view(format!("{id}-view-{}", random_lease_id()), id).await,
        }
    }

    async fn view(&mut self, key: String, parent: &str) -> Result<Vec<Mount>> {
        let mounts = self.snapshotter.view(&key, parent, Labels::new()).await?;
        self.made.push(key);
        Ok(mounts)
    }

    async fn remove(&self) {
        for key in self.made.iter().rev() {
            if let Err(error) = self.snapshotter.remove(key).await {
                log::warn(&format!("failed to remove {key}"), Some(&error));
            }
        }
    }
}

async fn show(client: &Client, digest: &Digest) -> Result<()> {
    let blob = client.content().reader(digest).await?;
    let mut at = 0;
    loop {
        let piece = blob.read_at(at, PIECE).await?;
        if piece.is_empty() {
            return Ok(());
        }
        at += piece.len() as u64;
        print(&piece)?;
    }
}
