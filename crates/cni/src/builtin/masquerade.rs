//! A pod's packets to others than its network have the host's address.

use types::Result;

use super::nft::expressions::{Must, Rule, Side, Verdict};
use super::nft::{self, Base, Batch, Frame, Hook, Nft};
use super::owner::Owner;
use crate::result::{Cidr, IpConfig};

/// The chain of these rules; `masquerade` is a word of nft's own.
const CHAIN: &str = "masqueraded";
/// Who asks it.
const POSTROUTING: Hook = Hook { kind: "nat", number: 4, priority: 100 };

pub(super) fn add(owner: &Owner, addresses: &[IpConfig]) -> Result<()> {
    let nft = Nft::open()?;
    let mut batch = Batch::default();
    for ip in addresses {
        let (own, network) = (Cidr::single(ip.address.address), ip.address.network());
        let rule = Rule::new().version(own.address).address(Side::Source, Must::Be, own);
        let rule = rule.address(Side::Destination, Must::NotBe, network).masquerade();
        batch.rule(CHAIN, &rule, owner);
    }
    nft.add(&frame(), batch)
}

/// What goes to groups keeps its address.
fn frame() -> Frame {
    let groups = ["224.0.0.0/4", "ff00::/8"].into_iter().filter_map(|group| group.parse::<Cidr>().ok());
    let groups = groups.map(|group| {
        let rule = Rule::new().version(group.address).address(Side::Destination, Must::Be, group);
        rule.verdict(&Verdict::Return)
    });
    let rules = groups.chain([Rule::new().verdict(&Verdict::Jump(CHAIN))]).collect();
    Frame { chains: &[CHAIN], bases: vec![Base { name: "masquerading", hook: POSTROUTING, rules }] }
}

pub(super) fn remove(owner: &Owner) -> Result<()> {
    nft::remove(|rule| rule.chain == CHAIN && rule.owner == *owner)
}

pub(super) fn collect(network: &str, claimed: &[(String, String)]) -> Result<()> {
    nft::remove(|rule| rule.chain == CHAIN && rule.owner.is_stale(network, claimed))
}

pub(super) fn check(owner: &Owner, addresses: &[IpConfig]) -> Result<()> {
    nft::check(CHAIN, owner, addresses.len())
}
