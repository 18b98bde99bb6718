//! `containerd publish`: what shims of the 1.x line execute to have an event published.

use std::io::Read;
use std::time::{Duration, SystemTime};

use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::containerd::services::events::v1::PublishRequest;
use grpc::events::events_client::EventsClient;
use prost::Message;
use remote::Connection;
use runtime::ttrpc::{Call, Client};
use tokio::net::UnixStream;
use types::events::Envelope;
use types::{Class, Error, Namespace, Result, ResultExt, Scope};

use crate::cli::Publish;

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads an encoded `Any` from stdin and publishes it at the daemon whose gRPC socket is `address`.
pub async fn publish(request: &Publish, address: &str) -> Result<()> {
    if request.topic.is_empty() {
        return Err(Error::invalid("topic required to publish event: invalid argument"));
    }
    let namespace: Namespace = request.namespace.parse()?;
    let mut payload = Vec::new();
    std::io::stdin().read_to_end(&mut payload).context(|| "read event from stdin")?;
    let event = api::ProtoAny::decode(payload.as_slice())
        .map_err(|e| Error::invalid(format!("decode event: {e}")))?;
    match UnixStream::connect(format!("{address}.ttrpc")).await {
        Ok(stream) => forward(stream, request, namespace, event).await,
        // A daemon whose shims' socket is elsewhere.
        Err(_) => ask(request, namespace, event, address).await,
    }
}

/// To the socket that shims publish to, with the time of the event.
async fn forward(
    stream: UnixStream,
    request: &Publish,
    namespace: Namespace,
    event: api::ProtoAny,
) -> Result<()> {
    let envelope = Envelope {
        timestamp: SystemTime::now(),
        namespace: request.namespace.clone(),
        topic: request.topic.clone(),
        event: api::any::from_wire(event),
    };
    let forward = ForwardRequest { envelope: Some(api::convert::envelope_to_wire(envelope)) };
    let call = Call {
        service: "containerd.services.events.ttrpc.v1.Events",
        method: "Forward",
        namespace: &namespace,
        timeout: Some(LIMIT),
    };
    Client::new(stream).call(call, forward.encode_to_vec()).await?;
    Ok(())
}

/// To the main socket, where the daemon says when it was.
async fn ask(request: &Publish, namespace: Namespace, event: api::ProtoAny, address: &str) -> Result<()> {
    let connection = Connection::open(address, Scope { namespace, lease: None })?;
    let publish = PublishRequest { topic: request.topic.clone(), event: Some(event) };
    let mut client = EventsClient::new(connection.transport());
    let done = tokio::time::timeout(LIMIT, client.publish(publish)).await;
    let done = done.map_err(|_| Error::new(Class::DeadlineExceeded, "publish: context deadline exceeded"))?;
    done.map_err(remote::from_status)?;
    Ok(())
}
