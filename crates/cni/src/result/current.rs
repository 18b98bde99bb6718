//! Results of 1.0.0 and 1.1.0.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::parts::{Cidr, Dns, Route, address, nullable};

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Current {
    /// Interfaces that were made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub ips: Vec<IpConfig>,
    /// Routes of the container.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub routes: Vec<Route>,
    /// How it resolves names.
    #[serde(skip_serializing_if = "Dns::is_empty", deserialize_with = "nullable")]
    pub dns: Dns,
}

/// An interface, in the container or on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name where it is.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub mac: String,
    /// Its largest packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// The network namespace in which it is; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub sandbox: String,
    /// For interfaces in user space.
    #[serde(rename = "socketPath", skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub socket_path: String,
    /// For devices that are passed through.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Whose it is, as an index of the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// The address and its network.
    pub address: Cidr,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    pub gateway: Option<IpAddr>,
}
