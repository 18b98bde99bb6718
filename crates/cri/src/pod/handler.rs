//! Which runtime a pod gets, and what its shim is told.

use api::containerd::runc::v1::Options as RuncOptions;
use api::cri::{NamespaceMode, PodSandboxConfig};
use api::runtimeoptions::v1::Options as OtherOptions;
use serde_json::{Map, Value};
use types::{Any, Error, Result};

use crate::config::Handler;
use crate::cri::Cri;

/// The handler of pods that nobody trusts.
const UNTRUSTED: &str = "untrusted";
/// The annotation of such pods.
const UNTRUSTED_WORKLOAD: &str = "io.kubernetes.cri.untrusted-workload";
/// The runtime whose options are its own.
pub const RUNC: &str = "io.containerd.runc.v2";

/// The runtime handler of a pod: the one that is asked for by `name`, or the default one.
pub fn handler<'a>(cri: &'a Cri, config: &PodSandboxConfig, name: &str) -> Result<&'a Handler> {
    let settings = &cri.config.runtime;
    let untrusted = config.annotations.get(UNTRUSTED_WORKLOAD).is_some_and(|value| value == "true");
    if untrusted && !matches!(name, "" | UNTRUSTED) {
        return Err(Error::invalid("untrusted workload with explicit runtime handler is not allowed"));
    }
    if untrusted && reaches_host(config) {
        return Err(Error::invalid("untrusted workload with host access is not allowed"));
    }
    let name = match name {
        _ if untrusted => UNTRUSTED,
        "" => settings.default_runtime.as_str(),
        name => name,
    };
    settings
        .runtimes
        .get(name)
        .ok_or_else(|| Error::invalid(format!("runtime_handler: no runtime for {name:?} is configured")))
}

fn reaches_host(config: &PodSandboxConfig) -> bool {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    options.is_some_and(|options| {
        [options.network(), options.pid(), options.ipc()].contains(&NamespaceMode::Node)
    })
}

/// What the shim of a handler is told: the handler's table `options`, in the form that its runtime takes.
pub fn options(handler: &Handler) -> Result<Option<Any>> {
    let Value::Object(table) = &handler.options else { return Ok(None) };
    if handler.runtime_type == RUNC {
        return runc(table).map(|options| Some(api::any::pack(&options)));
    }
    let text = |key: &str| lookup(table, key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut options = OtherOptions {
        type_url: text("TypeUrl"),
        config_path: text("ConfigPath"),
        ..OtherOptions::default()
    };
    if options.config_path.is_empty() {
        let body = toml::to_string(table)
            .map_err(|e| Error::invalid(format!("options of runtime {}: {e}", handler.runtime_type)))?;
        options.config_body = body.into_bytes();
    }
    Ok(Some(api::any::pack(&options)))
}

/// Whether systemd keeps the groups of a handler's containers; none if its runtime is not one that says so.
pub fn systemd_cgroup(handler: &Handler) -> Option<bool> {
    match &handler.options {
        Value::Object(table) if handler.runtime_type == RUNC => {
            Some(lookup(table, "SystemdCgroup").is_some_and(|value| *value == true))
        }
        _ => None,
    }
}

/// A key, whatever its case: so are they read upstream.
fn lookup<'a>(table: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    table.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn runc(table: &Map<String, Value>) -> Result<RuncOptions> {
    let bad =
        |key: &str| Error::invalid(format!("options of runtime {RUNC}: {key} has a value of another type"));
    let flag = |key: &str| match lookup(table, key) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| bad(key)),
    };
    let text = |key: &str| match lookup(table, key) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| bad(key)),
    };
    let number = |key: &str| match lookup(table, key) {
        None => Ok(0),
        Some(value) => value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad(key)),
    };
    Ok(RuncOptions {
        no_pivot_root: flag("NoPivotRoot")?,
        no_new_keyring: flag("NoNewKeyring")?,
        shim_cgroup: text("ShimCgroup")?,
        io_uid: number("IoUid")?,
        io_gid: number("IoGid")?,
        binary_name: text("BinaryName")?,
        root: text("Root")?,
        systemd_cgroup: flag("SystemdCgroup")?,
        criu_image_path: text("CriuImagePath")?,
        criu_work_path: text("CriuWorkPath")?,
        ..RuncOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(runtime_type: &str, options: Value) -> Handler {
        Handler { runtime_type: runtime_type.into(), options, ..Handler::default() }
    }

    #[test]
    fn runc_is_told_its_own_options() {
        assert_eq!(options(&of(RUNC, Value::Null)).unwrap(), None);
        let table = json!({"SystemdCgroup": true, "binaryname": "crun", "IoUid": 7, "Unknown": 1});
        let told: RuncOptions = api::any::unpack(&options(&of(RUNC, table)).unwrap().unwrap()).unwrap();
        let expected = RuncOptions {
            systemd_cgroup: true,
            binary_name: "crun".into(),
            io_uid: 7,
            ..RuncOptions::default()
        };
        assert_eq!(told, expected);
        assert!(options(&of(RUNC, json!({"SystemdCgroup": "yes"}))).is_err());
    }

    #[test]
    fn other_runtimes_are_told_where_their_configuration_is_or_all_of_the_table() {
        let kata = "io.containerd.kata.v2";
        let told = |table| -> OtherOptions {
            api::any::unpack(&options(&of(kata, table)).unwrap().unwrap()).unwrap()
        };
        let path = told(json!({"TypeUrl": "t", "ConfigPath": "/etc/kata.toml"}));
        assert_eq!((path.type_url.as_str(), path.config_path.as_str()), ("t", "/etc/kata.toml"));
        assert_eq!(path.config_body, b"");
        assert_eq!(told(json!({"debug": true})).config_body, b"debug = true\n");
    }
}
