//! RemoveImage: all names of the image go, whichever was given. One that is not there is removed already.

use api::containerd::services::images::v1::ImageDelete;
use api::cri::{RemoveImageRequest, RemoveImageResponse};
use types::{Result, ResultExt};

use super::watch;
use crate::cri::Cri;

/// Answers the call.
pub async fn run(cri: &Cri, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
    let name = request.image.unwrap_or_default().image;
    let image = match cri.images.resolve(&name) {
        Ok(image) => image,
        Err(error) if error.is_not_found() => return Ok(RemoveImageResponse::default()),
        Err(error) => return Err(error.context(format!("can not resolve {name:?} locally"))),
    };
    let images = cri.db.images(&cri.scope(None));
    for name in &image.references {
        match images.delete(name, None).await {
            Ok(()) => cri.announce("/images/delete", &ImageDelete { name: name.clone() }),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let what = || format!("failed to delete image reference {name:?} for {:?}", image.id);
                return Err(error).context(what);
            }
        }
        watch::look(cri, name).await?;
    }
    // Who removes an image wants its room.
    (cri.doors.collect)().await.context(|| "collect what the image has left")?;
    Ok(RemoveImageResponse::default())
}
