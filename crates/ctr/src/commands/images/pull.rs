//! `ctr images pull`: an image from a registry, by the daemon's transfer service, or with `--local` by us.

mod local;

use api::containerd::types::transfer as wire;
use clap::Args;
use types::platform::Platform;
use types::{Class, Error, Result, ResultExt};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::flags::{self, RegistryFlags, SnapshotterFlags, Words};
use crate::registry::Known;
use crate::transfer::{Registry, Show, pack, transfer};

/// `ctr images pull`.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    #[command(flatten)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    pub snapshotter: SnapshotterFlags,
    /// Labels to attach to the image
    #[arg(long)]
    pub label: Vec<String>,
    /// Pull content from a specific platform
    #[arg(long)]
    pub platform: Vec<String>,
    /// Pull content and metadata from all platforms
    #[arg(long)]
    pub all_platforms: bool,
    /// (Deprecated: use skip-metadata) Pull metadata for all platforms
    #[arg(long, hide = true)]
    pub all_metadata: bool,
    /// Skips metadata for unused platforms (Image may be unable to be pushed without metadata)
    #[arg(long)]
    pub skip_metadata: bool,
    /// Print the resulting image's chain ID
    #[arg(long)]
    pub print_chainid: bool,
    /// Set the max concurrent downloads for each pull
    #[arg(long)]
    pub max_concurrent_downloads: Option<i64>,
    /// Fetch content from local client rather than using transfer service
    #[arg(long)]
    pub local: bool,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    pub sync_fs: bool,
    #[command(flatten)]
    pub words: Words,
}

/// Pulls the image of the first argument.
pub async fn run(globals: &Globals, flags: &Flags) -> Result<()> {
    if flags.words.first().is_empty() {
        return refused("please provide an image reference to pull");
    }
    let client = Client::open(globals)?;
    if flags.local {
        return local::run(&client, globals, flags).await;
    }
    let only_local = [
        ("max-concurrent-downloads", flags.max_concurrent_downloads.is_some()),
        ("print-chainid", flags.print_chainid),
    ];
    refuse_local_flags(only_local.into_iter().chain(flags.registry.local_only()))?;
    match by_transfer(&client, flags, Show::Progress).await {
        // A daemon from before 1.7.
        Err(error) if error.class() == Class::Unimplemented => local::run(&client, globals, flags).await,
        done => done,
    }
}

/// Pulls by the daemon's transfer service.
pub async fn by_transfer(client: &Client, flags: &Flags, show: Show) -> Result<()> {
    let name = flags.words.first();
    let known = Known::of(&flags.registry)?;
    let store = flags.store()?;
    let registry = Registry::open(client, name, &flags.registry, known).await?;
    transfer(client, (registry.pack(), pack(&store)), show, None).await
}

/// Flags that mean something only with `--local`.
pub fn refuse_local_flags(flags: impl IntoIterator<Item = (&'static str, bool)>) -> Result<()> {
    match flags.into_iter().find(|(_, set)| *set) {
        Some((flag, _)) => refused(format!("\"--{flag}\" requires \"--local\" flag")),
        None => Ok(()),
    }
}

impl Flags {
    /// What the transfer is to leave in the image store.
    fn store(&self) -> Result<wire::ImageStore> {
        let mut platforms: Vec<Platform> = self
            .platform
            .iter()
            .map(|text| text.parse().context(|| format!("invalid platform {text}")))
            .collect::<Result<_>>()?;
        if !platforms.is_empty() && self.all_platforms {
            return Err(Error::invalid("cannot specify both --platform and --all-platforms"));
        }
        if platforms.is_empty() && !self.all_platforms {
            platforms.push(Platform::host());
        }
        let platforms: Vec<_> = platforms.into_iter().map(api::convert::platform_to_wire).collect();
        let unpack = |platform: &api::containerd::types::Platform| wire::UnpackConfiguration {
            platform: Some(platform.clone()),
            snapshotter: self.snapshotter.snapshotter.clone(),
        };
        Ok(wire::ImageStore {
            name: self.words.first().to_owned(),
            labels: flags::labels(&self.label),
            unpacks: platforms.iter().map(unpack).collect(),
            platforms,
            all_metadata: !self.skip_metadata,
            ..wire::ImageStore::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> Flags {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
        }
        Line::parse_from(std::iter::once("pull").chain(words.iter().copied())).flags
    }

    #[test]
    fn a_transfer_is_asked_for_what_upstreams_ctr_asks_for() {
        let store = flags(&["--label", "a=b", "r.io/x:1"]).store().unwrap();
        assert_eq!((store.name.as_str(), store.all_metadata), ("r.io/x:1", true));
        assert_eq!((store.platforms.len(), store.unpacks.len()), (1, 1));
        assert_eq!(store.labels["a"], "b");
        let words =
            ["--platform", "linux/arm64", "--platform", "linux/amd64", "--snapshotter", "native", "r"];
        let store = flags(&words).store().unwrap();
        assert_eq!(store.platforms.len(), 2);
        assert!(store.unpacks.iter().all(|unpack| unpack.snapshotter == "native"));
        let store = flags(&["--all-platforms", "--skip-metadata", "r"]).store().unwrap();
        assert!(store.platforms.is_empty() && store.unpacks.is_empty() && !store.all_metadata);
        let both = flags(&["--all-platforms", "--platform", "linux/arm64", "r"]).store();
        assert_eq!(both.unwrap_err().to_string(), "cannot specify both --platform and --all-platforms");
    }

    #[test]
    fn what_only_we_can_do_needs_the_flag() {
        let refused = refuse_local_flags([("a", false), ("print-chainid", true)]).unwrap_err();
        assert_eq!(refused.to_string(), "\"--print-chainid\" requires \"--local\" flag");
        let registry = RegistryFlags { skip_verify: true, ..RegistryFlags::default() };
        assert!(refuse_local_flags(registry.local_only()).is_err());
    }
}
