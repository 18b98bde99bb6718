//! What a runtime tells plugins of one container, in the form of CNI's conventions. A plugin gets what it declares.

use serde::Serialize;
use serde_json::{Map, Value};
use types::{Error, Result};

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host's address; empty for all.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// A range of addresses to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    /// With its prefix.
    pub subnet: String,
    /// The first, if not the subnet's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_start: String,
    /// The last, if not the subnet's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range_end: String,
    /// The way out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// How fast, in bits a second, and how much at once, in bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Into the container.
    pub ingress_rate: u64,
    /// The same at once.
    pub ingress_burst: u64,
    /// Out of it.
    pub egress_rate: u64,
    /// The same at once.
    pub egress_burst: u64,
}

/// How the container should resolve names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsConfig {
    /// Servers.
    pub servers: Vec<String>,
    /// Domains for short names.
    pub searches: Vec<String>,
    /// For the resolver.
    pub options: Vec<String>,
}

/// One thing that plugins are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Capability {
    /// Ports of the host.
    PortMappings(Vec<PortMapping>),
    /// Sets of ranges; the container gets an address of each.
    IpRanges(Vec<Vec<IpRange>>),
    /// Limits.
    Bandwidth(Bandwidth),
    /// Names.
    Dns(DnsConfig),
    /// Addresses, with or without a prefix.
    Ips(Vec<String>),
    /// A hardware address.
    Mac(String),
    /// A hardware address of InfiniBand.
    InfinibandGuid(String),
    /// Its control group.
    CgroupPath(String),
    /// Names by which others find it, by network.
    Aliases(Map<String, Value>),
}

impl Capability {
    /// The name by which plugins declare it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PortMappings(_) => "portMappings",
            Self::IpRanges(_) => "ipRanges",
            Self::Bandwidth(_) => "bandwidth",
            Self::Dns(_) => "dns",
            Self::Ips(_) => "ips",
            Self::Mac(_) => "mac",
            Self::InfinibandGuid(_) => "infinibandGUID",
            Self::CgroupPath(_) => "cgroupPath",
            Self::Aliases(_) => "aliases",
        }
    }

    fn value(&self) -> Result<Value> {
        let encoded = match self {
            Self::PortMappings(mappings) => serde_json::to_value(mappings),
            Self::IpRanges(ranges) => serde_json::to_value(ranges),
            Self::Bandwidth(bandwidth) => serde_json::to_value(bandwidth),
            Self::Dns(dns) => serde_json::to_value(dns),
            Self::Ips(ips) => serde_json::to_value(ips),
            Self::Mac(text) | Self::InfinibandGuid(text) | Self::CgroupPath(text) => {
                serde_json::to_value(text)
            }
            Self::Aliases(aliases) => serde_json::to_value(aliases),
        };
        encoded.map_err(|error| Error::internal(format!("encode capability {}: {error}", self.name())))
    }

    /// As plugins find them below `runtimeConfig`.
    pub fn all(capabilities: &[Self]) -> Result<Map<String, Value>> {
        capabilities.iter().map(|one| Ok((one.name().to_owned(), one.value()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn capabilities_look_as_the_conventions_say() {
        let all = [
            Capability::PortMappings(vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: "tcp".into(),
                host_ip: String::new(),
            }]),
            Capability::IpRanges(vec![vec![IpRange { subnet: "10.0.0.0/8".into(), ..Default::default() }]]),
            Capability::Bandwidth(Bandwidth { ingress_rate: 2048, ..Default::default() }),
            Capability::Dns(DnsConfig { servers: vec!["10.0.0.1".into()], ..Default::default() }),
            Capability::Ips(vec!["10.0.0.2/8".into()]),
            Capability::Mac("aa:bb:cc:dd:ee:ff".into()),
            Capability::InfinibandGuid("c2:11".into()),
            Capability::CgroupPath("/x".into()),
            Capability::Aliases(json!({"n": ["db"]}).as_object().unwrap().clone()),
        ];
        let wanted = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "ipRanges": [[{"subnet": "10.0.0.0/8"}]],
            "bandwidth": {"ingressRate": 2048, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
            "dns": {"servers": ["10.0.0.1"], "searches": [], "options": []},
            "ips": ["10.0.0.2/8"],
            "mac": "aa:bb:cc:dd:ee:ff",
            "infinibandGUID": "c2:11",
            "cgroupPath": "/x",
            "aliases": {"n": ["db"]},
        });
        assert_eq!(Value::Object(Capability::all(&all).unwrap()), wanted);
    }
}
