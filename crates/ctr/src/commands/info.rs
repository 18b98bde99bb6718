//! `ctr info`.

use api::ProtoAny;
use remote::from_status;
use serde::Serialize;
use types::Result;

use super::print;
use crate::client::Client;
use crate::go::json;

#[derive(Serialize)]
struct Info {
    server: Server,
}

#[derive(Serialize)]
struct Server {
    #[serde(skip_serializing_if = "String::is_empty")]
    uuid: String,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pidns: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deprecations: Vec<Deprecation>,
}

#[derive(Serialize)]
struct Deprecation {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_occurrence: Option<Timestamp>,
}

/// A protobuf timestamp as Go's JSON encoder shows it.
#[derive(Serialize)]
pub struct Timestamp {
    #[serde(skip_serializing_if = "is_zero")]
    seconds: i64,
    #[serde(skip_serializing_if = "is_zero")]
    nanos: i32,
}

impl From<api::Timestamp> for Timestamp {
    fn from(time: api::Timestamp) -> Self {
        Self { seconds: time.seconds, nanos: time.nanos }
    }
}

/// A protobuf `Any` as Go's JSON encoder shows it.
#[derive(Serialize)]
pub struct AnyValue {
    #[serde(skip_serializing_if = "String::is_empty")]
    type_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
}

impl From<ProtoAny> for AnyValue {
    fn from(any: ProtoAny) -> Self {
        use base64::Engine as _;
        Self { type_url: any.type_url, value: base64::engine::general_purpose::STANDARD.encode(any.value) }
    }
}

/// For `omitempty`.
pub fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Prints what the server says about itself.
pub async fn run(client: &Client) -> Result<()> {
    let server = client.introspection().server(()).await.map_err(from_status)?.into_inner();
    let deprecations = server.deprecations.into_iter().map(|d| Deprecation {
        id: d.id,
        message: d.message,
        last_occurrence: d.last_occurrence.map(Into::into),
    });
    let server = Server {
        uuid: server.uuid,
        pid: server.pid,
        pidns: server.pidns,
        deprecations: deprecations.collect(),
    };
    print(json::shown(&Info { server })?)
}
