//! `containerd.services.events.v1.Events`.
//!
//! A subscriber sees all namespaces unless its filters say otherwise. What it misses because it is slow is not hidden from
//! it: its stream ends with an error. One that comes back right after a restart of the daemon over running tasks first gets
//! what the shims have told since.

use std::pin::Pin;

use api::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use api::containerd::types::Envelope;
use api::{any, convert};
use futures_util::Stream;
use grpc::events::events_server;
use tonic::{Request, Response, Status};
use types::events::{Exchange, Subscription};
use types::filters::Filters;

use super::event_fields::Filterable;
use super::reply::{namespace, reply, required, status};

/// The event bus, seen from outside.
pub struct Events(pub Exchange);

#[tonic::async_trait]
impl events_server::Events for Events {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let event = required(request.event, "event").map(any::from_wire)?;
        reply(self.0.publish(&namespace, &request.topic, event)).map(Response::new)
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = required(request.into_inner().envelope, "envelope")?;
        reply(self.0.forward(convert::envelope(envelope))).map(Response::new)
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(|error| {
            // The class is lost upstream too.
            Status::unknown(format!("subscription error: failed parsing subscription filters: {error}"))
        })?;
        Ok(Response::new(Box::pin(matching(self.0.catch_up(), filters))))
    }
}

fn matching(subscription: Subscription, filters: Filters) -> impl Stream<Item = Result<Envelope, Status>> {
    let state = Some((subscription, filters));
    futures_util::stream::unfold(state, |state| async {
        let (mut subscription, filters) = state?;
        loop {
            match subscription.next().await {
                Ok(envelope) if filters.matches(&Filterable::new(&envelope)) => {
                    let envelope = convert::envelope_to_wire(envelope.as_ref().clone());
                    return Some((Ok(envelope), Some((subscription, filters))));
                }
                Ok(_) => {}
                Err(error) => return Some((Err(status(&error)), None)),
            }
        }
    })
}
