//! Which addresses a registry or an image may send us to.
//!
//! A redirect and a descriptor's `urls` are somebody else's words. They must not make the daemon, which sits inside a network,
//! ask services there that the registry itself could not ask: cloud metadata (link-local) never, this machine
//! only if the registry is on it, private networks from `urls` only if the registry is on one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How far away an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The Internet.
    Public,
    /// RFC 1918, unique local addresses, carriers' networks.
    Private,
    /// This machine.
    Loopback,
    /// What nobody is sent to: link-local (metadata services), unspecified, multicast.
    Forbidden,
}

impl Reach {
    /// The reach of `ip`; an IPv4 address in IPv6's clothes is what it wears them over.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let octets = v4.octets();
                let shared = octets[0] == 100 && (64..128).contains(&octets[1]);
                if v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || octets[0] == 0 {
                    Self::Forbidden
                } else if v4.is_loopback() {
                    Self::Loopback
                } else if v4.is_private() || shared {
                    Self::Private
                } else {
                    Self::Public
                }
            }
            IpAddr::V6(v6) => match embedded(v6) {
                Some(v4) => Self::of(v4),
                None if v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() => {
                    Self::Forbidden
                }
                // AWS's metadata service has a unique local address.
                None if v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) => Self::Forbidden,
                None if v6.is_loopback() => Self::Loopback,
                None if v6.is_unique_local() => Self::Private,
                None => Self::Public,
            },
        }
    }
}

/// The IPv4 address inside a mapped, translated (NAT64) or 6to4 address.
fn embedded(v6: Ipv6Addr) -> Option<IpAddr> {
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::from([a, b, c, d])
    };
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => v6.to_ipv4_mapped().map(IpAddr::V4),
    }
}

/// Whom foreign words may send us to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The farthest inside that is allowed.
    pub most: Reach,
}

impl Policy {
    /// For where a registry at `own` redirects to: its storage may be in a private network, next to the registry's inside.
    pub fn redirect(own: Reach) -> Self {
        Self { most: if own == Reach::Loopback { Reach::Loopback } else { Reach::Private } }
    }

    /// For the `urls` of an image from a registry at `own`.
    pub fn urls(own: Reach) -> Self {
        Self { most: own.min(Reach::Loopback) }
    }

    /// Whether `ip` may be spoken to.
    pub fn allows(self, ip: IpAddr) -> bool {
        let reach = Reach::of(ip);
        reach != Reach::Forbidden && reach <= self.most
    }
}

/// Resolves names to the addresses that a policy allows: a name is checked where it is used, not before.
pub struct Resolver(pub Policy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|a| policy.allows(a.ip())).collect();
            if allowed.is_empty() {
                let why = format!("{}: its addresses are not to be reached from here", name.as_str());
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A resolver for a client that may go where `policy` allows.
pub fn resolver(policy: Policy) -> Arc<Resolver> {
    Arc::new(Resolver(policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Reach {
        Reach::of(text.parse().unwrap())
    }

    #[test]
    fn metadata_services_are_forbidden_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert_eq!(reach(text), Reach::Forbidden, "{text}");
            assert!(!Policy::redirect(Reach::Loopback).allows(text.parse().unwrap()), "{text}");
        }
        assert_eq!(reach("::ffff:127.0.0.1"), Reach::Loopback);
        assert_eq!(reach("::1"), Reach::Loopback);
        assert_eq!(reach("10.1.2.3"), Reach::Private);
        assert_eq!(reach("100.64.0.1"), Reach::Private);
        assert_eq!(reach("93.184.216.34"), Reach::Public);
    }

    #[test]
    fn nobody_is_sent_further_inside_than_the_registry_is() {
        let at = |text: &str| text.parse().unwrap();
        assert!(!Policy::redirect(Reach::Public).allows(at("127.0.0.1")));
        assert!(Policy::redirect(Reach::Public).allows(at("10.0.0.1")));
        assert!(!Policy::urls(Reach::Public).allows(at("10.0.0.1")));
        assert!(Policy::urls(Reach::Private).allows(at("10.0.0.1")));
        assert!(!Policy::urls(Reach::Private).allows(at("127.0.0.1")));
        assert!(Policy::urls(Reach::Loopback).allows(at("127.0.0.1")));
    }
}
