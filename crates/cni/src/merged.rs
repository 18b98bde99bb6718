//! The results of all networks of a container as one, in the form in which go-cni hands it to its callers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};
use types::{Error, Result};

use crate::result::{Current, Dns, Route, nullable};

/// What a container's networks have given it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Merged {
    /// By name. Those on the host are among them, and always the first one of the container.
    pub interfaces: BTreeMap<String, InterfaceConfig>,
    /// Of each network, in order.
    #[serde(rename = "DNS", serialize_with = "null_if_empty", deserialize_with = "nullable")]
    pub dns: Vec<Dns>,
    /// Of all networks.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "nullable")]
    pub routes: Vec<Route>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InterfaceConfig {
    /// Its addresses, in order.
    #[serde(rename = "IPConfigs", serialize_with = "null_if_empty", deserialize_with = "nullable")]
    pub ip_configs: Vec<IpConfig>,
    /// Its hardware address.
    pub mac: String,
    /// Its network namespace; empty for the host's.
    pub sandbox: String,
    /// For devices that are passed through.
    #[serde(rename = "PciID")]
    pub pci_id: String,
    /// For interfaces in user space.
    pub socket_path: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Without its prefix.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// The way out; empty if there is none.
    #[serde(
        rename = "Gateway",
        serialize_with = "text_or_empty",
        deserialize_with = "crate::result::address"
    )]
    pub gateway: Option<IpAddr>,
}

impl Merged {
    /// Of `results`, where `first` is the container's first interface: it gets the addresses that name none.
    pub fn of(results: &[Current], first: &str) -> Result<Self> {
        let mut merged = Self::default();
        merged.interfaces.insert(first.into(), InterfaceConfig::default());
        for result in results {
            for interface in &result.interfaces {
                let config = InterfaceConfig {
                    ip_configs: Vec::new(),
                    mac: interface.mac.clone(),
                    sandbox: interface.sandbox.clone(),
                    pci_id: interface.pci_id.clone(),
                    socket_path: interface.socket_path.clone(),
                };
                merged.interfaces.insert(interface.name.clone(), config);
            }
            for ip in &result.ips {
                let name = match ip.interface {
                    None => first,
                    Some(index) => named(result, index)?,
                };
                let config = IpConfig { ip: ip.address.address, gateway: ip.gateway };
                merged.interfaces.entry(name.into()).or_default().ip_configs.push(config);
            }
            merged.dns.push(result.dns.clone());
            merged.routes.extend(result.routes.iter().cloned());
        }
        Ok(merged)
    }
}

fn named(result: &Current, index: i64) -> Result<&str> {
    let found = usize::try_from(index).ok().and_then(|index| result.interfaces.get(index));
    let count = result.interfaces.len();
    found.map(|interface| interface.name.as_str()).ok_or_else(|| {
        Error::unknown(format!(
            "invalid interface config: invalid IP configuration (there is no interface number {index} of {count}): invalid \
             result"
        ))
    })
}

/// As Go writes an empty slice that nobody made.
fn null_if_empty<S: Serializer, T: Serialize>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() { serializer.serialize_none() } else { list.serialize(serializer) }
}

fn text_or_empty<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::AddResult;

    fn current(text: &str) -> Current {
        AddResult::parse(text.as_bytes(), "1.0.0").unwrap().current()
    }

    #[test]
    fn addresses_are_with_their_interfaces() {
        let lo = current(
            r#"{"interfaces":[{"name":"lo","sandbox":"/n"}],"ips":[{"interface":0,"address":"127.0.0.1/8"}]}"#,
        );
        let bridge = current(
            r#"{"interfaces":[{"name":"cni0","mac":"a"},{"name":"eth0","mac":"b","sandbox":"/n"}],
            "ips":[{"interface":1,"address":"10.0.0.2/8","gateway":"10.0.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],
            "dns":{"domain":"d"}}"#,
        );
        let plain = current(r#"{"ips":[{"address":"fd00::2/64"}]}"#);
        let merged = Merged::of(&[lo, bridge, plain], "eth0").unwrap();
        let wanted = json!({
            "Interfaces": {
                "cni0": {"IPConfigs": null, "Mac": "a", "Sandbox": "", "PciID": "", "SocketPath": ""},
                "eth0": {"IPConfigs": [{"IP": "10.0.0.2", "Gateway": "10.0.0.1"}, {"IP": "fd00::2", "Gateway": ""}],
                    "Mac": "b", "Sandbox": "/n", "PciID": "", "SocketPath": ""},
                "lo": {"IPConfigs": [{"IP": "127.0.0.1", "Gateway": ""}], "Mac": "", "Sandbox": "/n", "PciID": "",
                    "SocketPath": ""},
            },
            "DNS": [{}, {"domain": "d"}, {}],
            "Routes": [{"dst": "0.0.0.0/0"}],
        });
        assert_eq!(serde_json::to_value(&merged).unwrap(), wanted);
        assert_eq!(serde_json::from_value::<Merged>(wanted).unwrap(), merged);
    }

    #[test]
    fn an_address_of_no_interface_is_refused() {
        for index in ["1", "2", "-1"] {
            let text = format!(
                r#"{{"interfaces":[{{"name":"eth0"}}],"ips":[{{"interface":{index},"address":"10.0.0.2/8"}}]}}"#
            );
            let error = Merged::of(&[current(&text)], "eth0").unwrap_err().to_string();
            assert!(error.ends_with(": invalid result"), "{error}");
        }
    }

    #[test]
    fn without_results_there_is_the_first_interface_and_nothing_on_it() {
        let merged = Merged::of(&[], "eth0").unwrap();
        assert_eq!(merged.interfaces, BTreeMap::from([("eth0".to_owned(), InterfaceConfig::default())]));
        let go = json!({"Interfaces": {}, "DNS": null, "Routes": null});
        assert_eq!(serde_json::from_value::<Merged>(go).unwrap(), Merged::default());
    }
}
