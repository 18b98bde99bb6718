//! Pods and containers, as plugins are told them. What cannot be read is left out: plugins are told what there is.

use std::path::Path;

use ::nri::spec;
use ::nri::wire::security_profile::ProfileType;
use ::nri::wire::{
    CdiDevice, Container as Told, ContainerState, LinuxNamespace, LinuxPodSandbox, PodSandbox,
    SecurityProfile,
};
use api::cri::ContainerState as State;
use serde_json::Value;
use types::{Any, Labels};

use super::limits;
use crate::container::{Container, Record};
use crate::cri::Cri;
use crate::pod::{self, Pod};

/// A pod of the store.
pub fn of_pod(cri: &Cri, pod: &Pod) -> PodSandbox {
    self::pod(cri, &pod.record, pod.status().pid)
}

/// The pod of a container. Of one that is gone there is its id.
pub fn pod_of(cri: &Cri, container: &Container) -> PodSandbox {
    let id = &container.record.pod;
    match cri.pods.get(id) {
        Ok(pod) => of_pod(cri, &pod),
        Err(_) => PodSandbox { id: id.clone(), ..PodSandbox::default() },
    }
}

/// A pod. Its sandbox's spec is that of its record.
pub fn pod(cri: &Cri, pod: &pod::Record, pid: u32) -> PodSandbox {
    let row = cri.db.sandboxes(&cri.namespace).get(&pod.id).ok();
    let spec = decode(row.as_ref().and_then(|row| row.spec.as_ref()));
    let config = &pod.config;
    let metadata = config.metadata.clone().unwrap_or_default();
    let mut labels = config.labels.clone();
    labels.extend(row.map(|row| row.labels).unwrap_or_default());
    let mut annotations = config.annotations.clone();
    annotations.extend(spec::describe(&spec).annotations);
    let linux = config.linux.as_ref();
    let ips = [&pod.ip].into_iter().chain(&pod.additional_ips).filter(|ip| !ip.is_empty());
    PodSandbox {
        id: pod.id.clone(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels,
        annotations,
        runtime_handler: pod.runtime_handler.clone(),
        linux: Some(LinuxPodSandbox {
            pod_overhead: linux.and_then(|linux| linux.overhead.as_ref()).map(limits::from_cri),
            pod_resources: linux.and_then(|linux| linux.resources.as_ref()).map(limits::from_cri),
            cgroup_parent: linux.map(|linux| linux.cgroup_parent.clone()).unwrap_or_default(),
            cgroups_path: text(&spec, "/linux/cgroupsPath"),
            namespaces: spec::namespaces(&spec).into_iter().filter(is_there).collect(),
            resources: spec::resources(&spec),
        }),
        pid,
        ips: ips.cloned().collect(),
    }
}

/// A network namespace goes before its pod does.
fn is_there(namespace: &LinuxNamespace) -> bool {
    namespace.r#type != "network" || Path::new(&namespace.path).exists()
}

/// A container that is being made.
pub fn new_container(record: &Record, labels: &Labels, spec: &Value) -> Told {
    let config = &record.config;
    let mut told = spec::describe(spec);
    let metadata = config.metadata.clone().unwrap_or_default();
    told.annotations.extend(config.annotations.clone());
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let profile = security.and_then(|security| security.seccomp.as_ref());
    if let Some(linux) = &mut told.linux {
        linux.seccomp_profile = profile.map(|profile| SecurityProfile {
            // The numbers are the CRI's.
            profile_type: ProfileType::try_from(profile.profile_type).unwrap_or_default().into(),
            localhost_ref: profile.localhost_ref.clone(),
        });
    }
    let mut labels = labels.clone();
    labels.extend(config.labels.clone());
    Told {
        id: record.id.clone(),
        pod_sandbox_id: record.pod.clone(),
        name: metadata.name,
        labels,
        cdi_devices: config
            .cdi_devices
            .iter()
            .map(|device| CdiDevice { name: device.name.clone() })
            .collect(),
        ..told
    }
}

/// A container of which nothing but its pod is known.
pub fn unknown(pod: &str) -> Told {
    Told { pod_sandbox_id: pod.to_owned(), ..Told::default() }
}

/// A container of the store. `pid` is that of its init, where its status does not know it yet.
pub fn container(cri: &Cri, container: &Container, pid: u32) -> Told {
    let row = cri.db.containers(&cri.namespace).get(container.id()).ok();
    let spec = decode(row.as_ref().and_then(|row| row.spec.as_ref()));
    let labels = row.map(|row| row.labels).unwrap_or_default();
    let status = container.status();
    let state = match status.state() {
        State::ContainerCreated => ContainerState::ContainerCreated,
        State::ContainerRunning => ContainerState::ContainerRunning,
        State::ContainerExited => ContainerState::ContainerStopped,
        State::ContainerUnknown => ContainerState::ContainerUnknown,
    };
    Told {
        state: state.into(),
        pid: if status.pid == 0 { pid } else { status.pid },
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        status_reason: status.reason,
        status_message: status.message,
        ..new_container(&container.record, &labels, &spec)
    }
}

fn decode(spec: Option<&Any>) -> Value {
    spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).unwrap_or_default()
}

fn text(spec: &Value, at: &str) -> String {
    spec.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}
