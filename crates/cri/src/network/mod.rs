//! The networks of pods: a network namespace for each pod, bound to a file, and the plugins that put interfaces into it.
//!
//! ```text
//!  namespace     /var/run/netns/cni-<uuid>: made, removed        capabilities   what plugins are told of a pod
//!  addresses     which of a pod's addresses is its first         bandwidth      limits in annotations
//! ```
//!
//! What a pod has been given is in its record, and in the cache of the plugins' results, as upstream keeps it: who comes
//! later takes it away by those. A handler may have networks of its own.

mod addresses;
pub mod bandwidth;
mod capabilities;
pub mod namespace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::{Limits, Loopback, Merged, Networks, Order, Settings};
use types::{Error, Result};

use crate::config::{Config, Handler, IpPreference, Network as NetworkSettings};
use crate::pod::Record;

/// The first interface of a pod.
const FIRST: &str = "eth0";
/// How long a plugin may take. A kubelet gives up after two minutes, and asks again.
const PLUGIN: Duration = Duration::from_secs(120);

/// The networks of pods.
#[derive(Debug)]
pub struct Network {
    networks: Networks,
    /// Of handlers that have their own.
    handlers: BTreeMap<String, Networks>,
    /// Where network namespaces are bound.
    dir: PathBuf,
    /// Whether they are all ours.
    own_dir: bool,
    preference: IpPreference,
    internal_loopback: bool,
}

/// What a pod's networks have given it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Its first address.
    pub ip: String,
    /// The others.
    pub additional_ips: Vec<String>,
    /// All that was said.
    pub result: serde_json::Value,
}

impl Network {
    /// Looks at nothing yet. `state` is where the CRI keeps what a reboot ends.
    pub fn new(config: &Config, state: &Path) -> Self {
        let runtime = &config.runtime;
        let of = |handler: &Handler| {
            let settings = NetworkSettings {
                conf_dir: handler.cni_conf_dir.clone().into(),
                max_conf_num: handler.cni_max_conf_num,
                ..runtime.cni.clone()
            };
            Networks::new(settings_of(&settings))
        };
        let own = runtime.runtimes.iter().filter(|(_, handler)| !handler.cni_conf_dir.is_empty());
        let dir = match runtime.netns_under_state {
            true => state.join("netns"),
            false => PathBuf::from("/var/run/netns"),
        };
        Self {
            networks: Networks::new(settings_of(&runtime.cni)),
            handlers: own.map(|(name, handler)| (name.clone(), of(handler))).collect(),
            dir,
            own_dir: runtime.netns_under_state,
            preference: runtime.cni.ip_pref,
            internal_loopback: runtime.cni.internal_loopback,
        }
    }

    /// The networks of a handler's pods.
    pub fn of(&self, handler: &str) -> &Networks {
        self.handlers.get(handler).unwrap_or(&self.networks)
    }

    /// The networks of pods whose handler has none of its own, and those of handlers that have, by handler.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Networks)> {
        let own = self.handlers.iter().map(|(name, networks)| (name.as_str(), networks));
        std::iter::once(("", &self.networks)).chain(own)
    }

    /// Sets a pod up. If it fails, what could be taken back is; [`Network::detach`] does the rest. Not cancel safe.
    pub async fn attach(&self, pod: &Record) -> Result<Given> {
        if self.internal_loopback {
            let path = PathBuf::from(&pod.netns);
            crate::blocking(move || namespace::loopback_up(&path)).await?;
        }
        let options = capabilities::options(&pod.id, &pod.config)?;
        let merged = self.of(&pod.runtime_handler).setup(&pod.id, &pod.netns, &options).await?;
        self.given(&pod.id, merged)
    }

    fn given(&self, id: &str, merged: Merged) -> Result<Given> {
        let first = merged.interfaces.get(FIRST).map(|first| first.ip_configs.as_slice()).unwrap_or_default();
        let Some((ip, additional_ips)) = addresses::choose(first, self.preference) else {
            return Err(Error::unknown(format!("failed to find network info for sandbox {id:?}")));
        };
        let result = serde_json::to_value(&merged)
            .map_err(|e| Error::internal(format!("encode the network of sandbox {id}: {e}")))?;
        Ok(Given { ip, additional_ips, result })
    }

    /// Ends plugins that still set up a pod for a daemon that is gone.
    pub async fn end_abandoned(&self, pod: &Record) -> Result<()> {
        let id = pod.id.clone();
        crate::blocking(move || cni::abandoned::end(&id)).await
    }

    /// Takes a pod out of its networks. May be done again, and for one that was set up in part or not at all.
    pub async fn detach(&self, pod: &Record) -> Result<()> {
        let networks = self.of(&pod.runtime_handler);
        let options = capabilities::options(&pod.id, &pod.config)?;
        // Plugins are given an empty path where there is no namespace any more: what is left is outside of it.
        let netns = if sys::netns::is_bound(Path::new(&pod.netns)) { pod.netns.as_str() } else { "" };
        let Err(error) = networks.remove(&pod.id, netns, &options).await else { return Ok(()) };
        // Whoever has begun with a plugin has written it down before.
        let begun = networks.cni().attachments(&pod.id).map_or(true, |entries| !entries.is_empty());
        if begun || !pod.cni_result.is_null() {
            return Err(error);
        }
        tracing::warn!(id = pod.id, %error, "no plugin has begun with this pod: the error is no matter");
        Ok(())
    }
}

fn settings_of(settings: &NetworkSettings) -> Settings {
    Settings {
        plugin_dirs: settings.bin_dirs.clone(),
        conf_dir: settings.conf_dir.clone(),
        most: settings.max_conf_num,
        loopback: if settings.internal_loopback { Loopback::Absent } else { Loopback::Plugin },
        order: if settings.setup_serially { Order::Serial } else { Order::Parallel },
        cache: settings.cache_dir.clone(),
        limits: Limits { time: PLUGIN, ..Limits::default() },
        ..Settings::default()
    }
}
