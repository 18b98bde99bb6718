//! ListImages: from memory.

use api::cri::{ImageFilter, ListImagesRequest, ListImagesResponse};
use types::Result;

use super::wire;
use crate::cri::Cri;

/// Answers the call.
pub async fn run(cri: &Cri, request: ListImagesRequest) -> Result<ListImagesResponse> {
    Ok(ListImagesResponse { images: chosen(cri, request.filter) })
}

/// The images that a filter lets through: all, or the one it names.
pub fn chosen(cri: &Cri, filter: Option<ImageFilter>) -> Vec<api::cri::Image> {
    let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
    if wanted.is_empty() {
        return cri.images.list().iter().map(|image| wire::image(image)).collect();
    }
    // One that is not there, or that could be several, is none.
    cri.images.resolve(&wanted).iter().map(|image| wire::image(image)).collect()
}
