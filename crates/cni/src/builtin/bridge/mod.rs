//! A pair of links for each container, the host's ends in one bridge, which may be their way out.

mod config;

use types::{Error, Result, ResultExt};

use self::config::Config;
use super::asked::{Asked, own_addresses};
use super::container::{self, Ends};
use super::kernel::addresses::{Address, NODAD};
use super::kernel::links::{Change, Link, Links, PROMISC, UP};
use super::kernel::sysctl;
use super::masquerade;
use super::turn::Turn;

use crate::plugin::Verb;
use crate::result::{Cidr, Current, Interface, Route};

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let (config, netns, links) = (Config::of(asked)?, asked.netns()?, Links::open()?);
    asked.owner()?;
    let ends = Ends { mac: config.mac(asked)?, mtu: config.mtu() };
    let bridge = ensure_bridge(&links, &config)?;
    let mut result = match config.common.ipam.kind.as_str() {
        "" => Current::default(),
        kind => asked.ipam(kind, Verb::Add)?.unwrap_or_default(),
    };
    let added = (|| {
        if !config.common.ipam.kind.is_empty() && result.ips.is_empty() {
            return Err(Error::unknown("IPAM plugin returned missing IP config"));
        }
        with_gateways(&config, &mut result);
        let host = container::add_pair(&links, asked, &netns, &ends)?;
        connect(&links, &config, &bridge, &host)?;
        let inside = asked.inside(&netns, || configure(asked, &config, &result))?;
        if config.is_gateway {
            be_gateway(&links, &config, &bridge, &result)?;
        }
        if config.ip_masq && !result.ips.is_empty() {
            masquerade::add(&asked.owner()?, &result.ips)?;
        }
        let of = |link: &Link| Interface {
            name: link.name.clone(),
            mac: link.mac.clone(),
            ..Interface::default()
        };
        let bridge = links.named(&bridge.name)?;
        let inside = Interface { sandbox: asked.at.netns.clone(), ..of(&inside) };
        result.interfaces = vec![of(&bridge), of(&host), inside];
        Ok(())
    })();
    if let Err(error) = added {
        return Err(match undo(asked, &config) {
            Ok(()) => error,
            Err(left) => error.context(format!("and what was done of it stays ({left})")),
        });
    }
    if !config.common.dns.is_empty() {
        result.dns = config.common.dns;
    }
    Ok(result)
}

/// The bridge, made if it is not there, and up.
fn ensure_bridge(links: &Links, config: &Config) -> Result<Link> {
    let name = &config.bridge;
    let found = match links.by_name(name)? {
        Some(found) => found,
        None => {
            links.add_bridge(name, config.mtu())?;
            // We want to own its routes.
            sysctl::set_if_there(&["ipv6", "conf", name, "accept_ra"], "0")?;
            links.named(name)?
        }
    };
    if found.kind != "bridge" {
        return Err(Error::precondition(format!("{name:?} already exists but is not a bridge")));
    }
    if !found.is(UP) || config.promisc_mode && found.promiscuity == 0 {
        let flags = if config.promisc_mode { UP | PROMISC } else { UP };
        links.change(found.index, &Change { flags: (flags, flags), ..Change::default() })?;
    }
    Ok(found)
}

/// Puts the host's end into the bridge and takes it up.
fn connect(links: &Links, config: &Config, bridge: &Link, host: &Link) -> Result<()> {
    links.change(host.index, &Change { master: Some(bridge.index), flags: (UP, UP), ..Change::default() })?;
    if config.hairpin_mode || config.port_isolation {
        let port = Some((config.hairpin_mode, config.port_isolation));
        links.change(host.index, &Change { port, ..Change::default() })?;
    }
    Ok(())
}

/// Says which way out each address has, and which interface, and adds default routes that are asked for.
fn with_gateways(config: &Config, result: &mut Current) {
    let mut defaults: Vec<Route> = Vec::new();
    for ip in &mut result.ips {
        ip.interface = Some(2);
        if config.is_gateway {
            ip.gateway = ip.gateway.or(Some(ip.address.first()));
        }
        let everywhere = if ip.address.is_v4() { "0.0.0.0/0" } else { "::/0" };
        let is_default = |route: &&Route| route.dst.to_string() == everywhere;
        let there = result
            .routes
            .iter()
            .filter(|route| route.gw.is_some())
            .chain(&defaults)
            .any(|route| is_default(&route));
        if let (true, false, Ok(dst)) = (config.is_default_gateway, there, everywhere.parse::<Cidr>()) {
            defaults.push(Route { gw: ip.gateway, ..Route::to(dst) });
        }
    }
    result.routes.extend(defaults);
}

/// In the container.
fn configure(asked: &Asked, config: &Config, result: &Current) -> Result<Link> {
    let name = asked.at.interface.as_str();
    if config.common.ipam.kind.is_empty() {
        let links = Links::open()?;
        let link = links.named(name)?;
        if !config.disable_container_interface {
            links.change(link.index, &Change::up())?;
        }
        return Ok(link);
    }
    let v6 = |setting| ["ipv6", "conf", name, setting];
    if config.enabledad {
        sysctl::set_if_there(&v6("enhanced_dad"), "1")?;
    }
    sysctl::set_if_there(&v6("accept_dad"), if config.enabledad { "1" } else { "0" })?;
    sysctl::set_if_there(&["ipv4", "conf", name, "arp_notify"], "1")?;
    container::configure(name, result, if config.enabledad { 0 } else { NODAD })
}

/// Gives the bridge the addresses of the ways out, and forwards.
fn be_gateway(links: &Links, config: &Config, bridge: &Link, result: &Current) -> Result<()> {
    let mut there = links.addresses(bridge.index)?;
    let ways =
        result.ips.iter().filter_map(|ip| Some(Cidr { address: ip.gateway?, prefix: ip.address.prefix }));
    for way in ways.clone() {
        if there.iter().any(|address| address.cidr == way) {
            continue;
        }
        // One of version 4, and of version 6 as many as do not overlap.
        let overlaps = |address: &Address| {
            let other = address.cidr;
            other.is_v4() == way.is_v4()
                && (way.is_v4() || other.contains(way.address) || way.contains(other.address))
        };
        let in_the_way: Vec<Address> = there.iter().copied().filter(overlaps).collect();
        for address in in_the_way {
            if !config.force_address {
                let text = format!("{:?} already has an IP address different from {way}", bridge.name);
                return Err(Error::precondition(text)).context(|| "failed to set bridge addr");
            }
            links.remove_address(bridge.index, address.cidr)?;
            there.retain(|other| *other != address);
        }
        links.add_address(bridge.index, Address { cidr: way, flags: NODAD })?;
        there.push(Address { cidr: way, flags: 0 });
        // To be told its address it must have one that it keeps: others' bridges have that of any port.
        let mac = links.named(&bridge.name)?.mac.parse().ok();
        links.change(bridge.index, &Change { mac, ..Change::default() })?;
    }
    container::forward(ways.map(|way| way.address))
}

/// What was done, backwards: the rules, the pair, the addresses.
fn undo(asked: &Asked, config: &Config) -> Result<()> {
    let rules = if config.ip_masq { masquerade::remove(&asked.owner()?) } else { Ok(()) };
    let kind = config.common.ipam.kind.as_str();
    let given_back = || if kind.is_empty() { Ok(()) } else { asked.ipam(kind, Verb::Del).map(drop) };
    container::each([rules, container::remove(asked, None), given_back()])
}

pub(super) fn del(asked: &Asked, turn: Option<&Turn>) -> Result<()> {
    // An address is another's only after nothing leads to it any more.
    let config = Config::of(asked)?;
    if config.ip_masq {
        masquerade::remove(&asked.owner()?)?;
    }
    container::remove(asked, turn)?;
    match config.common.ipam.kind.as_str() {
        "" => Ok(()),
        kind => asked.ipam(kind, Verb::Del).map(drop),
    }
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let (config, netns, links) = (Config::of(asked)?, asked.netns()?, Links::open()?);
    if !config.common.ipam.kind.is_empty() {
        asked.ipam(&config.common.ipam.kind, Verb::Check)?;
    }
    let result = asked.chained()?;
    let differs = |text: String| Err(Error::precondition(text));
    let bridge = links.named(&config.bridge)?;
    if bridge.kind != "bridge" {
        return differs(format!("interface {} does not have link type of bridge", bridge.name));
    }
    let wanted = result.interfaces.iter().find(|of| of.sandbox.is_empty() && of.name == bridge.name);
    if wanted.is_some_and(|of| !of.mac.is_empty() && of.mac != bridge.mac) {
        return differs(format!("bridge interface {} mac doesn't match: {}", bridge.name, bridge.mac));
    }
    let inside = container::check(asked, &netns, &result)?;
    let Some(host) = links.by_index(inside.peer)? else {
        return differs(format!("the host's end of {} not found", inside.name));
    };
    if host.master != bridge.index {
        return differs(format!("interface {} is not in bridge {}", host.name, bridge.name));
    }
    if config.ip_masq && container::is_ours(&host) {
        masquerade::check(&asked.owner()?, &own_addresses(&result, &asked.at.interface))?;
    }
    Ok(())
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    let claimed = asked.claimed()?;
    let kind = config.common.ipam.kind.as_str();
    let addresses = || if kind.is_empty() { Ok(()) } else { asked.ipam(kind, Verb::Gc).map(drop) };
    container::each([masquerade::collect(asked.network(), &claimed), container::collect(asked), addresses()])
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    if config.ip_masq {
        super::nft::Nft::open()?;
    }
    match config.common.ipam.kind.as_str() {
        "" => Ok(()),
        kind => asked.ipam(kind, Verb::Status).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::result::IpConfig;

    #[test]
    fn a_default_gateway_adds_a_route_of_each_kind_once() {
        let config = Config { is_gateway: true, is_default_gateway: true, ..Config::default() };
        let ip = |text: &str, gateway: Option<&str>| IpConfig {
            interface: None,
            address: text.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse::<IpAddr>().unwrap()),
        };
        let mut result = Current {
            ips: vec![ip("10.0.0.9/24", None), ip("10.1.0.9/24", Some("10.1.0.7")), ip("fd00::9/64", None)],
            ..Current::default()
        };
        with_gateways(&config, &mut result);
        let gateways: Vec<String> = result.ips.iter().map(|ip| ip.gateway.unwrap().to_string()).collect();
        assert_eq!(gateways, ["10.0.0.1", "10.1.0.7", "fd00::1"]);
        let routes: Vec<String> =
            result.routes.iter().map(|route| format!("{} {}", route.dst, route.gw.unwrap())).collect();
        assert_eq!(routes, ["0.0.0.0/0 10.0.0.1", "::/0 fd00::1"]);
        assert!(result.ips.iter().all(|ip| ip.interface == Some(2)));
    }
}
