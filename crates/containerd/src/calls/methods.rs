//! The methods of the API, in a fixed order: what the counters of a call are found by.

/// How the messages of a call flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// One request, one reply.
    Unary,
    /// One request, many replies.
    ServerStream,
    /// Many requests, many replies.
    BidiStream,
}

impl Flow {
    /// As the label `grpc_type` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A service and its methods. A name that ends in `<` streams replies, in `<>` both ways.
type Service = (&'static str, &'static [&'static str]);

/// Sorted by name, as the page of metrics shows them. That nothing served is missing is tested against the texts of the
/// protocol.
const SERVICES: &[Service] = &[
    (
        "containerd.services.containers.v1.Containers",
        &["Create", "Delete", "Get", "List", "ListStream<", "Update"],
    ),
    (
        "containerd.services.content.v1.Content",
        &["Abort", "Delete", "Info", "List<", "ListStatuses", "Read<", "Status", "Update", "Write<>"],
    ),
    ("containerd.services.diff.v1.Diff", &["Apply", "Diff"]),
    ("containerd.services.events.v1.Events", &["Forward", "Publish", "Subscribe<"]),
    ("containerd.services.images.v1.Images", &["Create", "Delete", "Get", "List", "Update"]),
    ("containerd.services.introspection.v1.Introspection", &["PluginInfo", "Plugins", "Server"]),
    (
        "containerd.services.leases.v1.Leases",
        &["AddResource", "Create", "Delete", "DeleteResource", "List", "ListResources"],
    ),
    ("containerd.services.mounts.v1.Mounts", &["Activate", "Deactivate", "Info", "List<", "Update"]),
    ("containerd.services.namespaces.v1.Namespaces", &["Create", "Delete", "Get", "List", "Update"]),
    (
        "containerd.services.sandbox.v1.Controller",
        &["Create", "Metrics", "Platform", "Shutdown", "Start", "Status", "Stop", "Update", "Wait"],
    ),
    ("containerd.services.sandbox.v1.Store", &["Create", "Delete", "Get", "List", "Update"]),
    (
        "containerd.services.snapshots.v1.Snapshots",
        &["Cleanup", "Commit", "List<", "Mounts", "Prepare", "Remove", "Stat", "Update", "Usage", "View"],
    ),
    ("containerd.services.streaming.v1.Streaming", &["Stream<>"]),
    (
        "containerd.services.tasks.v1.Tasks",
        &[
            "Checkpoint",
            "CloseIO",
            "Create",
            "Delete",
            "DeleteProcess",
            "Exec",
            "Get",
            "Kill",
            "List",
            "ListPids",
            "Metrics",
            "Pause",
            "ResizePty",
            "Resume",
            "Start",
            "Update",
            "Wait",
        ],
    ),
    ("containerd.services.transfer.v1.Transfer", &["Transfer"]),
    ("containerd.services.version.v1.Version", &["Version"]),
    ("containerdrs.services.diagnosis.v1.Diagnosis", &["UnderWay", "Why"]),
    ("grpc.health.v1.Health", &["Check", "List", "Watch<"]),
    (
        "runtime.v1.ImageService",
        &["ImageFsInfo", "ImageStatus", "ListImages", "PullImage", "RemoveImage", "StreamImages<"],
    ),
    (
        "runtime.v1.RuntimeService",
        &[
            "Attach",
            "CheckpointContainer",
            "ContainerStats",
            "ContainerStatus",
            "CreateContainer",
            "Exec",
            "ExecSync",
            "GetContainerEvents<",
            "ListContainerStats",
            "ListContainers",
            "ListMetricDescriptors",
            "ListPodSandbox",
            "ListPodSandboxMetrics",
            "ListPodSandboxStats",
            "PodSandboxStats",
            "PodSandboxStatus",
            "PortForward",
            "RemoveContainer",
            "RemovePodSandbox",
            "ReopenContainerLog",
            "RunPodSandbox",
            "RuntimeConfig",
            "StartContainer",
            "Status",
            "StopContainer",
            "StopPodSandbox",
            "StreamContainerStats<",
            "StreamContainers<",
            "StreamPodSandboxMetrics<",
            "StreamPodSandboxStats<",
            "StreamPodSandboxes<",
            "UpdateContainerResources",
            "UpdatePodSandboxResources",
            "UpdateRuntimeConfig",
            "Version",
        ],
    ),
];

/// One method of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its full service name.
    pub service: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// How its messages flow.
    pub flow: Flow,
    /// Its place in the table.
    pub index: usize,
}

/// All methods, in order.
pub fn all() -> impl Iterator<Item = Method> {
    SERVICES
        .iter()
        .flat_map(|(service, methods)| methods.iter().map(move |text| (service, text)))
        .enumerate()
        .map(|(index, (service, text))| {
            let (name, flow) = flow(text);
            Method { service, name, flow, index }
        })
}

fn flow(text: &'static str) -> (&'static str, Flow) {
    if let Some(name) = text.strip_suffix("<>") {
        return (name, Flow::BidiStream);
    }
    match text.strip_suffix('<') {
        Some(name) => (name, Flow::ServerStream),
        None => (text, Flow::Unary),
    }
}

/// The method that a request's path (`/service/method`) asks for, if the table has it. Compares lengths mostly, and
/// allocates nothing.
pub fn find(path: &str) -> Option<Method> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let mut first = 0;
    for (name, methods) in SERVICES {
        if *name == service {
            let place = methods.iter().position(|text| flow(text).0 == method)?;
            let (method, flow) = flow(methods[place]);
            return Some(Method { service: name, name: method, flow, index: first + place });
        }
        first += methods.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_method_is_found_at_its_place() {
        for method in all() {
            assert_eq!(find(&format!("/{}/{}", method.service, method.name)), Some(method));
        }
        assert_eq!(find("/containerd.services.content.v1.Content/Write").unwrap().flow, Flow::BidiStream);
        for unknown in
            ["", "/", "x", "/containerd.services.version.v1.Version/", "/a/b", "/grpc.health.v1.Health"]
        {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }

    /// `rpc Name(…) returns (stream …)` in the protocol's texts.
    fn written(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                written(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let package = text.lines().find_map(|line| line.strip_prefix("package ")).unwrap_or_default();
            let mut service = String::new();
            for line in text.lines().map(str::trim) {
                if let Some(name) = line.strip_prefix("service ") {
                    service =
                        format!("{}.{}", package.trim_end_matches(';'), name.trim_end_matches('{').trim());
                }
                if let Some((name, rest)) = line.strip_prefix("rpc ").and_then(|rpc| rpc.split_once('(')) {
                    let streams = rest.matches("stream ").count();
                    let mark = ["", "<", "<>"][streams];
                    found.push(format!("{service}/{}{mark}", name.trim()));
                }
            }
        }
    }

    #[test]
    fn every_service_of_the_protocol_is_in_the_table() {
        let mut found = Vec::new();
        for dir in ["../api/proto/services", "../api/proto/cri"] {
            written(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
        }
        found.retain(|method| !method.contains(".ttrpc."));
        assert!(found.len() > 50, "{found:?}");
        let table: Vec<_> = SERVICES
            .iter()
            .flat_map(|(service, methods)| methods.iter().map(move |method| format!("{service}/{method}")))
            .collect();
        for method in found {
            assert!(table.contains(&method), "{method} is not in the table");
        }
        assert!(
            table.is_sorted_by_key(|method| method.split_once('/').map(|(service, _)| service.to_owned()))
        );
    }
}
