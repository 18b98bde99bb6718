//! `containerd.services.events.v1.Events`.
//!
//! A subscriber sees all namespaces unless its filters say otherwise. What it misses because it is slow is not hidden from
//! it: its stream ends with an error. One that comes back right after a restart of the daemon over running tasks first gets
//! what the shims have told since.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use api::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use api::containerd::types::Envelope;
use api::{any, convert};
use futures_util::Stream;
use grpc::events::events_server;
use tonic::{Request, Response, Status};
use types::events::{Exchange, Receipt, Subscription};
use types::filters::Filters;

use super::event_fields::Filterable;
use super::reply::{namespace, reply, required, status};
use crate::written::Ledger;

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
        let ledger = request.extensions().get::<Ledger>().cloned();
        let filters = Filters::parse(&request.into_inner().filters).map_err(|error| {
            // The class is lost upstream too.
            Status::unknown(format!("subscription error: failed parsing subscription filters: {error}"))
        })?;
        Ok(Response::new(Box::pin(Matching {
            subscription: self.0.catch_up(),
            filters,
            ledger,
            receipts: Vec::new(),
            rests: false,
            ended: false,
        })))
    }
}

/// What a subscriber's filters let through.
struct Matching {
    subscription: Subscription,
    filters: Filters,
    /// None where events go to no client's connection.
    ledger: Option<Ledger>,
    /// For what was given since the stream had nothing to give.
    receipts: Vec<Receipt>,
    /// Whether it had nothing to give when it was last asked.
    rests: bool,
    ended: bool,
}

impl Stream for Matching {
    type Item = Result<Envelope, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.rests) {
            // Whoever asks again after that has put everything into the connection's queues.
            match &this.ledger {
                Some(ledger) => ledger.hand_in(&mut this.receipts),
                None => this.receipts.clear(),
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let next = this.poll_matching(cx);
        this.rests = next.is_pending();
        next.map(Some)
    }
}

impl Matching {
    fn poll_matching(&mut self, cx: &mut Context<'_>) -> Poll<Result<Envelope, Status>> {
        loop {
            let next = std::pin::pin!(self.subscription.next()).poll(cx);
            match ready!(next) {
                Ok(envelope) if self.filters.matches(&Filterable::new(&envelope)) => {
                    self.receipts.extend(self.subscription.receipt());
                    return Poll::Ready(Ok(convert::envelope_to_wire(envelope.as_ref().clone())));
                }
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(status(&error)));
                }
            }
        }
    }
}
