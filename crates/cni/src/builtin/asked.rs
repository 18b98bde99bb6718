//! What a plugin is asked: what its program would find in its environment and on its standard input.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sys::netns::Netns;
use types::{Class, Error, Result, ResultExt};

use super::owner::Owner;
use crate::plugin::{Environment, Verb};
use crate::result::{AddResult, Current, Dns, IpConfig, nullable};

/// Has another plugin asked, by its type: the one for addresses, if it is a program.
pub(crate) type Delegate = Box<dyn Fn(&str, Verb, &[u8]) -> Result<Vec<u8>> + Send + Sync>;

/// A question.
pub(crate) struct Asked {
    pub verb: Verb,
    pub at: Environment,
    /// How long others may be waited for.
    pub time: Duration,
    pub delegate: Delegate,
    config: Map<String, Value>,
    bytes: Vec<u8>,
}

/// What every plugin's configuration has.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Common {
    #[serde(deserialize_with = "nullable")]
    pub ipam: Ipam,
    #[serde(deserialize_with = "nullable")]
    pub dns: Dns,
}

/// The plugin for addresses.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Ipam {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
}

#[derive(Deserialize)]
struct Claimed {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

impl Asked {
    /// # Errors
    /// If `bytes` are no configuration.
    pub fn new(
        verb: Verb,
        at: Environment,
        bytes: &[u8],
        (time, delegate): (Duration, Delegate),
    ) -> Result<Self> {
        let config = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid(format!("failed to load netconf: {error}")))?;
        Ok(Self { verb, at, time, delegate, config, bytes: bytes.to_vec() })
    }

    /// The configuration, as a plugin has it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Error::invalid(format!("failed to load netconf: {error}")))
    }

    fn text(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        self.text("name")
    }

    /// The configuration's version.
    pub fn version(&self) -> &str {
        self.text("cniVersion")
    }

    /// Whose what is made will be.
    pub fn owner(&self) -> Result<Owner> {
        Owner::new(self.network(), &self.at.container, &self.at.interface)
    }

    /// Of `CNI_ARGS`.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let mut pairs = self.at.arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value)
    }

    /// What the plugins before said, or at DEL and CHECK all of them.
    pub fn previous(&self) -> Result<Option<Current>> {
        match self.config.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(result)) => {
                let kept = AddResult::kept(result.clone()).context(|| "could not parse prevResult")?;
                Ok(Some(kept.current()))
            }
            Some(other) => Err(Error::invalid(format!("could not parse prevResult: it is {other}"))),
        }
    }

    /// The same, for those who cannot be the first.
    pub fn chained(&self) -> Result<Current> {
        self.previous()?
            .ok_or_else(|| Error::invalid("required prevResult missing: must be called as chained plugin"))
    }

    /// Ids and interfaces that are in use, for GC.
    pub fn claimed(&self) -> Result<Vec<(String, String)>> {
        let named = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let list = named.iter().find_map(|name| self.config.get(*name));
        let list = list.ok_or_else(|| Error::invalid("cni.dev/valid-attachments is missing"))?;
        let claimed: Vec<Claimed> = Deserialize::deserialize(list)
            .map_err(|error| Error::invalid(format!("cni.dev/valid-attachments: {error}")))?;
        Ok(claimed.into_iter().map(|claimed| (claimed.container, claimed.ifname)).collect())
    }

    /// The pod's network namespace.
    pub fn netns(&self) -> Result<Netns> {
        let opened = Netns::open(Path::new(&self.at.netns)).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => Error::invalid(error.to_string()),
            _ => Error::from(error),
        });
        opened.context(|| format!("failed to open netns {:?}", self.at.netns))
    }

    /// The same, if there is one still.
    pub fn netns_if_there(&self) -> Result<Option<Netns>> {
        if self.at.netns.is_empty() {
            return Ok(None);
        }
        match self.netns() {
            Ok(netns) => Ok(Some(netns)),
            // A file that nothing is mounted on any more is what `ip netns del` and crashes leave.
            Err(error) if [Class::NotFound, Class::InvalidArgument].contains(&error.class()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does `work` in the pod's network namespace.
    pub fn inside<T: Send>(&self, netns: &Netns, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns.inside(work).context(|| format!("enter netns {:?}", self.at.netns))?
    }

    /// Has the plugin for addresses asked.
    pub fn ipam(&self, kind: &str, verb: Verb) -> Result<Option<Current>> {
        if kind == "host-local" {
            return match verb {
                Verb::Add => super::host_local::add(self).map(Some),
                Verb::Del => super::host_local::del(self).map(|()| None),
                Verb::Check => super::host_local::check(self).map(|()| None),
                Verb::Gc => super::host_local::gc(self).map(|()| None),
                Verb::Status => super::host_local::status(self).map(|()| None),
                Verb::Version => Ok(None),
            };
        }
        let answer = (self.delegate)(kind, verb, &self.bytes)?;
        if verb != Verb::Add {
            return Ok(None);
        }
        let result = AddResult::parse(&answer, self.version()).context(|| format!("plugin {kind} (add)"))?;
        Ok(Some(result.current()))
    }
}

/// The addresses of a result that are on `interface` in a container.
pub(super) fn own_addresses(result: &Current, interface: &str) -> Vec<IpConfig> {
    let elsewhere = |ip: &&IpConfig| {
        let of = ip.interface.and_then(|index| result.interfaces.get(usize::try_from(index).ok()?));
        of.is_some_and(|of| of.name != interface || of.sandbox.is_empty())
    };
    result.ips.iter().filter(|ip| !elsewhere(ip)).cloned().collect()
}

/// Only the addresses of the same.
pub(super) fn own_ips(result: &Current, interface: &str) -> Vec<IpAddr> {
    own_addresses(result, interface).iter().map(|ip| ip.address.address).collect()
}
