//! Results of 0.3.0 to 0.4.0: interfaces and any number of addresses, each with its version as a text.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::current::{Current, Interface as CurrentInterface, IpConfig as CurrentIp};
use super::parts::{Cidr, Dns, Route, address, nullable};

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Middle {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub ips: Vec<IpConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub routes: Vec<Route>,
    // Also when it is empty, as libcni writes it.
    #[serde(deserialize_with = "nullable")]
    pub dns: Dns,
}

/// An interface, in the container or on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Interface {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub mac: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub sandbox: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IpConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    pub address: Cidr,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    pub gateway: Option<IpAddr>,
}

impl From<&Current> for Middle {
    fn from(current: &Current) -> Self {
        let interface = |from: &CurrentInterface| Interface {
            name: from.name.clone(),
            mac: from.mac.clone(),
            sandbox: from.sandbox.clone(),
        };
        let ip = |from: &CurrentIp| IpConfig {
            version: if from.address.is_v4() { "4" } else { "6" }.into(),
            interface: from.interface,
            address: from.address,
            gateway: from.gateway,
        };
        Self {
            interfaces: current.interfaces.iter().map(interface).collect(),
            ips: current.ips.iter().map(ip).collect(),
            routes: current.routes.clone(),
            dns: current.dns.clone(),
        }
    }
}

impl From<&Middle> for Current {
    fn from(middle: &Middle) -> Self {
        let interface = |from: &Interface| CurrentInterface {
            name: from.name.clone(),
            mac: from.mac.clone(),
            sandbox: from.sandbox.clone(),
            ..Default::default()
        };
        let ip = |from: &IpConfig| CurrentIp {
            interface: from.interface,
            address: from.address,
            gateway: from.gateway,
        };
        Self {
            interfaces: middle.interfaces.iter().map(interface).collect(),
            ips: middle.ips.iter().map(ip).collect(),
            routes: middle.routes.clone(),
            dns: middle.dns.clone(),
        }
    }
}
