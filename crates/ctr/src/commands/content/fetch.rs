//! `ctr content fetch`: an image's content from a registry, without unpacking it.

use clap::Args;
use images::pull::Metadata;
use images::walk::Wanted;
use types::Result;

use crate::cli::Globals;
use crate::client::Client;
use crate::fetch::{Fetch, image, leased, record, wanted};
use crate::flags::{self, RegistryFlags, Words};

/// `ctr content fetch`.
#[derive(Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Labels to attach to the image
    #[arg(long)]
    label: Vec<String>,
    /// Pull content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Pull content from all platforms
    #[arg(long)]
    all_platforms: bool,
    /// (Deprecated: use skip-metadata) Pull metadata for all platforms
    #[arg(long, hide = true)]
    all_metadata: bool,
    /// Skips metadata for unused platforms (Image may be unable to be pushed without metadata)
    #[arg(long)]
    skip_metadata: bool,
    /// Pull all metadata including manifests and configs
    #[arg(long)]
    metadata_only: bool,
    #[command(flatten)]
    words: Words,
}

/// Fetches the image of the first argument, and names it.
pub async fn run(globals: &Globals, flags: &Flags) -> Result<()> {
    let client = Client::open(globals)?;
    let everything = flags.metadata_only || !flags.skip_metadata;
    let fetch = Fetch {
        globals,
        registry: &flags.registry,
        name: flags.words.first(),
        wanted: if flags.metadata_only {
            // No platform at all.
            Wanted::Any(Vec::new())
        } else {
            wanted(&flags.platform, flags.all_platforms)?
        },
        metadata: if everything { Metadata::All } else { Metadata::Wanted },
        at_once: 0,
    };
    leased(&client, async |client| {
        let target = fetch.run(client).await?;
        record(client, image(fetch.name, target, flags::labels(&flags.label))).await
    })
    .await
}
