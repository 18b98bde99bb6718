//! `ctr images push`: an image to a registry, by the daemon's transfer service, or with `--local` by us.

use std::sync::Arc;

use api::containerd::types::transfer::ImageStore;
use clap::Args;
use content::Store;
use images::push::{NonDistributable, Push};
use images::walk::{self, Wanted};
use tokio::sync::Semaphore;
use types::oci::Descriptor;
use types::oci::image::media;
use types::platform::Platform;
use types::{Class, Result, ResultExt};

use super::pull::refuse_local_flags;
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::{RegistryFlags, Words};
use crate::go;
use crate::progress::jobs::{Jobs, Moving};
use crate::registry::{self, Known};
use crate::transfer::{Registry, Show, pack, transfer};

/// `ctr images push`.
#[derive(Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Digest of manifest
    #[arg(long)]
    manifest: Option<String>,
    /// Media type of manifest digest
    #[arg(long)]
    manifest_type: Option<String>,
    /// Push content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Set the max concurrent uploaded layers for each push
    #[arg(long)]
    max_concurrent_uploaded_layers: Option<i64>,
    /// Push content from local client rather than using transfer service
    #[arg(long)]
    local: bool,
    /// Allow pushing blobs that are marked as non-distributable
    #[arg(long)]
    allow_non_distributable_blobs: bool,
    #[command(flatten)]
    words: Words,
}

/// Pushes to the first argument what the second names, or the first if there is no second.
pub async fn run(globals: &Globals, flags: &Flags) -> Result<()> {
    let remote = flags.words.first();
    if remote.is_empty() {
        return refused("please provide a remote image reference to push");
    }
    let client = Client::open(globals)?;
    let local = Some(flags.words.get(1)).filter(|name| !name.is_empty()).unwrap_or(remote);
    if flags.local {
        return by_us(&client, globals, flags, local).await;
    }
    let only_local = [
        ("manifest", flags.manifest.is_some()),
        ("manifest-type", flags.manifest_type.is_some()),
        ("max-concurrent-uploaded-layers", flags.max_concurrent_uploaded_layers.is_some()),
        ("allow-non-distributable-blobs", flags.allow_non_distributable_blobs),
    ];
    let http = [("http-dump", flags.registry.http_dump), ("http-trace", flags.registry.http_trace)];
    refuse_local_flags(only_local.into_iter().chain(flags.registry.local_only()).chain(http))?;
    match by_transfer(&client, flags, local).await {
        // A daemon from before 1.7.
        Err(error) if error.class() == Class::Unimplemented => by_us(&client, globals, flags, local).await,
        done => done,
    }
}

/// Pushes by the daemon's transfer service.
async fn by_transfer(client: &Client, flags: &Flags, local: &str) -> Result<()> {
    let known = Known::of(&flags.registry)?;
    let platforms = flags.platforms()?.into_iter().map(api::convert::platform_to_wire).collect();
    let registry = Registry::open(client, flags.words.first(), &flags.registry, known).await?;
    let store = ImageStore { name: local.to_owned(), platforms, ..ImageStore::default() };
    transfer(client, (pack(&store), registry.pack()), Show::Progress, None).await
}

impl Flags {
    fn platforms(&self) -> Result<Vec<Platform>> {
        let parse = |text: &String| {
            text.parse()
                .context(|| format!("invalid platform {text}"))
                .context(|| format!("invalid platform [{}]", self.platform.join(" ")))
        };
        self.platform.iter().map(parse).collect()
    }
}

/// Pushes what the daemon's content store has.
async fn by_us(client: &Client, globals: &Globals, flags: &Flags, local: &str) -> Result<()> {
    let target = target(client, flags, local).await?;
    let mut reference = registry::reference(flags.words.first())?;
    // Only this one gets the tag, and nothing that it refers to.
    reference.digest.get_or_insert_with(|| target.digest.clone());
    let pusher = registry::client(globals, &flags.registry)?.pusher(&reference);
    let at_once =
        flags.max_concurrent_uploaded_layers.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let push = Push {
        store: Arc::new(client.content()),
        reference,
        wanted: Wanted::All,
        non_distributable: if flags.allow_non_distributable_blobs {
            NonDistributable::Push
        } else {
            NonDistributable::Skip
        },
        uploads: Arc::new(Semaphore::new(at_once.unwrap_or(UNLIMITED))),
    };
    let jobs = Jobs::new(Moving::Up, None);
    let pushing = push.run(&pusher, &target, Arc::clone(&jobs) as Arc<_>);
    // No progress among the lines of the log.
    if globals.debug { pushing.await } else { jobs.drawn_while(pushing).await }
}

/// How many uploads run at once if nobody says so; upstream has no limit.
const UNLIMITED: usize = 64;

/// What is to be pushed.
async fn target(client: &Client, flags: &Flags, local: &str) -> Result<Descriptor> {
    if let Some(manifest) = flags.manifest.as_deref().filter(|digest| !digest.is_empty()) {
        let digest = go::digest(manifest).context(|| "invalid manifest digest")?;
        let size = client.content().info(&digest).await?.size;
        let media_type = flags.manifest_type.as_deref().unwrap_or(media::OCI_MANIFEST);
        return Ok(Descriptor::new(media_type, digest, size));
    }
    let target = client.image(local).await.context(|| "unable to resolve image to manifest")?.target;
    match flags.platform.as_slice() {
        [one] => {
            let platform = one.parse().context(|| format!("invalid platform {}", go::quote(one)))?;
            only(&client.content(), target, &platform).await
        }
        _ => Ok(target),
    }
}

/// The manifest for a platform, if there is one; else all of it.
async fn only(store: &dyn Store, target: Descriptor, platform: &Platform) -> Result<Descriptor> {
    let wanted = Wanted::Any(vec![platform.clone()]);
    let children = walk::children(store, &target).await.unwrap_or_default();
    let suits = |child: &Descriptor| child.platform.is_some() && wanted.matches(child);
    let Some(manifest) = children.into_iter().find(suits) else { return Ok(target) };
    match walk::children(store, &manifest).await {
        Ok(_) => Ok(manifest),
        Err(error) => Err(error.context("no matching manifest")),
    }
}
