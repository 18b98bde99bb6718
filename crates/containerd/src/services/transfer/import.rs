//! An archive on a client's stream into the image store.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::containerd::types::transfer::ImageImportStream;
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
use super::unpack::{UnpackInto, wanted};
use super::{Gone, Job};
use crate::services::streaming::Stream;

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
    // Asked for what is not there, nothing is read.
    let unpack_into = wanted(job, &to.0.unpacks)?;
    let imported = import::import(archive, &store, &options, &to, &Silent).await?;
    for into in unpack_into {
        unpack_all(job, &store, &imported, into).await?;
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
    UnpackInto { platform, snapshotter, name, applier, .. }: UnpackInto,
) -> Result<()> {
    let unpacker = Unpacker {
        store: Arc::clone(store),
        applier: Arc::new(UntilGone { applier, gone: job.gone.clone() }),
        snapshotter,
        snapshotter_name: name,
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
