//! Traces: each call is a span at a collector, over HTTP and gRPC, and a collector that is away disturbs nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use api::containerd::services::containers::v1 as containers;
use api::containerd::services::namespaces::v1 as namespaces;
use daemon::{Daemon, Home, PATIENCE, request};
use grpc::containers::containers_client::ContainersClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use http::Request as HttpRequest;
use prost::Message;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

// The messages as opentelemetry-proto 1.x has them, written down here once more: an error in the daemon's own would
// not be found with the daemon's own.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<SpanStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct SpanStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, &str> {
    attributes
        .iter()
        .map(|kv| (kv.key.as_str(), kv.value.as_ref().map_or("", |value| &*value.text)))
        .collect()
}

/// A collector: what it is sent, with the headers as text.
struct Collector {
    address: String,
    sent: mpsc::UnboundedReceiver<(String, Export)>,
}

impl Collector {
    /// Takes POSTs, one a connection.
    async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, sent) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let (head, length) = loop {
                    let mut part = [0; 4096];
                    let count = stream.read(&mut part).await.unwrap();
                    assert!(count > 0, "cut off after {:?}", String::from_utf8_lossy(&bytes));
                    bytes.extend(&part[..count]);
                    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.unwrap().parse().unwrap();
                    if bytes.len() >= end + 4 + length {
                        break (head, length);
                    }
                };
                let body = &bytes[bytes.len() - length..];
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                drop(sender.send((head, Export::decode(body).unwrap())));
            }
        });
        Self { address, sent }
    }

    /// Answers calls.
    async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, sent) = mpsc::unbounded_channel();
        let service = Service(sender);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { address, sent }
    }

    /// Waits for the span of a method; returns what came with it.
    async fn span(&mut self, name: &str) -> (Span, String, Vec<KeyValue>) {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let (head, export) = self.sent.recv().await.unwrap();
                for spans in export.resource_spans {
                    let resource = spans.resource.unwrap().attributes;
                    let mut spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    if let Some(span) = spans.find(|span| span.name == name) {
                        return (span, head, resource);
                    }
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no span {name}"))
    }
}

#[derive(Clone)]
struct Service(mpsc::UnboundedSender<(String, Export)>);

impl tonic::server::NamedService for Service {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::server::UnaryService<Export> for Service {
    type Response = Nothing;
    type Future = std::future::Ready<Result<Response<Nothing>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let head = format!("{:?}", request.metadata());
        drop(self.0.send((head, request.into_inner())));
        std::future::ready(Ok(Response::new(Nothing {})))
    }
}

impl tower::Service<HttpRequest<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<tonic::body::Body>) -> Self::Future {
        assert!(request.uri().path().ends_with("/Export"), "{}", request.uri());
        let service = self.clone();
        Box::pin(async move {
            let codec: tonic_prost::ProstCodec<Nothing, Export> = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}

async fn start(home: &Home, variables: &[(&str, &str)]) -> Daemon {
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut command = home.command();
    home.launch(command.stderr(log).envs(variables.iter().copied())).await
}

/// Creates a namespace on behalf of [`PARENT`].
async fn create(daemon: &Daemon, name: &str) {
    let namespace = Some(namespaces::Namespace { name: name.into(), ..Default::default() });
    let mut request = Request::new(namespaces::CreateNamespaceRequest { namespace });
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    NamespacesClient::new(daemon.channel().await).create(request).await.unwrap();
}

const CREATE: &str = "containerd.services.namespaces.v1.Namespaces/Create";

#[tokio::test]
async fn a_call_is_a_span_below_its_callers() {
    for protocol in ["http/protobuf", "grpc"] {
        let mut collector = match protocol {
            "grpc" => Collector::grpc().await,
            _ => Collector::http().await,
        };
        let home = Home::new();
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.address),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=S3CRET"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_SERVICE_NAME", "node-7"),
        ];
        let daemon = start(&home, &variables).await;
        create(&daemon, "n").await;
        let (span, head, resource) = collector.span(CREATE).await;
        assert_eq!(
            span.trace_id,
            [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c]
        );
        assert_eq!(span.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(span.span_id.len() == 8 && span.kind == 2 && span.start > 0 && span.end >= span.start);
        assert_eq!(span.status, None);
        let attributes = texts(&span.attributes);
        assert_eq!(attributes["rpc.method"], CREATE);
        assert_eq!(attributes["rpc.system.name"], "grpc");
        assert_eq!(attributes["rpc.response.status_code"], "OK");
        assert_eq!(attributes["server.address"], daemon.address().to_str().unwrap());
        assert_eq!(texts(&resource)["service.name"], "node-7");
        if protocol != "grpc" {
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        }
        assert!(head.to_lowercase().contains("x-token"), "{head}");
        assert!(!home.log().contains("S3CRET"), "{}", home.log());
    }
}

#[tokio::test]
async fn a_failure_of_the_daemon_is_told_and_one_of_the_caller_is_none() {
    let mut collector = Collector::http().await;
    let home = Home::new();
    let endpoint = format!("{}/v1/traces", collector.address);
    let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let daemon = start(&home, &variables).await;
    let mut client = ContainersClient::new(daemon.channel().await);
    let get = containers::GetContainerRequest { id: "none".into() };
    client.get(request(get)).await.unwrap_err();
    let (span, _, resource) = collector.span("containerd.services.containers.v1.Containers/Get").await;
    assert_eq!(texts(&span.attributes)["rpc.response.status_code"], "NOT_FOUND");
    assert_eq!((span.status, span.parent_span_id.len()), (None, 0));
    assert_eq!(texts(&resource)["service.name"], "containerd");
    // A call to a service that nobody offers.
    let channel = daemon.channel().await;
    let mut unknown = tonic::client::Grpc::new(channel);
    unknown.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<Nothing, Nothing> = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/no.such.Service/Call");
    unknown.unary(Request::new(Nothing {}), path, codec).await.unwrap_err();
    let (span, _, _) = collector.span("no.such.Service/Call").await;
    assert_eq!(span.status.map(|status| status.code), Some(2));
}

#[tokio::test]
async fn log_lines_carry_the_id_of_their_trace_and_the_last_spans_are_sent_at_the_end() {
    let mut collector = Collector::http().await;
    let home = Home::new();
    home.configure("[debug]\nlog_trace_id = true\n");
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.address), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let mut daemon = start(&home, &variables).await;
    create(&daemon, "n").await;
    let log = home.log();
    let line = log.lines().find(|line| line.contains("create namespace")).unwrap();
    assert!(line.ends_with(" trace_id=0af7651916cd43dd8448eb211c80319c"), "{line}");
    daemon.signal(Signal::TERM);
    collector.span(CREATE).await;
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_calls_nor_the_end() {
    // Connections are accepted by the kernel and never read.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let home = Home::new();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*address),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let mut daemon = start(&home, &variables).await;
    for name in 0..20 {
        create(&daemon, &format!("n{name}")).await;
    }
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "the end took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_mistake_in_the_environment_is_told_and_the_daemon_works() {
    let home = Home::new();
    let daemon = start(&home, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:S3CRET@h:1")]).await;
    create(&daemon, "n").await;
    let log = home.log();
    assert!(log.contains("no traces are sent") && log.contains("https") && !log.contains("S3CRET"), "{log}");
}
