//! A container record as JSON, in the shape of upstream's Go type.

use std::collections::BTreeMap;

use serde::Serialize;
use types::container::Container;
use types::time::rfc3339;
use types::{Any, Error, Labels, Result};

use crate::commands::info::AnyValue;
use crate::commands::print;
use crate::go::json;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    labels: Option<&'a Labels>,
    image: &'a str,
    runtime: Runtime<'a>,
    snapshot_key: &'a str,
    snapshotter: &'a str,
    created_at: String,
    updated_at: String,
    extensions: BTreeMap<&'a str, AnyValue>,
    #[serde(rename = "SandboxID")]
    sandbox: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Runtime<'a> {
    name: &'a str,
    options: Option<AnyValue>,
}

/// Prints the record, or only its spec.
pub fn show(container: &Container, only_spec: bool) -> Result<()> {
    let spec = container.spec.as_ref().filter(|spec| !spec.value.is_empty()).map(decode).transpose()?;
    if only_spec {
        return print(json::shown(&spec)?);
    }
    print(json::shown(&Shown {
        id: &container.id,
        labels: Some(&container.labels).filter(|labels| !labels.is_empty()),
        image: &container.image,
        runtime: Runtime {
            name: &container.runtime.name,
            options: container.runtime.options.clone().map(|options| any(&options)),
        },
        snapshot_key: &container.snapshot_key,
        snapshotter: &container.snapshotter,
        created_at: rfc3339(container.created_at),
        updated_at: rfc3339(container.updated_at),
        extensions: container.extensions.iter().map(|(key, value)| (key.as_str(), any(value))).collect(),
        sandbox: &container.sandbox,
        spec,
    })?)
}

fn any(any: &Any) -> AnyValue {
    api::any::to_wire(any.clone()).into()
}

fn decode(spec: &Any) -> Result<serde_json::Value> {
    serde_json::from_slice(&spec.value).map_err(|e| Error::invalid(format!("decode {}: {e}", spec.type_url)))
}
