//! What a runtime and its hooks are told about a container: upstream's keys, and those of the pod's and the container's own
//! annotations that the runtime handler lets through.

use std::collections::BTreeMap;

use api::cri::{LinuxContainerResources, PodSandboxConfig};

use super::document::Document;
use super::glob;

const PREFIX: &str = "io.kubernetes.cri.";

/// What is told about the pod in each of its containers.
pub(super) fn of_pod(document: &mut Document, pod: &str, config: &PodSandboxConfig) {
    let metadata = config.metadata.clone().unwrap_or_default();
    for (key, value) in [
        ("sandbox-id", pod.to_owned()),
        ("sandbox-namespace", metadata.namespace),
        ("sandbox-uid", metadata.uid),
        ("sandbox-name", metadata.name),
    ] {
        document.annotate(&format!("{PREFIX}{key}"), value);
    }
}

/// What is told about a container.
pub(super) fn of_container(document: &mut Document, name: &str, image: &str) {
    for (key, value) in [("container-name", name), ("image-name", image), ("container-type", "container")] {
        document.annotate(&format!("{PREFIX}{key}"), value);
    }
}

/// What is told about a sandbox.
pub(super) fn of_sandbox(document: &mut Document, log_directory: &str, image: &str) {
    for (key, value) in [
        ("sandbox-log-directory", log_directory),
        ("podsandbox.image-name", image),
        ("container-type", "sandbox"),
    ] {
        document.annotate(&format!("{PREFIX}{key}"), value);
    }
}

/// What all containers of a pod will need together, where the kubelet says it.
pub(super) fn of_resources(document: &mut Document, resources: &LinuxContainerResources) {
    for (key, value) in [
        ("sandbox-cpu-period", resources.cpu_period),
        ("sandbox-cpu-quota", resources.cpu_quota),
        ("sandbox-cpu-shares", resources.cpu_shares),
        ("sandbox-memory", resources.memory_limit_in_bytes),
    ] {
        document.annotate(&format!("{PREFIX}{key}"), value.to_string());
    }
}

/// Those of `annotations` whose key matches one of the patterns.
pub(super) fn pass(document: &mut Document, annotations: &BTreeMap<String, String>, patterns: &[String]) {
    for (key, value) in annotations {
        if patterns.iter().any(|pattern| glob::matches(pattern, key)) {
            document.annotate(key, value.clone());
        }
    }
}
