//! `ctr content fetch`, `fetch-object`, `fetch-blob` and `push-object`: their words are checked, the registry client is
//! still to come.

use clap::Args;
use types::Result;

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::images::registry::not_there;
use crate::commands::refused;
use crate::flags::{RegistryFlags, Words};
use crate::go;

/// `ctr content fetch`.
#[derive(Args, Debug)]
pub struct FetchFlags {
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

/// `ctr content fetch-object` and `push-object`.
#[derive(Args, Debug)]
pub struct ObjectFlags {
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

/// Would fetch all content of an image.
pub fn fetch(globals: &Globals, _: &FetchFlags) -> Result<()> {
    Client::open(globals)?;
    Err(not_there("content fetch"))
}

/// Would print an object of a registry.
pub fn fetch_object(_: &ObjectFlags) -> Result<()> {
    Err(not_there("content fetch-object"))
}

/// Would print blobs of a registry.
pub fn fetch_blob(flags: &BlobFlags) -> Result<()> {
    if flags.words.tail().is_empty() {
        return refused("must specify digests");
    }
    Err(not_there("content fetch-blob"))
}

/// Would push one object.
pub fn push_object(globals: &Globals, flags: &ObjectFlags) -> Result<()> {
    go::digest(flags.words.get(1))?;
    Client::open(globals)?;
    Err(not_there("content push-object"))
}
