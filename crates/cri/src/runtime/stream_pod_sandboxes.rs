//! StreamPodSandboxes: ListPodSandbox in parts that fit into a message, however many pods there are.

use std::pin::Pin;

use api::cri::{StreamPodSandboxesRequest, StreamPodSandboxesResponse};
use futures_util::{Stream, stream};
use types::Result;

use super::list_pod_sandbox::{listed, matching};
use crate::cri::Cri;

/// Pods in a message. With all that Kubernetes allows in labels and annotations it is still below four megabytes.
const CHUNK: usize = 8;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<StreamPodSandboxesResponse>> + Send>>;

/// Answers the call.
pub async fn run(cri: &Cri, request: StreamPodSandboxesRequest) -> Result<Answers> {
    let pods = matching(cri, request.filter.unwrap_or_default());
    let chunks: Vec<_> = pods.chunks(CHUNK).map(<[_]>::to_vec).collect();
    let answers = chunks.into_iter().map(|pods| {
        let pod_sandboxes = pods.iter().map(|pod| listed(pod)).collect();
        Ok(StreamPodSandboxesResponse { pod_sandboxes })
    });
    Ok(Box::pin(stream::iter(answers)))
}
