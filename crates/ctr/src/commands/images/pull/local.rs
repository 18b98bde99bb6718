//! `ctr images pull --local`: fetched by us, unpacked by the daemon's diff service, and then named.

use std::sync::Arc;
use std::time::Instant;

use content::Store;
use images::pull::Metadata;
use images::walk;
use types::image::Image;
use types::oci::Descriptor;
use types::oci::image::{chain_id, media};
use types::platform::Platform;
use types::{Result, ResultExt};

use super::Flags;
use crate::cli::Globals;
use crate::client::Client;
use crate::commands::print;
use crate::commands::run::image::resolve;
use crate::fetch::{Fetch, image, leased, record, wanted};
use crate::unpack::unpack;
use crate::{flags, go};

/// Pulls the image of the first argument.
pub async fn run(client: &Client, globals: &Globals, flags: &Flags) -> Result<()> {
    let fetch = Fetch {
        globals,
        registry: &flags.registry,
        name: flags.words.first(),
        wanted: wanted(&flags.platform, flags.all_platforms)?,
        metadata: if flags.skip_metadata { Metadata::Wanted } else { Metadata::All },
        at_once: flags.max_concurrent_downloads.unwrap_or(0),
    };
    leased(client, async |client| {
        let target = fetch.run(client).await?;
        let image = image(fetch.name, target, flags::labels(&flags.label));
        let begun = Instant::now();
        for platform in platforms(client, flags, &image.target).await? {
            unpack_one(client, flags, &image, &platform).await?;
        }
        record(client, image).await?;
        print(format!("done: {}\t\n", go::duration::exact(begun.elapsed())))
    })
    .await
}

/// For which platforms the image is unpacked.
async fn platforms(client: &Client, flags: &Flags, target: &Descriptor) -> Result<Vec<Platform>> {
    if flags.all_platforms {
        let all = all_platforms(&client.content(), target).await;
        return all.context(|| "unable to resolve image platforms");
    }
    if flags.platform.is_empty() {
        return Ok(vec![Platform::host()]);
    }
    flags.platform.iter().map(|text| text.parse()).collect()
}

/// The platforms of an image, by its index or else by its config.
async fn all_platforms(store: &dyn Store, target: &Descriptor) -> Result<Vec<Platform>> {
    if media::is_index(&target.media_type) {
        let manifests = walk::read_index(store, target).await?.manifests;
        // What describes another image runs nowhere.
        let runs = |platform: &Platform| platform.os != "unknown" && !platform.os.is_empty();
        return Ok(manifests.into_iter().filter_map(|manifest| manifest.platform).filter(runs).collect());
    }
    let manifest = walk::read_manifest(store, target).await?;
    Ok(vec![walk::read_config(store, &manifest.config).await?.platform])
}

async fn unpack_one(client: &Client, flags: &Flags, image: &Image, platform: &Platform) -> Result<()> {
    print(format!("unpacking {platform} {}...\n", image.target.digest))?;
    let resolved = resolve(&client.content(), image, platform).await?;
    let snapshotter = Arc::new(client.snapshotter(&flags.snapshotter.snapshotter).await?);
    unpack(client, &snapshotter, &resolved.manifest, flags.sync_fs).await?;
    if flags.print_chainid {
        let chain = chain_id(&resolved.config.rootfs.diff_ids).map(String::from).unwrap_or_default();
        print(format!("image chain ID: {chain}\n"))?;
    }
    Ok(())
}
