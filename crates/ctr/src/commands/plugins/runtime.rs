//! `ctr plugins inspect-runtime`: what a runtime says about itself.

use api::containerd::runc::v1::Options;
use api::containerd::services::introspection::v1::PluginInfoRequest;
use api::containerd::types::{RuntimeInfo, RuntimeRequest, RuntimeVersion};
use prost::{Message, Name};
use remote::from_status;
use serde_json::{Value, json};
use types::{Any, Error, Result};

use crate::client::Client;
use crate::commands::info::AnyValue;
use crate::commands::print;
use crate::commands::run::runtime;
use crate::flags::RuntimeFlags;
use crate::go::json;

/// The plugin that knows runtimes.
const PLUGIN: (&str, &str) = ("io.containerd.runtime.v2", "task");

/// Prints the answer as JSON.
pub async fn run(client: &Client, flags: &RuntimeFlags) -> Result<()> {
    let runtime = runtime::of(flags, None)?;
    let asked =
        RuntimeRequest { runtime_path: runtime.name, options: runtime.options.map(api::any::to_wire) };
    let options = Some(api::any::to_wire(api::any::pack(&asked)));
    let request = PluginInfoRequest { r#type: PLUGIN.0.into(), id: PLUGIN.1.into(), options };
    let answer = client.introspection().plugin_info(request).await.map_err(from_status)?.into_inner();
    let extra = answer.extra.unwrap_or_default();
    let info = RuntimeInfo::decode(extra.value.as_slice()).map_err(|e| {
        Error::invalid(format!("failed to get runtime info from plugin info: decode {}: {e}", extra.type_url))
    })?;
    print(json::shown(&shown(info)?)?)
}

fn shown(info: RuntimeInfo) -> Result<Value> {
    let RuntimeVersion { version, revision } = info.version.unwrap_or_default();
    let features = match info.features {
        None => Value::Null,
        Some(features) => serde_json::from_slice(&features.value)
            .map_err(|e| Error::invalid(format!("failed to unmarshal RuntimeInfo.Features: {e}")))?,
    };
    Ok(json!({
        "Name": info.name,
        "Version": { "Version": version, "Revision": revision },
        "Options": info.options.map(api::any::from_wire).map(options).transpose()?,
        "Features": features,
        "Annotations": Some(info.annotations).filter(|annotations| !annotations.is_empty()),
    }))
}

/// runc's options as Go's encoder shows them; those of others as they came.
fn options(any: Any) -> Result<Value> {
    if !any.is(&Options::full_name()) {
        return Ok(json!(AnyValue::from(api::any::to_wire(any))));
    }
    let options: Options = api::any::unpack(&any)?;
    let fields = [
        ("no_pivot_root", json!(options.no_pivot_root)),
        ("no_new_keyring", json!(options.no_new_keyring)),
        ("shim_cgroup", json!(options.shim_cgroup)),
        ("io_uid", json!(options.io_uid)),
        ("io_gid", json!(options.io_gid)),
        ("binary_name", json!(options.binary_name)),
        ("root", json!(options.root)),
        ("systemd_cgroup", json!(options.systemd_cgroup)),
        ("criu_image_path", json!(options.criu_image_path)),
        ("criu_work_path", json!(options.criu_work_path)),
    ];
    let set = fields.into_iter().filter(|(_, value)| ![json!(false), json!(""), json!(0)].contains(value));
    Ok(Value::Object(set.map(|(key, value)| (key.to_owned(), value)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_null_and_what_is_not_set_is_left_out() {
        let options = Options { binary_name: "crun".into(), ..Default::default() };
        let info = RuntimeInfo {
            name: "io.containerd.runc.v2".into(),
            options: Some(api::any::to_wire(api::any::pack(&options))),
            ..Default::default()
        };
        let wanted = r#"{"Name":"io.containerd.runc.v2","Version":{"Version":"","Revision":""},"Options":{"binary_name":"crun"},"Features":null,"Annotations":null}"#;
        assert_eq!(json::compact(&shown(info).unwrap()).unwrap(), wanted);
    }
}
