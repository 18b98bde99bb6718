//! `ctr images pull` and `push`: their words are checked, the registry client is still to come.

use clap::Args;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::{RegistryFlags, SnapshotterFlags, Words};

/// `ctr images pull`.
#[derive(Args, Debug)]
pub struct PullFlags {
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    snapshotter: SnapshotterFlags,
    /// Labels to attach to the image
    #[arg(long)]
    label: Vec<String>,
    /// Pull content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Pull content and metadata from all platforms
    #[arg(long)]
    all_platforms: bool,
    /// (Deprecated: use skip-metadata) Pull metadata for all platforms
    #[arg(long, hide = true)]
    all_metadata: bool,
    /// Skips metadata for unused platforms (Image may be unable to be pushed without metadata)
    #[arg(long)]
    skip_metadata: bool,
    /// Print the resulting image's chain ID
    #[arg(long)]
    print_chainid: bool,
    /// Set the max concurrent downloads for each pull
    #[arg(long, default_value_t = 0)]
    max_concurrent_downloads: i64,
    /// Fetch content from local client rather than using transfer service
    #[arg(long)]
    local: bool,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    #[command(flatten)]
    words: Words,
}

/// `ctr images push`.
#[derive(Args, Debug)]
pub struct PushFlags {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Digest of manifest
    #[arg(long)]
    manifest: Option<String>,
    /// Media type of manifest digest
    #[arg(long, default_value = "application/vnd.oci.image.manifest.v1+json")]
    manifest_type: String,
    /// Push content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// Set the max concurrent uploaded layers for each push
    #[arg(long, default_value_t = 0)]
    max_concurrent_uploaded_layers: i64,
    /// Push content from local client rather than using transfer service
    #[arg(long)]
    local: bool,
    /// Allow pushing blobs that are marked as non-distributable
    #[arg(long)]
    allow_non_distributable_blobs: bool,
    #[command(flatten)]
    words: Words,
}

/// Would pull an image.
pub fn pull(globals: &Globals, flags: &PullFlags) -> Result<()> {
    if flags.words.first().is_empty() {
        return refused("please provide an image reference to pull");
    }
    Client::open(globals)?;
    Err(not_there("images pull"))
}

/// Would push an image.
pub fn push(globals: &Globals, flags: &PushFlags) -> Result<()> {
    if flags.words.first().is_empty() {
        return refused("please provide a remote image reference to push");
    }
    Client::open(globals)?;
    Err(not_there("images push"))
}

/// The answer of every command that would speak with a registry.
pub fn not_there(command: &str) -> Error {
    Error::unimplemented(format!("{command} comes with the registry client and is not there yet"))
}
