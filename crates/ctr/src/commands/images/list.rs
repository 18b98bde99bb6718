//! `ctr images list`.

use std::collections::BTreeSet;

use remote::RemoteStore;
use types::image::Image;
use types::oci::image::media;
use types::oci::{Descriptor, ImageConfig, Index, Manifest};
use types::platform::Platform;
use types::{Result, ResultExt};

use crate::client::Client;
use crate::commands::print;
use crate::commands::run::image::{document, resolve};
use crate::{go, log};

/// Indexes may nest, but not for ever.
const DEPTH: usize = 4;

/// Prints the images.
pub async fn run(client: &Client, quiet: bool, filters: Vec<String>) -> Result<()> {
    let images = client.list_images(filters).await.context(|| "failed to list images")?;
    if quiet {
        return print(images.iter().map(|image| format!("{}\n", image.name)).collect::<String>());
    }
    let store = client.content();
    let host = Platform::host();
    let rows = images.iter().map(|image| row(&store, image, &host));
    let mut table = go::Columns::narrow();
    table.line("REF\tTYPE\tDIGEST\tSIZE\tPLATFORMS\tLABELS\t");
    for row in futures_util::future::join_all(rows).await {
        table.line(row);
    }
    print(table.finish())
}

async fn row(store: &RemoteStore, image: &Image, host: &Platform) -> String {
    let size = match resolve(store, image, host).await {
        Ok(resolved) => resolved.size(),
        Err(error) => {
            log::error(&format!("failed calculating size for image {}", image.name), Some(&error));
            0
        }
    };
    let mut platforms = BTreeSet::new();
    if let Err(error) = collect(store, &image.target, &mut platforms).await {
        log::error(&format!("failed resolving platform for image {}", image.name), Some(&error));
        platforms.clear();
    }
    let platforms = if platforms.is_empty() {
        "-".to_owned()
    } else {
        platforms.into_iter().collect::<Vec<_>>().join(",")
    };
    let (kind, digest, size) = (&image.target.media_type, &image.target.digest, go::size::binary(size));
    format!("{}\t{kind}\t{digest}\t{size}\t{platforms}\t{}\t", image.name, go::labels_or_dash(&image.labels))
}

/// The platforms that `target` names, or those of the configs where it names none.
async fn collect(store: &RemoteStore, target: &Descriptor, into: &mut BTreeSet<String>) -> Result<()> {
    let mut queue = vec![(target.clone(), 0)];
    while let Some((descriptor, depth)) = queue.pop() {
        if let Some(platform) = &descriptor.platform {
            // Attestations say so.
            if platform.os != "unknown" && platform.architecture != "unknown" {
                into.insert(platform.to_string());
            }
        } else if media::is_index(&descriptor.media_type) && depth < DEPTH {
            let index: Index = document(store, &descriptor).await?;
            queue.extend(index.manifests.into_iter().map(|manifest| (manifest, depth + 1)));
        } else if media::is_manifest(&descriptor.media_type) {
            let manifest: Manifest = document(store, &descriptor).await?;
            if media::is_config(&manifest.config.media_type) {
                let config: ImageConfig = document(store, &manifest.config).await?;
                into.insert(config.platform.normalized().to_string());
            }
        }
    }
    Ok(())
}
