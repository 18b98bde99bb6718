//! Sends spans in batches. Waits without a timer while there are none.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};
use types::{Class, Error, Result};

use super::settings::{Protocol, Settings};
use super::{Order, wire};

/// How often a batch is tried, with a pause that doubles in between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// What a collector may answer.
const ANSWER: usize = 64 << 10;
/// What otelgrpc calls itself, and so does whoever queries for it.
const SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc";

/// Sends what is ordered until nobody orders any more.
pub async fn run(settings: Settings, mut orders: mpsc::Receiver<Order>) {
    let sender = Sender::new(settings);
    let mut failing = false;
    while let Some(first) = orders.recv().await {
        let mut spans = Vec::new();
        let mut flush = sender.settings.take(first, &mut spans);
        let until = Instant::now() + sender.settings.delay;
        while flush.is_none() && spans.len() < sender.settings.batch {
            match timeout_at(until, orders.recv()).await {
                Ok(Some(order)) => flush = sender.settings.take(order, &mut spans),
                Ok(None) | Err(_) => break,
            }
        }
        match sender.deliver(spans).await {
            Ok(()) if failing => {
                failing = false;
                info!("traces are delivered again");
            }
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "traces are lost until the collector takes them");
            }
            _ => {}
        }
        // Whoever waits may have gone.
        flush.map(|done| done.send(()));
    }
}

impl Settings {
    /// Puts a span to the others, or returns whom to tell when they are sent.
    fn take(&self, order: Order, spans: &mut Vec<wire::Span>) -> Option<tokio::sync::oneshot::Sender<()>> {
        match order {
            Order::Span(span) => {
                spans.push(*span);
                None
            }
            Order::Flush(done) => Some(done),
        }
    }
}

struct Sender {
    settings: Settings,
    /// For gRPC: connects when it is first used, and again when that breaks.
    channel: Option<Channel>,
}

impl Sender {
    fn new(settings: Settings) -> Self {
        let channel = (settings.protocol == Protocol::Grpc).then(|| {
            Endpoint::from(settings.endpoint.clone()).connect_timeout(settings.timeout).connect_lazy()
        });
        Self { settings, channel }
    }

    async fn deliver(&self, spans: Vec<wire::Span>) -> Result<()> {
        if spans.is_empty() {
            return Ok(());
        }
        let request = self.request(spans);
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.attempt(&request).await {
                Err(error) if error.class() == Class::Unavailable => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.attempt(&request).await
    }

    fn request(&self, spans: Vec<wire::Span>) -> wire::ExportTraceServiceRequest {
        let attributes = self.settings.resource.iter().map(|(key, value)| wire::text(key, value)).collect();
        let scope = wire::InstrumentationScope {
            name: SCOPE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        wire::ExportTraceServiceRequest {
            resource_spans: vec![wire::ResourceSpans {
                resource: Some(wire::Resource { attributes }),
                scope_spans: vec![wire::ScopeSpans { scope: Some(scope), spans }],
            }],
        }
    }

    async fn attempt(&self, request: &wire::ExportTraceServiceRequest) -> Result<()> {
        let attempt = async {
            match &self.channel {
                Some(channel) => self.call(channel.clone(), request.clone()).await,
                None => self.post(request.encode_to_vec().into()).await,
            }
        };
        let late = |_| Error::new(Class::Unavailable, "send traces: the collector does not answer");
        timeout(self.settings.timeout, attempt).await.map_err(late)?
    }

    async fn post(&self, body: Bytes) -> Result<()> {
        let uri = &self.settings.endpoint;
        let address = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address).await.map_err(unavailable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unavailable)?;
        // Ends with this future; its error is the request's as well.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(self.posted(body)?).await.map_err(unavailable)?;
        let status = response.status();
        drop(Limited::new(response.into_body(), ANSWER).collect().await);
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(unavailable(status)),
            status => Err(Error::unknown(format!("send traces: the collector answers {status}"))),
        }
    }

    fn posted(&self, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let uri = &self.settings.endpoint;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| Error::invalid("send traces: path of the endpoint"))?;
        let headers = request.headers_mut();
        headers.extend(self.settings.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        // Without name and password, if there are any.
        let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let host = HeaderValue::try_from(host.unwrap_or_default());
        headers.insert(HOST, host.map_err(|_| Error::invalid("send traces: host of the endpoint"))?);
        Ok(request)
    }

    async fn call(&self, channel: Channel, request: wire::ExportTraceServiceRequest) -> Result<()> {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(unavailable)?;
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = MetadataMap::from_headers(self.settings.headers.clone());
        let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let codec: tonic_prost::ProstCodec<_, wire::ExportTraceServiceResponse> =
            tonic_prost::ProstCodec::default();
        match client.unary(request, path, codec).await {
            Ok(_) => Ok(()),
            Err(status) => {
                let class = api::status::class(status.code() as i32);
                Err(Error::new(class, format!("send traces: the collector answers {:?}", status.code())))
            }
        }
    }
}

fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::new(Class::Unavailable, format!("send traces: {why}"))
}
