//! StreamPodSandboxMetrics: as ListPodSandboxMetrics, in pieces.

use std::pin::Pin;

use api::cri::{StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponse};
use futures_util::{Stream, stream};
use types::Result;

use crate::cri::Cri;
use crate::stats::metrics;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamPodSandboxMetricsResponse>> + Send>>;

/// So many pods are one message.
const PIECE: usize = 100;

/// Answers the call.
pub async fn run(cri: &Cri, _request: StreamPodSandboxMetricsRequest) -> Result<Answers> {
    let all = metrics::all(cri).await;
    let pieces: Vec<_> = all
        .chunks(PIECE)
        .map(|piece| Ok(StreamPodSandboxMetricsResponse { pod_sandbox_metrics: piece.to_vec() }))
        .collect();
    Ok(Box::pin(stream::iter(pieces)))
}
