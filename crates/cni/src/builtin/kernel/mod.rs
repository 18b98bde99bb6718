//! What the plugins here change of the kernel's network, in its own terms. Each name is the kernel's.

pub(super) mod addresses;
pub(super) mod links;
pub(super) mod mac;
pub(super) mod queues;
pub(super) mod sysctl;

use std::net::IpAddr;

/// Flags of questions that make something.
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

/// An address as it stands in messages.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The reverse.
fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = || octets.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets));
    let sixteen = || octets.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets));
    four().or_else(sixteen)
}

/// `AF_INET` or `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}
