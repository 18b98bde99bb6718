//! The container's end of a pair of links, for the plugins that make one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sys::netns::Netns;
use types::{Class, Error, Result, ResultExt};

use super::asked::{Asked, own_addresses};
use super::kernel::addresses::{Address, DADFAILED, TENTATIVE};
use super::kernel::links::{Change, Link, Links, Pair};
use super::kernel::mac::Mac;
use super::kernel::sysctl;
use super::leaving;
use super::owner::Owner;
use super::turn::Turn;
use crate::result::{Current, Interface};

/// How long addresses may take until nobody else is known to have them.
const SETTLED: Duration = Duration::from_secs(5);
/// How many names are tried for the host's end.
const TRIES: usize = 10;

/// How a pair is to be.
#[derive(Default)]
pub(super) struct Ends {
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
}

/// Makes a pair: the container's end in its network namespace, the host's with its owner's name on it, not up yet.
pub(super) fn add_pair(links: &Links, asked: &Asked, netns: &Netns, ends: &Ends) -> Result<Link> {
    use std::os::fd::AsFd;
    let owner = asked.owner()?;
    for _ in 0..TRIES {
        let number = RandomState::new().build_hasher().finish() & 0xffff_ffff;
        let host = format!("veth{number:08x}");
        let pair = Pair {
            host: &host,
            container: &asked.at.interface,
            netns: netns.as_fd(),
            mac: ends.mac,
            mtu: ends.mtu,
        };
        if links.add_pair(&pair)? {
            return mark(links, &host, &owner);
        }
        if links.by_name(&host)?.is_none() {
            // A removal that a crash has cut short leaves its pair.
            if let Some(left) = host_end(links, &owner, None)? {
                links.delete(left.index)?;
                continue;
            }
            let text = format!("the container has an interface {:?} already", asked.at.interface);
            return Err(Error::already_exists(text));
        }
    }
    Err(Error::exhausted("no name for the host's end of a pair of links is free"))
}

fn mark(links: &Links, host: &str, owner: &Owner) -> Result<Link> {
    let link = links.named(host)?;
    // Pods may send router advertisements; the host does not believe them.
    let quiet = sysctl::set_if_there(&["ipv6", "conf", host, "accept_ra"], "0");
    let marked = links.change(link.index, &Change { alias: Some(&owner.alias()), ..Change::default() });
    match quiet.and(marked) {
        Ok(()) => Ok(link),
        Err(error) => Err(match links.delete(link.index) {
            Ok(()) => error,
            Err(left) => error.context(format!("link {host} stays ({left})")),
        }),
    }
}

/// Gives the container's end its addresses and routes, and takes it up. On a thread in the container's namespace.
pub(super) fn configure(name: &str, result: &Current, flags: u32) -> Result<Link> {
    let links = Links::open()?;
    let link = links.named(name)?;
    let all = result.ips.iter().map(|ip| (ip.address, ip.gateway));
    if result.ips.iter().any(|ip| !ip.address.is_v4()) {
        for link in ["lo", name] {
            sysctl::set_if_there(&["ipv6", "conf", link, "disable_ipv6"], "0")?;
        }
        sysctl::set(&["ipv6", "conf", name, "keep_addr_on_down"], "1")?;
    }
    for (cidr, _) in all.clone() {
        links.add_address(link.index, Address { cidr, flags })?;
    }
    links.change(link.index, &Change::up())?;
    if all.clone().any(|(cidr, _)| !cidr.is_v4()) {
        settle(&links, link.index)?;
    }
    let gateway = |v4: bool| {
        let gateways = all.clone().filter_map(|(_, gateway)| gateway);
        gateways.into_iter().find(|gateway: &IpAddr| gateway.is_ipv4() == v4)
    };
    for route in &result.routes {
        links.add_route(link.index, route, gateway(route.dst.is_v4()))?;
    }
    Ok(link)
}

/// Waits until all addresses can be used.
fn settle(links: &Links, link: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        let addresses = links.addresses(link)?;
        let of = |flag: u32| addresses.iter().find(|address| address.flags & flag != 0 && !is_own(address));
        if let Some(failed) = of(DADFAILED) {
            let text = format!("another has the address {} already", failed.cidr.address);
            return Err(Error::already_exists(text));
        }
        let Some(tentative) = of(TENTATIVE) else { return Ok(()) };
        if begun.elapsed() > SETTLED {
            let text = format!("address {} still tentative after {SETTLED:?}", tentative.cidr.address);
            return Err(Error::deadline(text));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The address that a link gives itself. Nobody waits for that.
fn is_own(address: &Address) -> bool {
    matches!(address.cidr.address, IpAddr::V6(address) if address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80))
}

/// The host's end that this owner has made.
pub(super) fn host_end(links: &Links, owner: &Owner, previous: Option<&Current>) -> Result<Option<Link>> {
    let is_ours = |link: &Link| Owner::of_alias(&link.alias).as_ref() == Some(owner);
    let named = previous.into_iter().flat_map(|result| &result.interfaces);
    for interface in named.filter(|interface| interface.sandbox.is_empty() && !interface.name.is_empty()) {
        if let Some(link) = links.by_name(&interface.name)?.filter(is_ours) {
            return Ok(Some(link));
        }
    }
    Ok(links.all()?.into_iter().find(is_ours))
}

/// Whether this link was made here, and not by a program.
pub(super) fn is_ours(link: &Link) -> bool {
    Owner::of_alias(&link.alias).is_some()
}

/// Removes the pair: from the host, where it is known whose it is, or, if the program made it, from the container.
pub(super) fn remove(asked: &Asked, turn: Option<&Turn>) -> Result<()> {
    let (links, owner) = (Links::open()?, asked.owner()?);
    // A result that cannot be read tells nothing: all links are looked at.
    let previous = asked.previous().unwrap_or_default();
    if let Some(link) = host_end(&links, &owner, previous.as_ref())? {
        return leaving::delete(&links, &link, turn);
    }
    let Some(netns) = asked.netns_if_there()? else { return Ok(()) };
    asked.inside(&netns, || {
        let links = Links::open()?;
        match links.by_name(&asked.at.interface)?.filter(|link| link.kind == "veth") {
            Some(link) => links.delete(link.index),
            None => Ok(()),
        }
    })
}

/// Removes the pairs of this network that nobody claims.
pub(super) fn collect(asked: &Asked) -> Result<()> {
    let (links, claimed) = (Links::open()?, asked.claimed()?);
    let stale = |link: &Link| {
        Owner::of_alias(&link.alias).is_some_and(|owner| owner.is_stale(asked.network(), &claimed))
    };
    let mut errors = Vec::new();
    for link in links.all()?.iter().filter(|link| link.kind == "veth" && stale(link)) {
        errors.extend(links.delete(link.index).err());
    }
    crate::verbs::all(errors)
}

/// Checks the container's end against a result: its hardware address, its addresses, its routes.
pub(super) fn check(asked: &Asked, netns: &Netns, result: &Current) -> Result<Link> {
    let name = &asked.at.interface;
    let is_own = |interface: &&Interface| interface.name == *name && !interface.sandbox.is_empty();
    let wanted = result.interfaces.iter().find(is_own).ok_or_else(|| {
        Error::precondition(format!("interface {name:?} in a sandbox is not in prevResult"))
    })?;
    if wanted.sandbox != asked.at.netns {
        let text = format!(
            "sandbox in prevResult {} doesn't match configured netns: {}",
            wanted.sandbox, asked.at.netns
        );
        return Err(Error::precondition(text));
    }
    asked.inside(netns, || check_inside(name, wanted, result))
}

fn check_inside(name: &str, wanted: &Interface, result: &Current) -> Result<Link> {
    let differs = |text: String| Err(Error::precondition(text));
    let links = Links::open()?;
    let link = links.named(name).context(|| "check the container's interface")?;
    if link.kind != "veth" {
        return differs(format!("container interface {name} not of type veth"));
    }
    if !wanted.mac.is_empty() && !wanted.mac.eq_ignore_ascii_case(&link.mac) {
        return differs(format!(
            "interface {name} mac {} doesn't match container mac: {}",
            wanted.mac, link.mac
        ));
    }
    let addresses = links.addresses(link.index)?;
    for ip in own_addresses(result, name) {
        if !addresses.iter().any(|address| address.cidr == ip.address) {
            return differs(format!("failed to match addr {} on interface {name}", ip.address));
        }
    }
    let routes = links.routes()?;
    for route in &result.routes {
        let wanted = route.dst.network();
        let is = |found: &super::kernel::addresses::Found| {
            let to = found.to.map_or(wanted.prefix == 0, |to| to == wanted);
            to && (route.gw.is_none() || found.gateway == route.gw)
                && (wanted.prefix > 0 || found.gateway.is_none_or(|g| g.is_ipv4() == wanted.is_v4()))
        };
        if !routes.iter().any(is) {
            return differs(format!("expected route {} not found", route.dst));
        }
    }
    Ok(link)
}

/// Forwards packets of the versions that `addresses` have.
pub(super) fn forward(addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
    if !v4.is_empty() {
        sysctl::set(&["ipv4", "ip_forward"], "1")?;
    }
    if !v6.is_empty() {
        sysctl::set(&["ipv6", "conf", "all", "forwarding"], "1")?;
    }
    Ok(())
}

/// Of several attempts to remove something all are made; what is not built in or not there is no failure of them.
pub(super) fn each(done: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    crate::verbs::all(
        done.into_iter().filter_map(Result::err).filter(|error| error.class() != Class::NotFound).collect(),
    )
}
