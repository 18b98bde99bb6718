//! `containerd publish`: what shims of the 1.x line execute to have an event published.

use std::io::Read;
use std::time::{Duration, SystemTime};

use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use prost::Message;
use runtime::ttrpc::{Call, Client};
use tokio::net::UnixStream;
use types::events::Envelope;
use types::{Error, Namespace, Result, ResultExt};

use crate::cli::Publish;

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads an encoded `Any` from stdin and forwards it to the daemon whose gRPC socket is `address`.
pub async fn publish(request: &Publish, address: &str) -> Result<()> {
    if request.topic.is_empty() {
        return Err(Error::invalid("topic required to publish event: invalid argument"));
    }
    let namespace: Namespace = request.namespace.parse()?;
    let mut payload = Vec::new();
    std::io::stdin().read_to_end(&mut payload).context(|| "read event from stdin")?;
    let event = api::ProtoAny::decode(payload.as_slice())
        .map_err(|e| Error::invalid(format!("decode event: {e}")))?;
    let envelope = Envelope {
        timestamp: SystemTime::now(),
        namespace: request.namespace.clone(),
        topic: request.topic.clone(),
        event: api::any::from_wire(event),
    };
    let socket = format!("{address}.ttrpc");
    let stream = UnixStream::connect(&socket).await.context(|| format!("failed to dial {socket:?}"))?;
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
