//! StreamContainers: as ListContainers, in pieces.

use std::pin::Pin;

use api::cri::{StreamContainersRequest, StreamContainersResponse};
use futures_util::{Stream, stream};
use types::Result;

use super::list_containers;
use crate::cri::Cri;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamContainersResponse>> + Send>>;

/// So many containers are one message.
const PIECE: usize = 100;

/// Answers the call.
pub async fn run(cri: &Cri, request: StreamContainersRequest) -> Result<Answers> {
    let containers = list_containers::list(cri, request.filter);
    let pieces: Vec<_> = containers
        .chunks(PIECE)
        .map(|piece| Ok(StreamContainersResponse { containers: piece.to_vec() }))
        .collect();
    Ok(Box::pin(stream::iter(pieces)))
}
