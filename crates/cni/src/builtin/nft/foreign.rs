//! iptables' own chain of forwarded packets. What one table accepts the next one may still drop, as Docker's policy and many
//! a distribution's last rule do there. So where a host has that chain, a pod's packets are let through in it as well, by rules
//! like those that the Go plugin has iptables write, which iptables can list. The older iptables, which is none of
//! nf_tables', is out of reach.

use std::net::IpAddr;

use types::{Class, Result};

use super::expressions::{Must, Rule, Side, Verdict};
use super::{Batch, Listed, Nft, Packets};
use crate::builtin::owner::Owner;
use crate::result::Cidr;

const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";

fn packets(address: IpAddr) -> Packets {
    if address.is_ipv4() { Packets::V4 } else { Packets::V6 }
}

/// Lets a pod's packets through in iptables' chain, if it is there.
pub(crate) fn admit(nft: &Nft, batch: &mut Batch, owner: &Owner, addresses: &[IpAddr]) -> Result<()> {
    for packets_of in [Packets::V4, Packets::V6] {
        if !nft.has_chain(packets_of, TABLE, CHAIN)? {
            continue;
        }
        for address in addresses.iter().filter(|address| packets(**address) == packets_of) {
            let place = (packets_of, TABLE, CHAIN);
            let single = Cidr::single(*address);
            let from =
                Rule::new().address(Side::Source, Must::Be, single).counted().verdict(&Verdict::Accept);
            let to = Rule::new().address(Side::Destination, Must::Be, single);
            let to = conntrack(to).counted().verdict(&Verdict::Accept);
            batch.first(place, &from, owner).first(place, &to, owner);
        }
    }
    Ok(())
}

/// Removes what [`admit`] has added.
pub(crate) fn dismiss(is: impl Fn(&Listed) -> bool) -> Result<()> {
    let nft = match Nft::open() {
        Err(error) if error.class() == Class::Unimplemented => return Ok(()),
        nft => nft?,
    };
    for packets in [Packets::V4, Packets::V6] {
        nft.remove((packets, TABLE, Some(CHAIN)), &is)?;
    }
    Ok(())
}

/// `-m conntrack --ctstate RELATED,ESTABLISHED`: iptables does not know the expression that says so.
fn conntrack(rule: Rule) -> Rule {
    /// `struct xt_conntrack_mtinfo3`, whose fields are for other questions but for two, rounded up.
    const LENGTH: usize = 168;
    const FLAGS: usize = 146;
    const STATES: usize = 150;
    let mut info = [0; LENGTH];
    for (at, value) in [(FLAGS, 1u16), (STATES, 2 | 4)] {
        for (to, from) in info.iter_mut().skip(at).zip(value.to_ne_bytes()) {
            *to = from;
        }
    }
    rule.expression("match", |data| {
        data.text(1, "conntrack").network(2, 3).put(3, &info);
    })
}
