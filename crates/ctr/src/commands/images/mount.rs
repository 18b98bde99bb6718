//! `ctr images mount` and `unmount`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use clap::Args;
use snapshots::Snapshotter;
use sys::mount::UnmountFlags as Flags;
use types::mount::Mount;
use types::platform::Platform;
use types::{Error, Labels, Result, ResultExt};

use crate::cli::Globals;
use crate::client::{Client, Leased};
use crate::commands::run::image::resolve;
use crate::commands::{print, refused};
use crate::flags::{SnapshotterFlags, Words};
use crate::log;
use crate::unpack::unpack;

/// `ctr images mount`.
#[derive(Args, Debug)]
pub struct MountFlags {
    #[command(flatten)]
    snapshotter: SnapshotterFlags,
    /// Labels to attach to the image
    #[arg(long, hide = true)]
    label: Vec<String>,
    /// Enable write support on the mount
    #[arg(long)]
    rw: bool,
    /// Mount the image for the specified platform
    #[arg(long, default_value = "")]
    platform: String,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    /// Set the expiration time for the mount and snapshots
    #[arg(long, short = 'x', value_parser = crate::go::duration::parse, default_value = "1h")]
    expiration: Duration,
    #[command(flatten)]
    words: Words,
}

/// `ctr images unmount`.
#[derive(Args, Debug)]
pub struct UnmountFlags {
    #[command(flatten)]
    snapshotter: SnapshotterFlags,
    /// Remove the snapshot after a successful unmount
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    words: Words,
}

/// Mounts an image; the snapshot and the lease that holds it are named by the target.
pub async fn mount(globals: &Globals, flags: MountFlags) -> Result<()> {
    let (name, target) = (flags.words.get(0), flags.words.get(1));
    if name.is_empty() {
        return refused("please provide an image reference to mount");
    }
    let platform = match flags.platform.as_str() {
        "" => Platform::host(),
        text => text.parse().context(|| format!("unable to parse platform {text}"))?,
    };
    let client = Client::open(globals)?;
    let key = if target.is_empty() { random_key() } else { target.to_owned() };
    let lease = client.lease(Some(key.clone()), flags.expiration).await?;
    match mount_under(&lease, &key, &platform, &flags).await {
        Ok(at) => print(format!("{at}\n")),
        Err(error) => {
            if let Err(left) = lease.release().await {
                log::warn("failed to end lease", Some(&left));
            }
            Err(error)
        }
    }
}

async fn mount_under(lease: &Leased, key: &str, platform: &Platform, flags: &MountFlags) -> Result<String> {
    let client = &lease.client;
    let image = client.image(flags.words.get(0)).await?;
    let resolved = resolve(&client.content(), &image, platform).await?;
    let snapshots = Arc::new(client.snapshotter(&flags.snapshotter.snapshotter).await?);
    unpack(client, &snapshots, &resolved.manifest, flags.sync_fs)
        .await
        .context(|| "error unpacking image")?;
    let chain = resolved.chain()?.to_string();
    print(format!("{chain}\n"))?;
    let made = match flags.rw {
        true => snapshots.prepare(key, &chain, Labels::new()).await,
        false => snapshots.view(key, &chain, Labels::new()).await,
    };
    let mounts = match made {
        Err(error) if error.is_already_exists() => snapshots.mounts(key).await?,
        made => made?,
    };
    let target = flags.words.get(1);
    if target.is_empty() {
        return match &mounts[..] {
            [Mount { kind, source, .. }] if kind == "bind" => Ok(source.clone()),
            _ => Err(Error::unimplemented(format!("cannot handle returned mounts: {mounts:?}"))),
        };
    }
    if let Err(error) = sys::mount::mount_all(&mounts, Path::new(target)) {
        match snapshots.remove(key).await {
            Err(left) if !left.is_not_found() => {
                log::error("Error cleaning up snapshot after mount error", Some(&left));
            }
            _ => {}
        }
        return Err(error.context("failed to mount"));
    }
    Ok(target.to_owned())
}

/// Unmounts what [`mount`] mounted, and with `--rm` removes its snapshot.
pub async fn unmount(globals: &Globals, flags: UnmountFlags) -> Result<()> {
    let target = flags.words.first();
    if target.is_empty() {
        return refused("please provide a target path to unmount from");
    }
    let client = Client::open(globals)?;
    let path = Path::new(target);
    // Whatever was mounted there, one above the other.
    while path.exists() && sys::mount::is_mount_point(path)? {
        sys::mount::unmount(path, Flags::empty())?;
    }
    if flags.rm {
        client.end_lease(target).await.context(|| "error deleting lease")?;
        match client.snapshotter(&flags.snapshotter.snapshotter).await?.remove(target).await {
            Err(error) if !error.is_not_found() => return Err(error.context("error removing snapshot")),
            _ => {}
        }
    }
    print(format!("{target}\n"))
}

fn random_key() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let random: [u8; 3] = rand::random();
    format!("ctr-images-mount-{nanos}-{}", base64::engine::general_purpose::URL_SAFE.encode(random))
}
