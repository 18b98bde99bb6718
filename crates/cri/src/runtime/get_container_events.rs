//! GetContainerEvents: what happens to pods and containers, as long as the caller listens.

use std::pin::Pin;

use api::cri::{ContainerEventResponse, GetEventsRequest};
use futures_util::{Stream, StreamExt, stream};
use tokio_stream::wrappers::BroadcastStream;
use types::Result;

use crate::cri::Cri;

/// What is answered, bit by bit.
pub type Answers = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse>> + Send>>;

/// Answers the call.
pub async fn run(cri: &Cri, _request: GetEventsRequest) -> Result<Answers> {
    let subscription = cri.events.subscribe();
    let live = BroadcastStream::new(subscription.live).filter_map(async |event| match event {
        Ok(event) => Some(Ok(event)),
        Err(lost) => {
            tracing::warn!(%lost, "a subscriber of container events does not read");
            None
        }
    });
    Ok(Box::pin(stream::iter(subscription.unheard.into_iter().map(Ok)).chain(live)))
}
