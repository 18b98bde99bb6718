//! Rules, made of the kernel's expressions: load something into a register, compare it, decide.
//!
//! Loading and comparing are written as `nft list ruleset` shows them. The first register takes what is compared; the second
//! is for a rule that needs two values.

use std::net::IpAddr;

use sys::netlink::Message;

use super::super::kernel::octets;
use crate::result::{Cidr, bits, from_bits};

const NAME: u16 = 1;
const DATA: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

const R_VERDICT: u32 = 0;
const R1: u32 = 1;
const R2: u32 = 2;

const META_IFTYPE: u32 = 8;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const STATUS_DNAT: u32 = 1 << 5;
const FIB_TYPE: u32 = 3;
const FIB_DADDR: u32 = 2;
const TYPE_LOCAL: u32 = 2;
const LOOPBACK: u16 = 772;

/// What becomes of a packet.
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    Return,
    Jump(&'a str),
}

/// Which side of a packet, or of a route.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// Whether a comparison must hold.
#[derive(Clone, Copy)]
pub(crate) enum Must {
    Be = 0,
    NotBe = 1,
}

/// A rule.
pub(crate) struct Rule(Message);

impl Rule {
    /// One that holds for every packet.
    pub fn new() -> Self {
        Self(Message::new(0, 0, &[]))
    }

    /// The expressions, into a list.
    pub(super) fn write(&self, list: &mut Message) {
        list.structure(self.0.body());
    }

    pub(super) fn expression(mut self, name: &str, data: impl FnOnce(&mut Message)) -> Self {
        self.0.nest(LIST_ELEMENT, |element| {
            element.text(NAME, name).nest(DATA, data);
        });
        self
    }

    fn compare(self, must: Must, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.network(1, R1).network(2, must as u32).nest(3, |inner| {
                inner.put(VALUE, value);
            });
        })
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |data| {
            data.network(1, R1).network(2, key);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", |data| {
            data.network(1, R1).network(2, base).network(3, offset).network(4, length);
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |data| {
            data.network(1, R1).network(2, R1).network(3, mask.len().try_into().unwrap_or_default());
            data.nest(4, |inner| {
                inner.put(VALUE, mask);
            });
            data.nest(5, |inner| {
                inner.put(VALUE, &vec![0; mask.len()]);
            });
        })
    }

    /// Packets of `address`'s version of the protocol.
    pub fn version(self, address: IpAddr) -> Self {
        self.meta(META_NFPROTO).compare(Must::Be, &[if address.is_ipv4() { 2 } else { 10 }])
    }

    /// Packets from or to a network. In a table of both versions [`Self::version`] comes first.
    pub fn address(self, side: Side, must: Must, network: Cidr) -> Self {
        let offset = match (side, network.is_v4()) {
            (Side::Source, true) => 12,
            (Side::Destination, true) => 16,
            (Side::Source, false) => 8,
            (Side::Destination, false) => 24,
        };
        let whole = octets(network.network().address);
        let loaded = self.payload(NETWORK, offset, if network.is_v4() { 4 } else { 16 });
        let all = Cidr::single(network.address);
        let masked = if all.prefix == network.prefix {
            loaded
        } else {
            loaded.mask(&octets(from_bits(
                network.mask() & bits(from_bits(u128::MAX, all.address)),
                all.address,
            )))
        };
        masked.compare(must, &whole)
    }

    /// Packets of a protocol above IP.
    pub fn protocol(self, number: u8) -> Self {
        self.meta(META_L4PROTO).compare(Must::Be, &[number])
    }

    /// Packets to a port; after [`Self::protocol`].
    pub fn port(self, port: u16) -> Self {
        self.payload(TRANSPORT, 2, 2).compare(Must::Be, &port.to_be_bytes())
    }

    /// Packets that come in or go out by a link.
    pub fn link(self, side: Side, must: Must, name: &str) -> Self {
        let key = match side {
            Side::Source => META_IIFNAME,
            Side::Destination => META_OIFNAME,
        };
        let mut padded = name.as_bytes().to_vec();
        padded.resize(16, 0);
        self.meta(key).compare(must, &padded)
    }

    /// Packets that did not come by `lo`.
    pub fn not_from_loopback(self) -> Self {
        self.meta(META_IFTYPE).compare(Must::NotBe, &LOOPBACK.to_ne_bytes())
    }

    /// Packets of connections that are known, and what belongs to them.
    pub fn known(self) -> Self {
        self.connection(CT_STATE, ESTABLISHED_OR_RELATED)
    }

    /// Packets of connections whose destination was changed.
    pub fn redirected(self) -> Self {
        self.connection(CT_STATUS, STATUS_DNAT)
    }

    fn connection(self, key: u32, any: u32) -> Self {
        let loaded = self.expression("ct", |data| {
            data.network(1, R1).network(2, key);
        });
        loaded.mask(&any.to_ne_bytes()).compare(Must::NotBe, &[0; 4])
    }

    /// Packets of connections that were opened to this port, whatever it was changed to.
    pub fn opened_to(self, port: u16) -> Self {
        let loaded = self.expression("ct", |data| {
            data.network(1, R1).network(2, CT_PROTO_DST).put(3, &[0]);
        });
        loaded.compare(Must::Be, &port.to_be_bytes())
    }

    /// Packets to an address of this host.
    pub fn for_this_host(self) -> Self {
        let loaded = self.expression("fib", |data| {
            data.network(1, R1).network(2, FIB_TYPE).network(3, FIB_DADDR);
        });
        loaded.compare(Must::Be, &TYPE_LOCAL.to_ne_bytes())
    }

    /// Counts, as iptables' own rules do.
    pub(super) fn counted(self) -> Self {
        self.expression("counter", |data| {
            data.put(1, &[0; 8]).put(2, &[0; 8]);
        })
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.network(1, register).nest(2, |inner| {
                inner.put(VALUE, value);
            });
        })
    }

    /// Ends with a decision.
    pub fn verdict(self, verdict: &Verdict<'_>) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
        };
        self.expression("immediate", |data| {
            data.network(1, R_VERDICT).nest(2, |inner| {
                inner.nest(VERDICT, |verdict| {
                    verdict.put(1, &i32::to_be_bytes(code));
                    chain.map(|chain| verdict.text(2, chain));
                });
            });
        })
    }

    /// Ends with the address of the link by which packets leave, for theirs.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Ends with another destination.
    pub fn redirect(self, to: IpAddr, port: u16) -> Self {
        let loaded = self.immediate(R1, &octets(to)).immediate(R2, &port.to_be_bytes());
        loaded.expression("nat", |data| {
            data.network(1, 1).network(2, if to.is_ipv4() { 2 } else { 10 });
            data.network(3, R1).network(5, R2);
        })
    }
}
