//! A pair of links for each container, and routes over it on both sides: no bridge, no neighbours.

use std::net::IpAddr;

use serde::Deserialize;
use types::{Error, Result};

use super::asked::{Asked, Common, own_addresses};
use super::container::{self, Ends};
use super::kernel::addresses::{Address, NODAD, NOPREFIXROUTE, ON_LINK, Way};
use super::kernel::links::{Change, Link, Links};
use super::masquerade;
use super::turn::Turn;
use crate::plugin::Verb;
use crate::result::{Cidr, Current, Interface, IpConfig, nullable};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    #[serde(flatten)]
    common: Common,
    #[serde(deserialize_with = "nullable")]
    ip_masq: bool,
    #[serde(deserialize_with = "nullable")]
    mtu: u32,
}

impl Config {
    fn of(asked: &Asked) -> Result<Self> {
        let config: Self = asked.parse()?;
        if config.common.ipam.kind.is_empty() {
            return Err(Error::invalid("ptp: ipam is missing: addresses are all that it is about"));
        }
        Ok(config)
    }

    fn ipam(&self, asked: &Asked, verb: Verb) -> Result<Option<Current>> {
        asked.ipam(&self.common.ipam.kind, verb)
    }
}

/// An address with the way out that it must have.
fn with_ways(ips: &[IpConfig]) -> Result<Vec<(Cidr, IpAddr)>> {
    let with = |ip: &IpConfig| {
        let missing = || Error::unknown(format!("IPAM plugin returned no gateway for {}", ip.address));
        Ok((ip.address, ip.gateway.ok_or_else(missing)?))
    };
    ips.iter().map(with).collect()
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let (config, netns, links) = (Config::of(asked)?, asked.netns()?, Links::open()?);
    asked.owner()?;
    let mut result = config.ipam(asked, Verb::Add)?.unwrap_or_default();
    let added = (|| {
        if result.ips.is_empty() {
            return Err(Error::unknown("IPAM plugin returned missing IP config"));
        }
        let ways = with_ways(&result.ips)?;
        result.ips.iter_mut().for_each(|ip| ip.interface = Some(1));
        container::forward(ways.iter().map(|(cidr, _)| cidr.address))?;
        let mtu = Some(config.mtu).filter(|mtu| *mtu != 0);
        let host = container::add_pair(&links, asked, &netns, &Ends { mac: None, mtu })?;
        lead_to(&links, &host, &ways)?;
        let inside = asked.inside(&netns, || configure(&asked.at.interface, &result, &ways))?;
        if config.ip_masq {
            masquerade::add(&asked.owner()?, &result.ips)?;
        }
        let of = |link: &Link| Interface {
            name: link.name.clone(),
            mac: link.mac.clone(),
            ..Interface::default()
        };
        result.interfaces = vec![of(&host), Interface { sandbox: asked.at.netns.clone(), ..of(&inside) }];
        Ok(())
    })();
    if let Err(error) = added {
        let back = [
            masquerade::remove(&asked.owner()?),
            container::remove(asked, None),
            config.ipam(asked, Verb::Del).map(drop),
        ];
        return Err(match container::each(back) {
            Ok(()) => error,
            Err(left) => error.context(format!("and what was done of it stays ({left})")),
        });
    }
    if !config.common.dns.is_empty() {
        result.dns = config.common.dns;
    }
    Ok(result)
}

/// The host's end has the address of the way out, and a route to the container's.
fn lead_to(links: &Links, host: &Link, ways: &[(Cidr, IpAddr)]) -> Result<()> {
    links.change(host.index, &Change::up())?;
    for (cidr, way) in ways {
        links.add_address(host.index, Address { cidr: Cidr::single(*way), flags: NODAD })?;
        let to = Cidr::single(cidr.address);
        links.add_way(&Way { link: host.index, to, gateway: None, source: None, scope: scope(to) })?;
    }
    Ok(())
}

/// How far a route on a link leads, in the terms of its version.
fn scope(to: Cidr) -> u8 {
    if to.is_v4() { ON_LINK } else { 0 }
}

/// In the container: everything but the way out itself goes over the way out, its neighbours in the network as well.
fn configure(name: &str, result: &Current, ways: &[(Cidr, IpAddr)]) -> Result<Link> {
    // Routes need the ways to their gateways, which come after the addresses.
    let addresses = Current { routes: Vec::new(), ..result.clone() };
    let link = container::configure(name, &addresses, NODAD | NOPREFIXROUTE)?;
    let links = Links::open()?;
    for (cidr, gateway) in ways {
        let source = Some(cidr.address);
        let alone = Cidr::single(*gateway);
        links.add_way(&Way { link: link.index, to: alone, gateway: None, source, scope: scope(alone) })?;
        let way = Way { link: link.index, to: cidr.network(), gateway: Some(*gateway), source, scope: 0 };
        links.add_way(&way)?;
    }
    for route in &result.routes {
        let gateway =
            ways.iter().map(|(_, gateway)| *gateway).find(|gateway| gateway.is_ipv4() == route.dst.is_v4());
        links.add_route(link.index, route, gateway)?;
    }
    Ok(link)
}

pub(super) fn del(asked: &Asked, turn: Option<&Turn>) -> Result<()> {
    let config = Config::of(asked)?;
    if config.ip_masq {
        masquerade::remove(&asked.owner()?)?;
    }
    container::remove(asked, turn)?;
    config.ipam(asked, Verb::Del).map(drop)
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let (config, netns) = (Config::of(asked)?, asked.netns()?);
    config.ipam(asked, Verb::Check)?;
    let result = asked.chained()?;
    let inside = container::check(asked, &netns, &result)?;
    let Some(host) = Links::open()?.by_index(inside.peer)? else {
        return Err(Error::precondition(format!("the host's end of {} not found", inside.name)));
    };
    if config.ip_masq && container::is_ours(&host) {
        masquerade::check(&asked.owner()?, &own_addresses(&result, &asked.at.interface))?;
    }
    Ok(())
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let (config, claimed) = (Config::of(asked)?, asked.claimed()?);
    let addresses = || config.ipam(asked, Verb::Gc).map(drop);
    container::each([masquerade::collect(asked.network(), &claimed), container::collect(asked), addresses()])
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    if config.ip_masq {
        super::nft::Nft::open()?;
    }
    config.ipam(asked, Verb::Status).map(drop)
}
