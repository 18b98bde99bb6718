//! What a configuration of `bridge` says.

use serde::Deserialize;
use types::{Error, Result, ResultExt};

use crate::builtin::absent;
use crate::builtin::asked::{Asked, Common};
use crate::builtin::kernel::mac::Mac;
use crate::result::nullable;

/// The bridge's name, if it has none.
const BRIDGE: &str = "cni0";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(flatten)]
    pub common: Common,
    #[serde(deserialize_with = "nullable")]
    pub bridge: String,
    #[serde(deserialize_with = "nullable")]
    pub is_gateway: bool,
    #[serde(deserialize_with = "nullable")]
    pub is_default_gateway: bool,
    #[serde(deserialize_with = "nullable")]
    pub force_address: bool,
    #[serde(deserialize_with = "nullable")]
    pub ip_masq: bool,
    #[serde(deserialize_with = "nullable")]
    pub mtu: u32,
    #[serde(deserialize_with = "nullable")]
    pub hairpin_mode: bool,
    #[serde(deserialize_with = "nullable")]
    pub promisc_mode: bool,
    #[serde(deserialize_with = "nullable")]
    pub vlan: i64,
    pub vlan_trunk: Option<serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub macspoofchk: bool,
    #[serde(deserialize_with = "nullable")]
    pub enabledad: bool,
    #[serde(deserialize_with = "nullable")]
    pub disable_container_interface: bool,
    #[serde(deserialize_with = "nullable")]
    pub port_isolation: bool,
    #[serde(deserialize_with = "nullable")]
    pub args: Args,
    #[serde(deserialize_with = "nullable")]
    pub runtime_config: WithMac,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Args {
    #[serde(deserialize_with = "nullable")]
    pub cni: WithMac,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WithMac {
    #[serde(deserialize_with = "nullable")]
    pub mac: String,
}

impl Config {
    pub fn of(asked: &Asked) -> Result<Self> {
        let mut config: Self = asked.parse()?;
        if config.bridge.is_empty() {
            config.bridge = BRIDGE.into();
        }
        crate::names::interface(&config.bridge).context(|| "bridge")?;
        if config.vlan != 0 || config.vlan_trunk.is_some() {
            return Err(absent("vlan of plugin bridge"));
        }
        if config.macspoofchk {
            return Err(absent("macspoofchk of plugin bridge"));
        }
        if !config.common.ipam.kind.is_empty() && config.disable_container_interface {
            return Err(Error::invalid("cannot use IPAM when DisableContainerInterface flag is set"));
        }
        if config.hairpin_mode && config.promisc_mode {
            return Err(Error::invalid("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        config.is_gateway |= config.is_default_gateway;
        Ok(config)
    }

    /// The hardware address that the container shall have: the runtime's word is the last.
    pub fn mac(&self, asked: &Asked) -> Result<Option<Mac>> {
        let all =
            [self.runtime_config.mac.as_str(), &self.args.cni.mac, asked.argument("MAC").unwrap_or_default()];
        all.into_iter().find(|mac| !mac.is_empty()).map(str::parse).transpose()
    }

    pub fn mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != 0)
    }
}
