//! StreamContainerStats: as ListContainerStats, in pieces.

use std::pin::Pin;

use api::cri::{StreamContainerStatsRequest, StreamContainerStatsResponse};
use futures_util::{Stream, stream};
use types::Result;

use super::list_container_stats;
use crate::cri::Cri;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamContainerStatsResponse>> + Send>>;

/// So many containers are one message.
const PIECE: usize = 100;

/// Answers the call.
pub async fn run(cri: &Cri, request: StreamContainerStatsRequest) -> Result<Answers> {
    let all = list_container_stats::list(cri, request.filter).await?;
    let pieces: Vec<_> = all
        .chunks(PIECE)
        .map(|piece| Ok(StreamContainerStatsResponse { container_stats: piece.to_vec() }))
        .collect();
    Ok(Box::pin(stream::iter(pieces)))
}
