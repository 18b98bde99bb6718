//! StreamPodSandboxStats: as ListPodSandboxStats, in pieces.

use std::pin::Pin;

use api::cri::{StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse};
use futures_util::{Stream, stream};
use types::Result;

use crate::cri::Cri;
use crate::stats::pod;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamPodSandboxStatsResponse>> + Send>>;

/// So many pods are one message.
const PIECE: usize = 100;

/// Answers the call.
pub async fn run(cri: &Cri, request: StreamPodSandboxStatsRequest) -> Result<Answers> {
    let all = pod::all(cri, pod::chosen(cri, request.filter)).await?;
    let pieces: Vec<_> = all
        .chunks(PIECE)
        .map(|piece| Ok(StreamPodSandboxStatsResponse { pod_sandbox_stats: piece.to_vec() }))
        .collect();
    Ok(Box::pin(stream::iter(pieces)))
}
