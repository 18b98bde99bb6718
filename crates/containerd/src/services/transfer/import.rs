//! An archive on a client's stream into the image store.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::containerd::types::transfer::{ImageImportStream, UnpackConfiguration};
use api::convert;
use async_trait::async_trait;
use content::Store;
use diff::applier::{Applied, Applier, ApplyOptions};
use images::Silent;
use images::import::{self, Imported, Options};
use images::unpack::{self, Unpacker};
use images::walk::{self, Wanted};
use types::mount::Mount;
use types::oci::Descriptor;
use types::platform::Platform;
use types::{Result, ResultExt};

use super::bytestream::ByteReader;
use super::store::ImageStore;
use super::{Gone, Job};
use crate::services::streaming::Stream;

/// Where images are unpacked if nobody says where.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// Imports an archive, unpacks its images and names them.
pub async fn run(job: &mut Job, from: ImageImportStream, stream: Stream, to: ImageStore) -> Result<()> {
    job.progress.event("Importing");
    let store = job.house.db.content(job.scope.clone());
    let archive = Box::new(ByteReader::new(stream, job.gone.clone()));
    let platforms: Vec<Platform> = to.0.platforms.iter().cloned().map(convert::platform).collect();
    let options = Options {
        wanted: if platforms.is_empty() { Wanted::All } else { Wanted::Any(platforms) },
        compress: from.force_compress,
        discard_layers: false,
    };
    let imported = import::import(archive, &store, &options, &to, &Silent).await?;
    for unpack in &to.0.unpacks {
        unpack_all(job, &store, &imported, unpack).await?;
    }
    to.write(job, &imported.images).await?;
    for (name, target) in &imported.images {
        job.progress.image("saved", name, target);
    }
    job.progress.event("Completed import");
    Ok(())
}

/// Unpacks those images that have something for the platform.
async fn unpack_all(
    job: &Job,
    store: &Arc<dyn Store>,
    imported: &Imported,
    wanted: &UnpackConfiguration,
) -> Result<()> {
    let name =
        Some(wanted.snapshotter.as_str()).filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SNAPSHOTTER);
    let platform = wanted.platform.clone().map_or_else(Platform::host, convert::platform);
    let unpacker = Unpacker {
        store: Arc::clone(store),
        applier: Arc::new(UntilGone { applier: job.house.applier(&job.scope)?, gone: job.gone.clone() }),
        snapshotter: job
            .house
            .db
            .snapshotter(job.scope.clone(), name)
            .context(|| "unable to initialize unpacker")?,
        snapshotter_name: name.to_owned(),
    };
    let mut seen = BTreeSet::new();
    for (name, target) in &imported.images {
        if !seen.insert(&target.digest) {
            continue;
        }
        let manifest = match walk::manifest_for(&**store, target, &platform).await {
            Err(error) if error.is_not_found() => continue,
            found => found?.1,
        };
        let options = unpack::Options::default();
        unpacker.unpack(&manifest, &options, &Silent).await.context(|| format!("unpack {name}"))?;
    }
    Ok(())
}

/// An applier that ends with the transfer's caller. Who unpacks takes back what is half-done.
struct UntilGone {
    applier: Arc<dyn Applier>,
    gone: Gone,
}

#[async_trait]
impl Applier for UntilGone {
    async fn apply(&self, layer: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied> {
        self.gone.clone().or(self.applier.apply(layer, mounts, options)).await
    }
}
