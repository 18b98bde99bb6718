//! `ctr images import`: an archive into the image store, by the daemon, or with `--local` by us.

mod local;

use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

use api::containerd::types::transfer as wire;
use clap::Args;
use types::platform::Platform;
use types::{Class, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::{self, SnapshotterFlags, Words};
use crate::go;
use crate::transfer::{Show, Stream, pack, send, transfer};

/// `ctr images import`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Base image name for added images, when provided only images with this name prefix are imported
    #[arg(long, default_value = "")]
    base_name: String,
    /// Whether to create digest images (default: false)
    #[arg(long)]
    digests: bool,
    /// Skip applying --digests option to images named in the importing tar (use it in conjunction with --digests)
    #[arg(long)]
    skip_digest_for_named: bool,
    /// Image name to keep index as, by default index is discarded
    #[arg(long, default_value = "")]
    index_name: String,
    /// Imports content for all platforms, false by default
    #[arg(long)]
    all_platforms: bool,
    /// Imports content for specific platform
    #[arg(long, default_value = "")]
    platform: String,
    /// Skip unpacking the images, cannot be used with --discard-unpacked-layers, false by default
    #[arg(long)]
    no_unpack: bool,
    /// Run import locally rather than through transfer API
    #[arg(long)]
    local: bool,
    /// Compress uncompressed blobs when creating manifest (Docker format only)
    #[arg(long)]
    compress_blobs: bool,
    /// Allow the garbage collector to clean layers up from the content store after unpacking
    #[arg(long)]
    discard_unpacked_layers: bool,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    #[command(flatten)]
    snapshotter: SnapshotterFlags,
    /// Labels to attach to the image
    #[arg(long)]
    label: Vec<String>,
    #[command(flatten)]
    words: Words,
}

impl Flags {
    fn platform(&self) -> Result<Platform> {
        if self.platform.is_empty() { Ok(Platform::host()) } else { self.platform.parse() }
    }

    /// How images are named, in front of what an archive says.
    fn prefix(&self) -> String {
        if self.base_name.is_empty() { generated_prefix() } else { self.base_name.clone() }
    }

    /// Where a transfer puts the images.
    fn store(&self) -> Result<wire::ImageStore> {
        let platform = api::convert::platform_to_wire(self.platform()?);
        let mut platforms = vec![platform.clone()];
        let mut unpacked = platform;
        if self.all_platforms {
            platforms.clear();
            unpacked = api::convert::platform_to_wire(Platform::host());
        }
        let unpack = wire::UnpackConfiguration {
            platform: Some(unpacked),
            snapshotter: self.snapshotter.snapshotter.clone(),
        };
        let names = wire::ImageReference {
            name: self.prefix(),
            is_prefix: true,
            // A generated prefix is no reason to leave anything out.
            allow_overwrite: self.base_name.is_empty(),
            add_digest: self.digests,
            // The other way round, as upstream: with the flag, named images get one, too.
            skip_named_digest: self.digests && !self.skip_digest_for_named,
        };
        Ok(wire::ImageStore {
            name: self.index_name.clone(),
            labels: flags::labels(&self.label),
            platforms,
            extra_references: vec![names],
            unpacks: if self.no_unpack { Vec::new() } else { vec![unpack] },
            ..wire::ImageStore::default()
        })
    }
}

/// `import-2026-11-21`, by the local calendar.
fn generated_prefix() -> String {
    let today = go::time::local(SystemTime::now());
    format!("import-{}", today.split('T').next().unwrap_or_default())
}

/// Imports the archive of the first argument, or of stdin.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    if flags.discard_unpacked_layers && !flags.local {
        return refused("\"--discard-unpacked-layers\" requires \"--local\" flag");
    }
    if flags.local {
        return local::run(globals, flags).await;
    }
    let store = flags.store()?;
    let client = Client::open(globals)?;
    let stream = match Stream::open(&client, "import").await {
        // A daemon from before 1.7.
        Err(error) if error.class() == Class::Unimplemented => return local::run(globals, flags).await,
        stream => stream?,
    };
    let (archive, _) = open(flags.words.first())?;
    let source = wire::ImageImportStream {
        stream: stream.id.clone(),
        media_type: String::new(),
        force_compress: flags.compress_blobs,
    };
    let sending = tokio::spawn(send(archive, stream));
    transfer(&client, (pack(&source), pack(&store)), Show::Progress, Some(sending)).await
}

fn open(path: &str) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).map_err(|e| go::path_error("open", path, e))?;
    let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn flags(words: &[&str]) -> Flags {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
        }
        Line::parse_from(std::iter::once("import").chain(words.iter().copied())).flags
    }

    #[test]
    fn a_transfer_is_asked_for_what_upstreams_ctr_asks_for() {
        let store = flags(&["--digests", "x"]).store().unwrap();
        let names = &store.extra_references[0];
        assert!(names.name.starts_with("import-20") && names.is_prefix && names.allow_overwrite);
        assert!(names.add_digest && names.skip_named_digest);
        assert_eq!((store.platforms.len(), store.unpacks.len()), (1, 1));
        let words =
            ["--base-name", "a/b", "--all-platforms", "--platform", "linux/arm64", "--no-unpack", "x"];
        let store = flags(&words).store().unwrap();
        assert!(!store.extra_references[0].allow_overwrite && store.platforms.is_empty());
        assert!(store.unpacks.is_empty());
    }
}
