//! ContainerStatus.

use std::collections::BTreeMap;

use api::containerd::runc::v1::Options;
use api::cri::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ImageSpec, Signal,
};
use serde::Serialize;
use serde_json::Value;
use types::container::Container as Row;
use types::{Any, Error, Result, ResultExt};

use crate::container::{Container, Phase, Status, signal, spec};
use crate::cri::Cri;
use crate::image::wire::names;

/// Answers the call.
pub async fn run(cri: &Cri, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
    let id = &request.container_id;
    let container = cri.containers.get(id);
    let container = container.context(|| format!("an error occurred when try to find container {id:?}"))?;
    let info = if request.verbose { info(cri, &container)? } else { BTreeMap::new() };
    Ok(ContainerStatusResponse { status: Some(status_of(cri, &container)), info })
}

/// A container as the kubelet sees it.
pub fn status_of(cri: &Cri, container: &Container) -> ContainerStatus {
    let (record, status) = (&container.record, container.status());
    let row = cri.db.containers(&cri.namespace).get(container.id()).ok();
    let (image, image_ref) = image(cri, container);
    let (started_at, finished_at) = times(&status);
    let user = row.as_ref().and_then(|row| spec::user(row.spec.as_ref()).ok());
    let created_at = match (status.created_at, &row) {
        // No container was created never.
        (0, Some(row)) => types::time::nanoseconds(row.created_at),
        (at, _) => at,
    };
    ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: status.state().into(),
        created_at,
        started_at,
        finished_at,
        exit_code: status.exit_code,
        image,
        image_ref,
        image_id: record.image_ref.clone(),
        reason: reason(&status),
        message: status.message,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: status.resources,
        user: Some(user.unwrap_or_default()),
        stop_signal: stop_signal(container).into(),
    }
}

/// The image by its best name, and by its digest. One that is gone is still told as it was asked for.
fn image(cri: &Cri, container: &Container) -> (Option<ImageSpec>, String) {
    let record = &container.record;
    let Ok(image) = cri.images.resolve(&record.image_ref) else {
        return (record.config.image.clone(), record.image_ref.clone());
    };
    let (tags, digests) = names(&image.references);
    let named = |image| ImageSpec { image, ..ImageSpec::default() };
    let spec = tags.into_iter().next().map(named).or_else(|| record.config.image.clone());
    (spec, digests.into_iter().next().unwrap_or_else(|| record.image_ref.clone()))
}

/// When it was started and when it ended, as far as its state has either.
fn times(status: &Status) -> (i64, i64) {
    match status.state() {
        ContainerState::ContainerCreated => (0, 0),
        ContainerState::ContainerRunning => (status.started_at, 0),
        ContainerState::ContainerExited | ContainerState::ContainerUnknown => {
            (status.started_at, status.finished_at)
        }
    }
}

fn reason(status: &Status) -> String {
    let ended = status.state() == ContainerState::ContainerExited;
    match (status.reason.as_str(), status.exit_code) {
        ("", 0) if ended => "Completed".to_owned(),
        ("", _) if ended => "Error".to_owned(),
        (reason, _) => reason.to_owned(),
    }
}

fn stop_signal(container: &Container) -> Signal {
    match (container.record.config.stop_signal(), container.record.stop_signal.as_str()) {
        (Signal::RuntimeDefault, "") => Signal::Sigterm,
        (Signal::RuntimeDefault, name) => signal::told(name),
        (signal, _) => signal,
    }
}

/// What a verbose answer says more, in upstream's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    #[serde(rename = "sandboxID")]
    pod: &'a str,
    pid: u32,
    removing: bool,
    snapshot_key: String,
    snapshotter: String,
    runtime_type: String,
    runtime_options: Value,
    config: &'a ContainerConfig,
    runtime_spec: Value,
}

fn info(cri: &Cri, container: &Container) -> Result<BTreeMap<String, String>> {
    let row = cri.db.containers(&cri.namespace).get(container.id());
    let row = row.context(|| "failed to get verbose container info: failed to get container info")?;
    let status = container.status();
    let Row { snapshot_key, snapshotter, runtime, spec, .. } = row;
    let spec = spec.as_ref().map_or(Ok(Value::Null), |spec| serde_json::from_slice(&spec.value));
    let info = Info {
        pod: &container.record.pod,
        pid: status.pid,
        removing: status.phase == Phase::Removing,
        snapshot_key,
        snapshotter,
        runtime_type: runtime.name,
        runtime_options: runtime.options.as_ref().map_or(Value::Null, options),
        config: &container.record.config,
        runtime_spec: spec.map_err(|e| Error::invalid(format!("decode spec: {e}")))?,
    };
    let info = serde_json::to_string(&info).map_err(|e| Error::internal(format!("encode info: {e}")))?;
    Ok([("info".to_owned(), info)].into())
}

/// Options of runc, as Go writes them: what is not set is left out. Others are nobody's to read.
fn options(options: &Any) -> Value {
    let Ok(options) = api::any::unpack::<Options>(options) else { return Value::Null };
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: Value| {
        if value != false && value != 0 && value != "" {
            object.insert(key.to_owned(), value);
        }
    };
    put("no_pivot_root", options.no_pivot_root.into());
    put("no_new_keyring", options.no_new_keyring.into());
    put("shim_cgroup", options.shim_cgroup.into());
    put("io_uid", options.io_uid.into());
    put("io_gid", options.io_gid.into());
    put("binary_name", options.binary_name.into());
    put("root", options.root.into());
    put("systemd_cgroup", options.systemd_cgroup.into());
    put("criu_image_path", options.criu_image_path.into());
    put("criu_work_path", options.criu_work_path.into());
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_a_reason_whoever_gave_it() {
        let ended = Status { created_at: 1, started_at: 2, finished_at: 3, ..Status::default() };
        assert_eq!(reason(&ended), "Completed");
        assert_eq!(reason(&Status { exit_code: 1, ..ended.clone() }), "Error");
        assert_eq!(reason(&Status { reason: "OOMKilled".to_owned(), ..ended.clone() }), "OOMKilled");
        assert_eq!(reason(&Status { finished_at: 0, ..ended.clone() }), "");
        assert_eq!(times(&ended), (2, 3));
        assert_eq!(times(&Status { finished_at: 0, ..ended.clone() }), (2, 0));
        assert_eq!(times(&Status { started_at: 0, finished_at: 0, ..ended }), (0, 0));
    }

    #[test]
    fn options_are_told_as_go_tells_them() {
        let runc = Options { systemd_cgroup: true, binary_name: "crun".to_owned(), ..Options::default() };
        let told = options(&api::any::pack(&runc));
        assert_eq!(told, serde_json::json!({"systemd_cgroup": true, "binary_name": "crun"}));
        assert_eq!(options(&Any::new("other", Vec::new())), Value::Null);
    }
}
