//! PodSandboxStatus: from memory; with `verbose` also what the records and the shim say. A sandboxer in another process is asked, as
//! upstream does.

use std::collections::BTreeMap;
use std::path::Path;

use api::cri::{
    ContainerResources, LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxConfig, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde::Serialize;
use serde_json::Value;
use types::task::Status as TaskStatus;
use types::{Any, Error, Result};

use super::list_pod_sandbox::state;
use crate::cri::Cri;
use crate::pod::{Pod, RUNC, Record};
use crate::proxysandbox;
use crate::sandboxer::Sandboxer;

/// Answers the call.
pub async fn run(cri: &Cri, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
    let pod = cri
        .pods
        .get(&request.pod_sandbox_id)
        .map_err(|e| e.context("an error occurred when try to find sandbox"))?;
    let told = told(cri, &pod, request.verbose).await?;
    let mut info = if request.verbose { info(cri, &pod).await? } else { BTreeMap::new() };
    let mut status = status_of(cri, &pod);
    if let Some(told) = told {
        let is_ready = told.as_ref().is_some_and(types::sandbox::Status::is_ready);
        status.set_state(if is_ready {
            PodSandboxState::SandboxReady
        } else {
            PodSandboxState::SandboxNotready
        });
        if request.verbose {
            add(&mut info, told.map(|told| told.info).unwrap_or_default());
        }
    }
    Ok(PodSandboxStatusResponse { status: Some(status), info, ..PodSandboxStatusResponse::default() })
}

/// What a sandboxer in another process says, if the pod has one; inside, nothing if it does not know the sandbox.
async fn told(cri: &Cri, pod: &Pod, verbose: bool) -> Result<Option<Option<types::sandbox::Status>>> {
    match &pod.sandboxer {
        Sandboxer::Proxy(name) => proxysandbox::status(cri, name, pod.id(), verbose).await.map(Some),
        Sandboxer::Podsandbox | Sandboxer::Shim => Ok(None),
    }
}

/// Adds what a sandboxer tells. What both tell under `info` is its own, where that is an object as ours is.
fn add(info: &mut BTreeMap<String, String>, told: BTreeMap<String, String>) {
    for (key, value) in told {
        let merged = info.get(&key).and_then(|ours| {
            let mut ours: serde_json::Map<String, Value> = serde_json::from_str(ours).ok()?;
            let theirs: serde_json::Map<String, Value> = serde_json::from_str(&value).ok()?;
            ours.extend(theirs);
            serde_json::to_string(&ours).ok()
        });
        match (info.contains_key(&key), merged) {
            (false, _) => drop(info.insert(key, value)),
            (true, Some(merged)) => drop(info.insert(key, merged)),
            // Nothing that a client could read.
            (true, None) => {}
        }
    }
}

/// What is told of a pod beyond its status.
pub async fn info(cri: &Cri, pod: &Pod) -> Result<BTreeMap<String, String>> {
    let told = serde_json::to_string(&Info::of(cri, pod).await?)
        .map_err(|e| Error::internal(format!("encode the info of sandbox {}: {e}", pod.id())))?;
    Ok(BTreeMap::from([("info".to_owned(), told)]))
}

/// What a kubelet is told of a pod.
pub fn status_of(_cri: &Cri, pod: &Pod) -> PodSandboxStatus {
    let (record, status) = (&pod.record, pod.status());
    let config = &record.config;
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.clone());
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state(status.state).into(),
        created_at: types::time::nanoseconds(status.created_at),
        network: Some(network(pod)),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// Without a namespace there are no addresses, whatever they were.
fn network(pod: &Pod) -> PodSandboxNetworkStatus {
    let record = &pod.record;
    if record.netns.is_empty() || is_closed(pod) {
        return PodSandboxNetworkStatus::default();
    }
    let additional_ips = record.additional_ips.iter().map(|ip| PodIp { ip: ip.clone() }).collect();
    PodSandboxNetworkStatus { ip: record.ip.clone(), additional_ips }
}

fn is_closed(pod: &Pod) -> bool {
    pod.status().network_gone || !sys::netns::is_bound(Path::new(&pod.record.netns))
}

/// What `info` is, as JSON: upstream's names.
#[derive(Debug, Default, Serialize)]
struct Info {
    pid: u32,
    #[serde(rename = "processStatus")]
    process_status: &'static str,
    #[serde(rename = "netNamespaceClosed")]
    network_closed: bool,
    image: String,
    #[serde(rename = "snapshotKey")]
    snapshot_key: String,
    snapshotter: String,
    #[serde(rename = "runtimeType")]
    runtime_type: String,
    #[serde(rename = "runtimeOptions")]
    runtime_options: Value,
    config: PodSandboxConfig,
    #[serde(rename = "runtimeSpec")]
    spec: Value,
    #[serde(rename = "cniResult")]
    cni_result: Value,
    #[serde(rename = "sandboxMetadata")]
    metadata: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead: Option<ContainerResources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<ContainerResources>,
}

impl Info {
    async fn of(cri: &Cri, pod: &Pod) -> Result<Self> {
        let (record, status) = (&pod.record, pod.status());
        let mut info = Self {
            pid: status.pid,
            process_status: process_status(cri, pod.id()).await,
            network_closed: !record.netns.is_empty() && is_closed(pod),
            config: record.config.clone(),
            cni_result: record.cni_result.clone(),
            metadata: metadata(record)?,
            overhead: status.overhead,
            resources: status.resources,
            ..Self::default()
        };
        match cri.db.containers(&cri.namespace).get(pod.id()) {
            Ok(container) => {
                info.image = container.image;
                info.snapshot_key = container.snapshot_key;
                info.snapshotter = container.snapshotter;
                info.runtime_options = options(&container.runtime.name, container.runtime.options.as_ref());
                info.runtime_type = container.runtime.name;
                info.spec = container
                    .spec
                    .map_or(Value::Null, |spec| serde_json::from_slice(&spec.value).unwrap_or(Value::Null));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(info)
    }
}

fn metadata(record: &Record) -> Result<Value> {
    let any = record.to_any()?;
    serde_json::from_slice(&any.value).map_err(|e| Error::internal(format!("read back a record: {e}")))
}

/// In the words of upstream's client.
async fn process_status(cri: &Cri, id: &str) -> &'static str {
    match cri.runtime.state(&cri.namespace, id, "").await {
        Ok(process) => match process.status {
            TaskStatus::Unknown => "unknown",
            TaskStatus::Created => "created",
            TaskStatus::Running => "running",
            TaskStatus::Stopped => "stopped",
            TaskStatus::Paused => "paused",
            TaskStatus::Pausing => "pausing",
        },
        Err(error) if error.is_not_found() => "deleted",
        Err(_) => "unknown",
    }
}

/// Options of a runtime, as Go writes them.
pub fn options(runtime: &str, options: Option<&Any>) -> Value {
    let Some(options) = options.filter(|options| !options.value.is_empty()) else { return Value::Null };
    if runtime == RUNC {
        return runc_options(options).unwrap_or(Value::Null);
    }
    other_options(options).unwrap_or(Value::Null)
}

fn runc_options(options: &Any) -> Result<Value> {
    let options: api::containerd::runc::v1::Options = api::any::unpack(options)?;
    let mut map = serde_json::Map::new();
    let flags = [
        ("no_pivot_root", options.no_pivot_root),
        ("no_new_keyring", options.no_new_keyring),
        ("systemd_cgroup", options.systemd_cgroup),
    ];
    let texts = [
        ("shim_cgroup", options.shim_cgroup),
        ("binary_name", options.binary_name),
        ("root", options.root),
        ("criu_image_path", options.criu_image_path),
        ("criu_work_path", options.criu_work_path),
    ];
    let numbers = [("io_uid", options.io_uid), ("io_gid", options.io_gid)];
    map.extend(flags.into_iter().filter(|(_, set)| *set).map(|(key, set)| (key.to_owned(), set.into())));
    map.extend(texts.into_iter().filter(|(_, s)| !s.is_empty()).map(|(key, s)| (key.to_owned(), s.into())));
    map.extend(numbers.into_iter().filter(|(_, n)| *n != 0).map(|(key, n)| (key.to_owned(), n.into())));
    Ok(Value::Object(map))
}

fn other_options(options: &Any) -> Result<Value> {
    let options: api::runtimeoptions::v1::Options = api::any::unpack(options)?;
    let texts = [
        ("type_url", options.type_url),
        ("config_path", options.config_path),
        ("config_body", String::from_utf8_lossy(&options.config_body).into_owned()),
    ];
    let set = texts.into_iter().filter(|(_, s)| !s.is_empty()).map(|(key, s)| (key.to_owned(), s.into()));
    Ok(Value::Object(set.collect()))
}
