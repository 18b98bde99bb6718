//! Images to an archive on a client's stream.

use api::containerd::types::transfer::ImageExportStream;
use api::convert;
use images::export::{Options, export};
use types::platform::Platform;
use types::{Error, Result};

use super::Job;
use super::bytestream::ByteWriter;
use super::store::ImageStore;
use crate::services::streaming::Stream;

/// Exports what `from` names.
pub async fn run(job: &mut Job, from: ImageStore, to: ImageExportStream, stream: Stream) -> Result<()> {
    job.progress.event("Exporting");
    let images = job.house.db.images(&job.scope);
    let mut targets = Vec::new();
    for name in lookup(&from)? {
        targets.push((name.to_owned(), images.get(name)?.target));
    }
    let mut out = ByteWriter::new(stream);
    let store = job.house.db.content(job.scope.clone());
    job.gone.or(export(&store, &targets, &options(to), &mut out)).await?;
    out.finish().await;
    job.progress.event("Completed export");
    Ok(())
}

fn options(wanted: ImageExportStream) -> Options {
    let mut platforms: Vec<Platform> = wanted.platforms.into_iter().map(convert::platform).collect();
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Options {
        platforms,
        all_platforms: wanted.all_platforms,
        skip_docker_manifest: wanted.skip_compatibility_manifest,
        skip_non_distributable: wanted.skip_non_distributable,
    }
}

/// The names of the images to export.
fn lookup(from: &ImageStore) -> Result<Vec<&str>> {
    let mut names: Vec<&str> =
        Some(from.0.name.as_str()).into_iter().filter(|name| !name.is_empty()).collect();
    for reference in &from.0.extra_references {
        if reference.is_prefix {
            return Err(Error::unimplemented("prefix lookup on export not implemented: not implemented"));
        }
        names.push(&reference.name);
    }
    Ok(names)
}
