//! `ctr content fetch-object`, `fetch-blob` and `push-object`: single things of a registry.

use std::sync::Arc;

use ::registry::Fetcher;
use clap::Args;
use content::Store;
use images::push::push_one;
use types::digest::Hasher;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Digest, Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::{print, refused};
use crate::flags::{RegistryFlags, Words};
use crate::{go, registry};

/// `ctr content fetch-object` and `push-object`.
#[derive(Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    words: Words,
}

/// `ctr content fetch-blob`.
#[derive(Args, Debug)]
pub struct BlobFlags {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Specify target mediatype for request header
    #[arg(long, default_value = "")]
    media_type: String,
    #[command(flatten)]
    words: Words,
}

/// Prints what a reference points to.
pub async fn fetch(globals: &Globals, flags: &Flags) -> Result<()> {
    let reference = registry::reference(flags.words.first())?;
    let client = registry::client(globals, &flags.registry)?;
    let (_, target) = client.resolve(&reference).await?;
    show(&client.fetcher(&reference), &target).await
}

/// Prints blobs.
pub async fn fetch_blobs(globals: &Globals, flags: &BlobFlags) -> Result<()> {
    if flags.words.tail().is_empty() {
        return refused("must specify digests");
    }
    let reference = registry::reference(flags.words.first())?;
    let fetcher = registry::client(globals, &flags.registry)?.fetcher(&reference);
    for digest in flags.words.tail() {
        let blob = Descriptor { size: UNKNOWN, ..Descriptor::new(&flags.media_type, go::digest(digest)?, 0) };
        match show(&fetcher, &blob).await {
            // It may be a manifest.
            Err(error) if error.is_not_found() && flags.media_type.is_empty() => {
                show(&fetcher, &Descriptor { media_type: media::OCI_MANIFEST.to_owned(), ..blob }).await?;
            }
            shown => shown?,
        }
    }
    Ok(())
}

/// The size of a blob of which only the digest is known.
const UNKNOWN: i64 = -1;

/// Prints content as it comes; an error at the end if it was not what was asked for.
async fn show(fetcher: &Fetcher, content: &Descriptor) -> Result<()> {
    let mut body = fetcher.open(content, 0).await?;
    let mut hasher = Hasher::new(content.digest.algorithm());
    while let Some(piece) = body.chunk().await? {
        hasher.update(&piece);
        print(&piece)?;
    }
    let digest: Digest = hasher.finish();
    if digest != content.digest {
        return Err(Error::data_loss(format!("unexpected digest {digest}, expected {}", content.digest)));
    }
    Ok(())
}

/// Pushes one object of the content store.
pub async fn push(globals: &Globals, flags: &Flags) -> Result<()> {
    let digest = go::digest(flags.words.get(1))?;
    let client = Client::open(globals)?;
    let reference = registry::reference(flags.words.first())?;
    let pusher = registry::client(globals, &flags.registry)?.pusher(&reference);
    let store = Arc::new(client.content()) as Arc<dyn Store>;
    let size = store.info(&digest).await?.size;
    let object = Descriptor::new(flags.words.get(2), digest, size);
    push_one(&store, &pusher, (&reference, &object)).await?;
    print(format!("Pushed {} {}\n", object.digest, object.media_type))
}
