//! Ports of the host that lead to a pod.
//!
//! ```text
//!  prerouting, output    to this host:  protocol, port (and address)  ->  the pod's port         chain ports
//!  postrouting           from the pod's own network, or from 127.0.0.0/8, opened to such a port
//!                        -> the way out's address, so that answers come back here                 chain hairpin
//! ```
//!
//! Only what is for an address of this host is led: a pod's port takes nothing of what the host or others send elsewhere.
//! Packets for 127.0.0.0/8 that come from a link are dropped before anything else, as the setting that lets ours out would
//! also let others' in.

mod stale;

use std::net::IpAddr;

use serde::Deserialize;
use tracing::warn;
use types::{Error, Result};

use super::absent;
use super::asked::{Asked, own_addresses};
use super::kernel::links::Links;
use super::kernel::sysctl;
use super::nft::expressions::{Must, Rule, Side, Verdict};
use super::nft::{self, Base, Batch, Frame, Hook, Nft};
use super::owner::Owner;
use crate::result::{Cidr, Current, nullable};

const PORTS: &str = "ports";
const HAIRPIN: &str = "hairpin";
const PREROUTING: Hook = Hook { kind: "nat", number: 0, priority: -100 };
const OUTPUT: Hook = Hook { kind: "nat", number: 3, priority: -100 };
/// Before masquerading.
const POSTROUTING: Hook = Hook { kind: "nat", number: 4, priority: 99 };
/// Before connections are known.
const FIRST: Hook = Hook { kind: "filter", number: 0, priority: -300 };

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    snat: Option<bool>,
    #[serde(rename = "conditionsV4", deserialize_with = "nullable")]
    conditions_v4: Vec<String>,
    #[serde(rename = "conditionsV6", deserialize_with = "nullable")]
    conditions_v6: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    external_set_mark_chain: String,
    #[serde(deserialize_with = "nullable")]
    masq_all: bool,
    #[serde(deserialize_with = "nullable")]
    runtime_config: Runtime,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Runtime {
    #[serde(deserialize_with = "nullable")]
    port_mappings: Vec<Written>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    host_port: i64,
    container_port: i64,
    #[serde(deserialize_with = "nullable")]
    protocol: String,
    #[serde(rename = "hostIP", deserialize_with = "nullable")]
    host_ip: String,
}

/// A port that leads to one of a pod.
struct Mapping {
    /// The address, if not all.
    host: Option<IpAddr>,
    /// Whether only one version is meant.
    of: Option<IpAddr>,
    host_port: u16,
    container_port: u16,
    protocol: u8,
}

impl Mapping {
    fn of(written: &Written) -> Result<Self> {
        let port = |name: &str, number: i64| {
            let port = u16::try_from(number).ok().filter(|port| *port != 0);
            port.ok_or_else(|| Error::invalid(format!("invalid {name} port number: {number}")))
        };
        let protocol = match written.protocol.to_ascii_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            other => return Err(Error::invalid(format!("unknown protocol {other:?} of a port mapping"))),
        };
        let of = match written.host_ip.as_str() {
            "" => None,
            text => {
                let parsed = text.parse::<IpAddr>().map(|ip| ip.to_canonical());
                Some(
                    parsed
                        .map_err(|_| Error::invalid(format!("invalid hostIP {text:?} of a port mapping")))?,
                )
            }
        };
        Ok(Self {
            host: of.filter(|ip| !ip.is_unspecified()),
            of,
            host_port: port("host", written.host_port)?,
            container_port: port("container", written.container_port)?,
            protocol,
        })
    }

    fn is_for(&self, pod: IpAddr) -> bool {
        self.of.is_none_or(|of| of.is_ipv4() == pod.is_ipv4())
    }

    /// To this host, to another place.
    fn lead(&self, pod: IpAddr) -> Rule {
        let rule = Rule::new().version(pod);
        let rule = match self.host {
            Some(host) => rule.address(Side::Destination, Must::Be, Cidr::single(host)),
            None => rule,
        };
        rule.protocol(self.protocol).port(self.host_port).redirect(pod, self.container_port)
    }

    /// What was led there from `near` has the address of the way out.
    fn hairpin(&self, pod: IpAddr, near: Cidr) -> Rule {
        let rule = Rule::new().version(pod).address(Side::Source, Must::Be, near);
        let rule = rule.address(Side::Destination, Must::Be, Cidr::single(pod)).protocol(self.protocol);
        rule.port(self.container_port).redirected().opened_to(self.host_port).masquerade()
    }
}

impl Config {
    fn of(asked: &Asked) -> Result<Self> {
        let config: Self = asked.parse()?;
        let conditions = config.conditions_v4.iter().chain(&config.conditions_v6);
        if conditions.filter(|condition| !condition.is_empty()).count() > 0 {
            return Err(absent("conditionsV4 and conditionsV6 of plugin portmap"));
        }
        if !config.external_set_mark_chain.is_empty() {
            return Err(absent("externalSetMarkChain of plugin portmap"));
        }
        if config.masq_all {
            return Err(absent("masqAll of plugin portmap"));
        }
        Ok(config)
    }

    fn mappings(&self) -> Result<Vec<Mapping>> {
        self.runtime_config.port_mappings.iter().map(Mapping::of).collect()
    }

    fn snat(&self) -> bool {
        self.snat.unwrap_or(true)
    }
}

/// The pod's first address of each version.
fn pod(result: &Current, interface: &str) -> Vec<Cidr> {
    let own = own_addresses(result, interface);
    let of = |v4: bool| own.iter().map(|ip| ip.address).find(|address| address.is_v4() == v4);
    [of(true), of(false)].into_iter().flatten().collect()
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let (config, result, owner) = (Config::of(asked)?, asked.chained()?, asked.owner()?);
    let (mappings, pod) = (config.mappings()?, pod(&result, &asked.at.interface));
    if mappings.is_empty() || pod.is_empty() {
        return Ok(result);
    }
    let nft = Nft::open()?;
    let mut batch = Batch::default();
    for address in &pod {
        write(&mut batch, &owner, (&config, &mappings), *address);
    }
    nft.add(&frame(), batch)?;
    if config.snat() {
        pod.iter()
            .filter(|address| address.is_v4())
            .try_for_each(|address| let_localhost_out(address.address))?;
    }
    // Who has been talking to a port that led nowhere would talk to nobody for as long as it goes on.
    let udp: Vec<u16> =
        mappings.iter().filter(|mapping| mapping.protocol == 17).map(|mapping| mapping.host_port).collect();
    if let Err(error) = stale::forget(&udp) {
        warn!(container = asked.at.container, %error, "connections to ports of before are not forgotten");
    }
    Ok(result)
}

/// The chains that lead to the rules of pods.
fn frame() -> Frame {
    let led = || vec![Rule::new().for_this_host().verdict(&Verdict::Jump(PORTS))];
    let redirected = vec![Rule::new().redirected().verdict(&Verdict::Jump(HAIRPIN))];
    let localhost = localhost().map(|localhost| {
        let rule = Rule::new().not_from_loopback().version(localhost.address);
        rule.address(Side::Destination, Must::Be, localhost).verdict(&Verdict::Drop)
    });
    let base = |name, hook, rules| Base { name, hook, rules };
    Frame {
        chains: &[PORTS, HAIRPIN],
        bases: vec![
            base("prerouting", PREROUTING, led()),
            base("output", OUTPUT, led()),
            base("postrouting", POSTROUTING, redirected),
            base("localhost", FIRST, localhost.into_iter().collect()),
        ],
    }
}

fn localhost() -> Option<Cidr> {
    "127.0.0.0/8".parse().ok()
}

fn write(batch: &mut Batch, owner: &Owner, (config, mappings): (&Config, &[Mapping]), pod: Cidr) {
    // One address's ports come before those of all: the first rule that holds is the last.
    let (one, all): (Vec<&Mapping>, Vec<_>) = mappings
        .iter()
        .filter(|mapping| mapping.is_for(pod.address))
        .partition(|mapping| mapping.host.is_some());
    for mapping in one.into_iter().chain(all) {
        batch.rule(PORTS, &mapping.lead(pod.address), owner);
        if config.snat() {
            let near = [Some(pod.network()), localhost().filter(|_| pod.is_v4())];
            for near in near.into_iter().flatten() {
                batch.rule(HAIRPIN, &mapping.hairpin(pod.address, near), owner);
            }
        }
    }
}

/// Lets what comes from 127.0.0.1 go out by the link that leads to a pod.
fn let_localhost_out(pod: IpAddr) -> Result<()> {
    let links = Links::open()?;
    let link = links.link_towards(pod)?.map(|index| links.by_index(index)).transpose()?.flatten();
    link.map_or(Ok(()), |link| sysctl::set(&["ipv4", "conf", &link.name, "route_localnet"], "1"))
}

pub(super) fn del(asked: &Asked) -> Result<()> {
    let owner = asked.owner()?;
    // Whatever the configuration says now: what is written on rules is enough.
    let ports = Config::of(asked).and_then(|config| config.mappings()).unwrap_or_default();
    nft::remove(|rule| is_of_ports(rule) && rule.owner == owner)?;
    let udp: Vec<u16> =
        ports.iter().filter(|mapping| mapping.protocol == 17).map(|mapping| mapping.host_port).collect();
    if let Err(error) = stale::forget(&udp) {
        warn!(container = asked.at.container, %error, "connections to ports of before are not forgotten");
    }
    Ok(())
}

fn is_of_ports(rule: &nft::Listed) -> bool {
    [PORTS, HAIRPIN].contains(&rule.chain.as_str())
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let (config, result, owner) = (Config::of(asked)?, asked.chained()?, asked.owner()?);
    let (mappings, pod) = (config.mappings()?, pod(&result, &asked.at.interface));
    let of = |address: &Cidr| mappings.iter().filter(|mapping| mapping.is_for(address.address)).count();
    let wanted = pod.iter().map(of).sum();
    if wanted > 0 { nft::check(PORTS, &owner, wanted) } else { Ok(()) }
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let claimed = asked.claimed()?;
    nft::remove(|rule| is_of_ports(rule) && rule.owner.is_stale(asked.network(), &claimed))
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    Config::of(asked)?.mappings()?;
    Nft::open().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(host_port: i64, container_port: i64, protocol: &str, host_ip: &str) -> Written {
        Written { host_port, container_port, protocol: protocol.into(), host_ip: host_ip.into() }
    }

    #[test]
    fn ports_and_protocols_that_are_none_are_refused() {
        for (bad, reason) in [
            (written(0, 80, "tcp", ""), "invalid host port number: 0"),
            (written(65536, 80, "tcp", ""), "invalid host port number: 65536"),
            (written(80, -1, "tcp", ""), "invalid container port number: -1"),
            (written(80, 80, "icmp", ""), "unknown protocol \"icmp\" of a port mapping"),
            (written(80, 80, "tcp", "localhost"), "invalid hostIP \"localhost\" of a port mapping"),
        ] {
            assert_eq!(Mapping::of(&bad).err().unwrap().to_string(), reason);
        }
    }

    #[test]
    fn an_address_of_one_version_is_for_that_one() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap());
        let mapping = |ip: &str| Mapping::of(&written(80, 80, "TCP", ip)).unwrap();
        assert!(mapping("").is_for(v4) && mapping("").is_for(v6));
        assert!(
            mapping("0.0.0.0").is_for(v4)
                && !mapping("0.0.0.0").is_for(v6)
                && mapping("0.0.0.0").host.is_none()
        );
        assert!(!mapping("::1").is_for(v4) && mapping("::1").host.is_some());
    }
}
