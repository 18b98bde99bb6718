//! The checkpoint that CreateContainer is given in the place of an image, if restoring is enabled.

use std::path::PathBuf;
use std::sync::Arc;

use api::cri::ContainerConfig;
use types::{Error, Result, ResultExt};

use super::criu;
use super::restore::{self, Archive};
use crate::container::snapshot;
use crate::cri::{Cri, blocking};
use crate::image::Image;

/// What a request names.
enum Given {
    File(PathBuf),
    /// One whose manifest says that it is a checkpoint.
    Image(Arc<Image>),
}

/// Reads what a request gives, if that is a checkpoint; the request then says what it is of. `of` are the pod, and whose snapshots
/// its images are.
pub async fn read(cri: &Cri, of: (&str, &str), config: &mut ContainerConfig) -> Result<Option<Arc<Archive>>> {
    let Some(given) = given(cri, config) else { return Ok(None) };
    if !cri.config.runtime.restore_via_create {
        let text = "checkpoint restore via CreateContainer is disabled by configuration";
        return Err(Error::precondition(text));
    }
    if !cri.config.runtime.enable_criu {
        let text = "checkpoint restore is not enabled: criu support is disabled by configuration";
        return Err(Error::precondition(text));
    }
    blocking(criu::check).await.context(|| "checkpoint restore is not enabled")?;
    let archive = match given {
        Given::File(path) => blocking(move || Archive::read(&path)).await?,
        Given::Image(image) => {
            let known = Arc::clone(&image);
            snapshot::inside(cri, of, &image, move |root| Archive::read_image(known, root)).await?
        }
    };
    archive.complete(config);
    Ok(Some(Arc::new(archive)))
}

fn given(cri: &Cri, config: &ContainerConfig) -> Option<Given> {
    if let Some(path) = restore::named(config) {
        return Some(Given::File(path));
    }
    let image = cri.images.resolve(&config.image.as_ref()?.image).ok()?;
    image.checkpoint.then_some(Given::Image(image))
}
