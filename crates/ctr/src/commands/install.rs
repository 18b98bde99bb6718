//! `ctr install`: programs and libraries of an image into a directory of the host.
//!
//! ```text
//!  image -> snapshot (a view, under a lease) -> mounted for a moment -> <path>/{bin,lib}/<name>
//! ```
//!
//! Only what stands directly in `/bin` and, if asked, `/lib` of the image is taken, as upstream takes it from the layers.

mod copy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::containerd::services::introspection::v1::PluginsRequest;
use clap::Args;
use remote::from_status;
use snapshots::Snapshotter;
use sys::mount::TempMount;
use types::platform::Platform;
use types::{Labels, Result, ResultExt};

use super::refused;
use super::run::image::resolve;
use crate::cli::Globals;
use crate::client::{Client, Leased, random_lease_id};
use crate::flags::Words;
use crate::log;
use crate::unpack::unpack;
use copy::Existing;

/// What a lease of a client that died holds goes after a day.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// `ctr install`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Install libs from the image
    #[arg(long, short)]
    libs: bool,
    /// Replace any binaries or libs in the opt directory
    #[arg(long, short)]
    replace: bool,
    /// Set an optional install path other than the managed opt directory
    #[arg(long, default_value = "")]
    path: String,
    #[command(flatten)]
    name: Words,
}

/// Installs an image.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let client = Client::open(globals)?;
    let image = client.image(flags.name.first()).await?;
    let path = match flags.path.as_str() {
        "" => managed(&client).await?,
        path => path.into(),
    };
    let lease = client.lease(None, LEASE).await?;
    let installed = install(&lease, &image, &path, &flags).await;
    if let Err(error) = lease.release().await {
        log::warn("failed to end lease", Some(&error));
    }
    installed
}

/// The directory that the daemon puts on the PATH of what it starts.
async fn managed(client: &Client) -> Result<PathBuf> {
    let request = PluginsRequest { filters: vec!["id==opt".into()] };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    let [plugin] = &plugins[..] else { return refused("opt service not enabled") };
    match plugin.exports.get("path").filter(|path| !path.is_empty()) {
        Some(path) => Ok(path.into()),
        None => refused("opt path not exported"),
    }
}

async fn install(lease: &Leased, image: &types::image::Image, path: &Path, flags: &Flags) -> Result<()> {
    let client = &lease.client;
    let resolved = resolve(&client.content(), image, &Platform::host()).await?;
    let snapshots = Arc::new(client.snapshotter("").await?);
    unpack(client, &snapshots, &resolved.manifest, false).await?;
    let key = format!("ctr-install-{}", random_lease_id());
    let mounts = snapshots.view(&key, resolved.chain()?.as_str(), Labels::new()).await?;
    let existing = if flags.replace { Existing::Replace } else { Existing::Refuse };
    let directories: &[&str] = if flags.libs { &["bin", "lib"] } else { &["bin"] };
    let copied = (|| {
        let mounted = TempMount::new(&mounts)?;
        let copied = copy::all(mounted.path(), path, directories, existing);
        mounted.close()?;
        copied
    })();
    let removed = snapshots.remove(&key).await.context(|| format!("remove snapshot {key}"));
    copied.and(removed)
}
