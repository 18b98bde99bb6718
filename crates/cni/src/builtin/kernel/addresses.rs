//! Addresses of links, and routes: what `ip addr` and `ip route` show and change.

use std::net::IpAddr;

use rustix::io::Errno;
use sys::netlink::{Answer, Message};
use types::{Result, ResultExt};

use super::links::Links;
use super::{CREATE, EXCLUSIVE, REPLACE, address, family, octets};
use crate::result::{Cidr, Route};

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// `struct ifaddrmsg`
const ADDRESS: usize = 8;
/// `struct rtmsg`
const ROUTE: usize = 12;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

/// It is used at once, without asking whether another has it.
pub(crate) const NODAD: u32 = 0x02;
/// It is not used yet.
pub(crate) const TENTATIVE: u32 = 0x40;
/// Another has it.
pub(crate) const DADFAILED: u32 = 0x08;
/// It brings no route to its network.
pub(crate) const NOPREFIXROUTE: u32 = 0x200;

const MAIN: u32 = 254;
/// `RTPROT_BOOT`, as the Go plugins have it.
const BOOT: u8 = 3;
const UNICAST: u8 = 1;
/// What is on the link itself.
pub(crate) const ON_LINK: u8 = 253;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub cidr: Cidr,
    pub flags: u32,
}

/// A route to be made.
pub(crate) struct Way {
    pub link: u32,
    pub to: Cidr,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub scope: u8,
}

/// A route that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub to: Option<Cidr>,
    pub gateway: Option<IpAddr>,
    pub link: u32,
    pub table: u32,
}

impl Links {
    /// The addresses of a link.
    pub fn addresses(&self, link: u32) -> Result<Vec<Address>> {
        let answers =
            self.0.list(Message::new(GET_ADDRESS, 0, &[0; ADDRESS])).context(|| "list addresses")?;
        Ok(answers.iter().filter_map(|answer| read_address(answer, link)).collect())
    }

    /// Gives a link an address. One that it has already stays.
    pub fn add_address(&self, link: u32, address: Address) -> Result<()> {
        let mut message = address_message(NEW_ADDRESS, CREATE | EXCLUSIVE, link, address.cidr);
        if let (IpAddr::V4(own), 0..31) = (address.cidr.address, address.cidr.prefix) {
            let broadcast =
                u32::from(own) | u32::MAX.checked_shr(address.cidr.prefix.into()).unwrap_or_default();
            message.put(IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        message.number(IFA_FLAGS, address.flags);
        match self.0.change(message) {
            Err(refused) if refused.errno == Errno::EXIST => Ok(()),
            done => done.context(|| format!("add address {} to link {link}", address.cidr)),
        }
    }

    /// Takes an address from a link.
    pub fn remove_address(&self, link: u32, cidr: Cidr) -> Result<()> {
        let message = address_message(DELETE_ADDRESS, 0, link, cidr);
        self.0.change(message).context(|| format!("remove address {cidr} from link {link}"))
    }

    /// Makes a route.
    pub fn add_way(&self, way: &Way) -> Result<()> {
        let mut message = route_message(way.to, way.scope, MAIN, REPLACE);
        message.number(RTA_OIF, way.link);
        way.gateway.map(|gateway| message.put(RTA_GATEWAY, &octets(gateway)));
        way.source.map(|source| message.put(RTA_PREFSRC, &octets(source)));
        self.0.change(message).context(|| format!("add route to {}", way.to))
    }

    /// Makes a route of a result, by `gateway` if it names none itself.
    pub fn add_route(&self, link: u32, route: &Route, gateway: Option<IpAddr>) -> Result<()> {
        let doing = || format!("add route to {}", route.dst);
        let whole = |number: i64| {
            u32::try_from(number)
                .map_err(|_| types::Error::invalid(format!("{number} is out of range")))
                .context(doing)
        };
        let scope = route.scope.map(whole).transpose()?.unwrap_or_default();
        let table = route.table.map(whole).transpose()?.filter(|table| *table != 0).unwrap_or(MAIN);
        let mut message = route_message(route.dst, u8::try_from(scope).unwrap_or(u8::MAX), table, 0);
        message.number(RTA_OIF, link);
        route.gw.or(gateway).map(|gateway| message.put(RTA_GATEWAY, &octets(gateway)));
        if route.priority != 0 {
            message.number(RTA_PRIORITY, whole(route.priority)?);
        }
        let (mtu, advmss) = (whole(route.mtu)?, whole(route.advmss)?);
        let metrics = [(RTAX_MTU, mtu), (RTAX_ADVMSS, advmss)];
        if metrics.iter().any(|(_, value)| *value != 0) {
            message.nest(RTA_METRICS, |nested| {
                for (number, value) in metrics.into_iter().filter(|(_, value)| *value != 0) {
                    nested.number(number, value);
                }
            });
        }
        self.0.change(message).context(doing)
    }

    /// All routes.
    pub fn routes(&self) -> Result<Vec<Found>> {
        let answers = self.0.list(Message::new(GET_ROUTE, 0, &[0; ROUTE])).context(|| "list routes")?;
        Ok(answers.iter().filter_map(read_route).collect())
    }

    /// The link by which packets to `to` leave.
    pub fn link_towards(&self, to: IpAddr) -> Result<Option<u32>> {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(GET_ROUTE, 0, &[family(to), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.put(RTA_DST, &octets(to));
        match self.0.get(message) {
            Err(refused) if [Errno::NETUNREACH, Errno::HOSTUNREACH].contains(&refused.errno) => Ok(None),
            found => {
                let found = found.context(|| format!("look up the route to {to}"))?;
                Ok(found.iter().find_map(read_route).map(|route| route.link))
            }
        }
    }
}

fn address_message(kind: u16, flags: u16, link: u32, cidr: Cidr) -> Message {
    let [i0, i1, i2, i3] = link.to_ne_bytes();
    let mut message = Message::new(kind, flags, &[family(cidr.address), cidr.prefix, 0, 0, i0, i1, i2, i3]);
    message.put(IFA_LOCAL, &octets(cidr.address)).put(IFA_ADDRESS, &octets(cidr.address));
    message
}

fn read_address(answer: &Answer, link: u32) -> Option<Address> {
    let [_, prefix, flags, _, i0, i1, i2, i3] = *answer.structure(ADDRESS) else { return None };
    let attributes = answer.attributes(ADDRESS);
    let own = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS)).and_then(address)?;
    let flags = attributes.number(IFA_FLAGS).unwrap_or(flags.into());
    let found = Address { cidr: Cidr { address: own, prefix }, flags };
    (u32::from_ne_bytes([i0, i1, i2, i3]) == link).then_some(found)
}

fn route_message(to: Cidr, scope: u8, table: u32, flags: u16) -> Message {
    let small = u8::try_from(table).unwrap_or_default();
    let structure = [family(to.address), to.prefix, 0, 0, small, BOOT, scope, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(NEW_ROUTE, CREATE | flags, &structure);
    message.put(RTA_DST, &octets(to.network().address)).number(RTA_TABLE, table);
    message
}

fn read_route(answer: &Answer) -> Option<Found> {
    let [_, prefix, _, _, table, ..] = *answer.structure(ROUTE) else { return None };
    let attributes = answer.attributes(ROUTE);
    let to = attributes.find(RTA_DST).and_then(address);
    Some(Found {
        to: to.map(|address| Cidr { address, prefix }),
        gateway: attributes.find(RTA_GATEWAY).and_then(address),
        link: attributes.number(RTA_OIF)?,
        table: attributes.number(RTA_TABLE).unwrap_or(table.into()),
    })
}
