//! What network plugins are told of a pod.

use api::cri::{DnsConfig, PodSandboxConfig, PortMapping as CriPortMapping, Protocol};
use cni::Options;
use cni::capability::{Capability, DnsConfig as Dns, PortMapping};
use serde_json::{Map, Value};
use types::{Error, Result};

use super::bandwidth;

/// The capability by which plugins get a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Arguments and capabilities of the pod `id`.
pub fn options(id: &str, config: &PodSandboxConfig) -> Result<Options> {
    Ok(Options { arguments: arguments(id, config), capabilities: capabilities(config)? })
}

fn arguments(id: &str, config: &PodSandboxConfig) -> Vec<(String, String)> {
    let metadata = config.metadata.clone().unwrap_or_default();
    [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_INFRA_CONTAINER_ID", id.to_owned()),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_UID", metadata.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn capabilities(config: &PodSandboxConfig) -> Result<Map<String, Value>> {
    let mut told = Vec::new();
    let ports: Vec<PortMapping> = config.port_mappings.iter().filter_map(port).collect();
    if !ports.is_empty() {
        told.push(Capability::PortMappings(ports));
    }
    told.extend(bandwidth::of(&config.annotations)?.map(Capability::Bandwidth));
    told.extend(config.dns_config.as_ref().map(|dns| Capability::Dns(names(dns))));
    let cgroup = config.linux.as_ref().map_or("", |linux| &linux.cgroup_parent);
    if !cgroup.is_empty() {
        told.push(Capability::CgroupPath(cgroup.to_owned()));
    }
    let mut map = Capability::all(&told)?;
    let annotations = serde_json::to_value(&config.annotations)
        .map_err(|e| Error::internal(format!("encode annotations: {e}")))?;
    map.insert(ANNOTATIONS.to_owned(), annotations);
    Ok(map)
}

/// One without a port of the host is for people only.
fn port(mapping: &CriPortMapping) -> Option<PortMapping> {
    let host_port = u16::try_from(mapping.host_port).ok().filter(|port| *port > 0)?;
    let protocol = match mapping.protocol() {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    Some(PortMapping {
        host_port,
        container_port: u16::try_from(mapping.container_port).unwrap_or_default(),
        protocol: protocol.to_owned(),
        host_ip: mapping.host_ip.clone(),
    })
}

fn names(dns: &DnsConfig) -> Dns {
    Dns { servers: dns.servers.clone(), searches: dns.searches.clone(), options: dns.options.clone() }
}

#[cfg(test)]
mod tests {
    use api::cri::{LinuxPodSandboxConfig, PodSandboxMetadata};
    use serde_json::json;

    use super::*;

    #[test]
    fn plugins_are_told_what_upstream_tells_them() {
        let metadata =
            PodSandboxMetadata { name: "n".into(), namespace: "ns".into(), uid: "u".into(), attempt: 0 };
        let mapping = |host_port| CriPortMapping {
            protocol: Protocol::Udp.into(),
            container_port: 80,
            host_port,
            host_ip: "127.0.0.1".into(),
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            port_mappings: vec![mapping(0), mapping(8080)],
            annotations: [("kubernetes.io/egress-bandwidth".into(), "1M".into())].into(),
            dns_config: Some(DnsConfig { servers: vec!["1.1.1.1".into()], ..DnsConfig::default() }),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: "/p".into(), ..Default::default() }),
            ..PodSandboxConfig::default()
        };
        let options = options("id", &config).unwrap();
        assert_eq!(options.arguments[2], ("K8S_POD_NAME".to_owned(), "n".to_owned()));
        let expected = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}],
            "bandwidth": {"ingressRate": 0, "ingressBurst": 0, "egressRate": 1_000_000, "egressBurst": u32::MAX},
            "dns": {"servers": ["1.1.1.1"], "searches": [], "options": []},
            "cgroupPath": "/p",
            "io.kubernetes.cri.pod-annotations": {"kubernetes.io/egress-bandwidth": "1M"},
        });
        assert_eq!(Value::Object(options.capabilities), expected);
    }
}
