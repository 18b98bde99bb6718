//! Results of 0.1.0 and 0.2.0: one address of each version.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use types::{Error, Result};

use super::middle::{IpConfig as MiddleIp, Middle};
use super::parts::{Cidr, Dns, Route, address, nullable};

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Early {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip4: Option<IpConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip6: Option<IpConfig>,
    #[serde(deserialize_with = "nullable")]
    pub dns: Dns,
}

/// An address, and the routes that lead over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IpConfig {
    pub ip: Cidr,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    pub gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub routes: Vec<Route>,
}

impl TryFrom<&Middle> for Early {
    type Error = Error;

    /// The first address of each version, and the routes for it.
    fn try_from(middle: &Middle) -> Result<Self> {
        let first = |version: &str, v4: bool| {
            let ip = middle.ips.iter().find(|ip| ip.version == version)?;
            let routes = middle.routes.iter().filter(|route| route.dst.is_v4() == v4);
            let routes = routes.map(Route::bare).collect();
            Some(IpConfig { ip: ip.address, gateway: ip.gateway, routes })
        };
        let early = Self { ip4: first("4", true), ip6: first("6", false), dns: middle.dns.clone() };
        if early.ip4.is_none() && early.ip6.is_none() {
            return Err(Error::unknown("cannot convert: no valid IP addresses"));
        }
        Ok(early)
    }
}

impl From<&Early> for Middle {
    fn from(early: &Early) -> Self {
        let mut middle = Self { dns: early.dns.clone(), ..Self::default() };
        for (version, config) in [("4", &early.ip4), ("6", &early.ip6)] {
            let Some(config) = config else { continue };
            middle.ips.push(MiddleIp {
                version: version.into(),
                interface: None,
                address: config.ip,
                gateway: config.gateway,
            });
            middle.routes.extend(config.routes.iter().cloned());
        }
        middle
    }
}
