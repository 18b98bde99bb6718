//! StreamImages: the list of images, in pieces.

use std::pin::Pin;

use api::cri::{StreamImagesRequest, StreamImagesResponse};
use futures_util::{Stream, stream};
use types::Result;

use super::list_images;
use crate::cri::Cri;

/// Images of one answer.
const PIECE: usize = 100;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamImagesResponse>> + Send>>;

/// Answers the call.
pub async fn run(cri: &Cri, request: StreamImagesRequest) -> Result<Answers> {
    let images = list_images::chosen(cri, request.filter);
    let pieces: Vec<_> =
        images.chunks(PIECE).map(|images| Ok(StreamImagesResponse { images: images.to_vec() })).collect();
    Ok(Box::pin(stream::iter(pieces)))
}
