//! Plugins that are built in: what the programs of these names do, in-process, with the same configurations, files and
//! results, in a tenth of their time.
//!
//! ```text
//!  loopback   lo, up                               portmap     ports of the host that lead to a pod   (nft)
//!  bridge     a pair of links, one in a bridge     firewall    a pod's packets, let through           (nft)
//!  ptp        a pair of links, routed              bandwidth   limits of a pod's link                 (kernel::queues)
//!  host-local addresses, as files                  tuning      settings of a pod's link
//! ```
//!
//! Each is a function of what it is asked ([`Asked`]) that blocks, so that it runs on a thread for blocking work, with one at
//! a time for a container's interface ([`turn`]). What must be done in a pod's network namespace is done on a thread of its own
//! (`sys::netns`). Links and rules say whose they are ([`owner`]), by which they are removed even if nothing else is known.

mod asked;
mod bandwidth;
mod bridge;
mod container;
mod firewall;
mod host_local;
mod kernel;
mod leaving;
mod loopback;
mod masquerade;
mod nft;
mod owner;
mod portmap;
mod ptp;
mod tuning;
mod turn;

use types::{Error, Result};

pub(crate) use self::asked::{Asked, Delegate};
use self::turn::Turn;
pub(crate) use self::turn::run;
use crate::error::{Code, PluginError};
use crate::plugin::Verb;
use crate::result::AddResult;

/// Which plugins are run in-process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Builtin {
    /// Those whose programs are absent.
    #[default]
    Auto,
    /// All that are built in.
    Always,
    /// None.
    Never,
}

/// A plugin that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Loopback,
    Bridge,
    Ptp,
    HostLocal,
    Portmap,
    Firewall,
    Bandwidth,
    Tuning,
}

impl Kind {
    /// The one of this name, as configurations have it.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "loopback" => Self::Loopback,
            "bridge" => Self::Bridge,
            "ptp" => Self::Ptp,
            "host-local" => Self::HostLocal,
            "portmap" => Self::Portmap,
            "firewall" => Self::Firewall,
            "bandwidth" => Self::Bandwidth,
            "tuning" => Self::Tuning,
            _ => return None,
        })
    }
}

/// What a plugin does for one verb; only ADD answers with more than that it is done.
fn answer(kind: Kind, asked: &Asked, turn: Option<&Turn>) -> Result<Option<AddResult>> {
    match asked.verb {
        Verb::Add => {
            let result = match kind {
                Kind::Loopback => loopback::add(asked),
                Kind::Bridge => bridge::add(asked),
                Kind::Ptp => ptp::add(asked),
                Kind::HostLocal => host_local::add(asked),
                Kind::Portmap => portmap::add(asked),
                Kind::Firewall => firewall::add(asked),
                Kind::Bandwidth => bandwidth::add(asked),
                Kind::Tuning => tuning::add(asked),
            };
            AddResult::of(result?, asked.version()).map(Some)
        }
        Verb::Del => match kind {
            Kind::Loopback => loopback::del(asked),
            Kind::Bridge => bridge::del(asked, turn),
            Kind::Ptp => ptp::del(asked, turn),
            Kind::HostLocal => host_local::del(asked),
            Kind::Portmap => portmap::del(asked),
            Kind::Firewall => firewall::del(asked),
            Kind::Bandwidth => bandwidth::del(asked, turn),
            Kind::Tuning => tuning::del(asked),
        }
        .map(|()| None),
        Verb::Check => match kind {
            Kind::Loopback => loopback::check(asked),
            Kind::Bridge => bridge::check(asked),
            Kind::Ptp => ptp::check(asked),
            Kind::HostLocal => host_local::check(asked),
            Kind::Portmap => portmap::check(asked),
            Kind::Firewall => firewall::check(asked),
            Kind::Bandwidth => bandwidth::check(asked),
            Kind::Tuning => tuning::check(asked),
        }
        .map(|()| None),
        Verb::Status => status(kind, asked).map(|()| None),
        Verb::Gc => match kind {
            Kind::Loopback | Kind::Tuning => Ok(()),
            Kind::Bridge => bridge::gc(asked),
            Kind::Ptp => ptp::gc(asked),
            Kind::HostLocal => host_local::gc(asked),
            Kind::Portmap => portmap::gc(asked),
            Kind::Firewall => firewall::gc(asked),
            Kind::Bandwidth => bandwidth::gc(asked),
        }
        .map(|()| None),
        // Nobody asks: callers know what is built in.
        Verb::Version => Ok(None),
    }
}

/// Whether a pod could be added now: its configuration holds together, and the kernel has what it needs.
fn status(kind: Kind, asked: &Asked) -> Result<()> {
    let ready = match kind {
        Kind::Loopback => Ok(()),
        Kind::Bridge => bridge::status(asked),
        Kind::Ptp => ptp::status(asked),
        Kind::HostLocal => host_local::status(asked),
        Kind::Portmap => portmap::status(asked),
        Kind::Firewall => firewall::status(asked),
        Kind::Bandwidth => bandwidth::status(asked),
        Kind::Tuning => tuning::status(asked),
    };
    ready.map_err(|error| {
        PluginError::new(Code::NotAvailable, "plugin is not available", error.to_string()).of_ours()
    })
}

/// What a configuration asks for that is not built in.
fn absent(what: &str) -> Error {
    Error::unimplemented(format!("{what} is not built in: use the plugin's program"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin::Environment;

    const KINDS: [&str; 8] =
        ["loopback", "bridge", "ptp", "host-local", "portmap", "firewall", "bandwidth", "tuning"];

    /// A configuration that has everything.
    fn whole() -> Value {
        json!({"cniVersion": "1.1.0", "name": "n", "type": "x", "bridge": "br0", "isGateway": true, "mtu": 1400, "vlan": 0,
            "ipam": {"type": "host-local", "subnet": "10.0.0.0/24", "ranges": [[{"subnet": "fd00::/64", "rangeStart": "fd00::9"}]],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 9}]},
            "args": {"cni": {"mac": "02:00:00:00:00:01", "ips": ["10.0.0.7"], "sysctl": {"net.a": "1"}}}, "promisc": true,
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "::1"}],
                "ipRanges": [[{"subnet": "10.1.0.0/24"}]], "bandwidth": {"ingressRate": 8, "ingressBurst": 8}},
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
                "ips": [{"interface": 0, "address": "10.0.0.7/24"}]},
            "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]})
    }

    fn asked(verb: Verb, config: &Value) -> Result<Asked> {
        let at = Environment { container: "c".into(), interface: "eth0".into(), ..Environment::default() };
        let nobody: Delegate = Box::new(|kind, _, _| Err(Error::not_found(kind)));
        Asked::new(verb, at, config.to_string().as_bytes(), (Duration::from_secs(1), nobody))
    }

    /// Puts `value` at some place of `config`.
    fn damage(config: &mut Value, mut at: usize, value: &Value) {
        match config {
            Value::Object(map) if !map.is_empty() => {
                let (index, rest) = (at % (map.len() + 1), at / (map.len() + 1));
                match map.values_mut().nth(index) {
                    Some(inner) => damage(inner, rest, value),
                    None => *config = value.clone(),
                }
            }
            Value::Array(list) if !list.is_empty() => {
                at %= list.len();
                damage(&mut list[at], at, value);
            }
            other => *other = value.clone(),
        }
    }

    #[test]
    fn a_whole_configuration_is_read_by_all() {
        for kind in KINDS.into_iter().filter_map(Kind::of) {
            let read = status(kind, &asked(Verb::Status, &whole()).unwrap());
            // Without a right to look at packet filters nobody knows of them.
            let refused = read.as_ref().err().map(ToString::to_string);
            assert!(
                refused.as_deref().is_none_or(|text| text.contains("packet filters")),
                "{kind:?}: {refused:?}"
            );
        }
        assert_eq!(asked(Verb::Gc, &whole()).unwrap().claimed().unwrap(), [("c".into(), "eth0".into())]);
    }

    proptest! {
        #[test]
        fn a_configuration_that_is_damaged_anywhere_is_an_error_or_none(
            kind in prop::sample::select(KINDS.to_vec()),
            damages in prop::collection::vec((any::<usize>(), prop::sample::select(vec!["null", "-1", "\"\"", "[]", "{}",
                "\"a/b\"", "4294967296", "\"10.0.0.1/33\"", "[null]", "[[{}]]", "true", "1.5"])), 1..4),
        ) {
            let mut config = whole();
            for (at, value) in damages {
                damage(&mut config, at, &serde_json::from_str(value).unwrap());
            }
            if let (Some(kind), Ok(asked)) = (Kind::of(kind), asked(Verb::Status, &config)) {
                let _ = status(kind, &asked);
                let _ = asked.claimed();
                let _ = asked.previous().map(|previous| previous.map(|result| asked::own_ips(&result, "eth0")));
            }
        }
    }
}
