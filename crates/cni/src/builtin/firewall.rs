//! A pod's packets are let through, and on demand those of other bridges are not.
//!
//! nf_tables asks all tables: what ours accepts another may still drop. Where iptables' own chain does so by default, pods are
//! let through there as well ([`foreign`]).

use serde::Deserialize;
use types::{Error, Result};

use super::asked::{Asked, own_ips};
use super::container;
use super::nft::expressions::{Must, Rule, Side, Verdict};
use super::nft::{self, Base, Batch, Frame, Hook, Listed, Nft, foreign};
use super::owner::Owner;
use crate::result::{Cidr, Current, nullable};

const PODS: &str = "pods";
/// Which links packets come from that may not go everywhere, and where they may not go.
const BRIDGES: &str = "bridges";
const ISOLATED: &str = "isolated";
const FORWARD: Hook = Hook { kind: "filter", number: 2, priority: 0 };

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    #[serde(deserialize_with = "nullable")]
    backend: String,
    #[serde(deserialize_with = "nullable")]
    ingress_policy: String,
}

/// Who may open connections to a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ingress {
    Open,
    SameBridge,
    Isolated,
}

impl Config {
    fn of(asked: &Asked) -> Result<Ingress> {
        let config: Self = asked.parse()?;
        if config.backend == "firewalld" {
            return Err(super::absent("backend firewalld of plugin firewall"));
        }
        match config.ingress_policy.as_str() {
            "" | "open" => Ok(Ingress::Open),
            "same-bridge" => Ok(Ingress::SameBridge),
            "isolated" => Ok(Ingress::Isolated),
            other => Err(Error::invalid(format!("unknown ingress policy: {other:?}"))),
        }
    }
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let (ingress, result, owner) = (Config::of(asked)?, asked.chained()?, asked.owner()?);
    let nft = Nft::open()?;
    let mut batch = Batch::default();
    let addresses = own_ips(&result, &asked.at.interface);
    for address in &addresses {
        let single = Cidr::single(*address);
        let from = Rule::new().version(*address).address(Side::Source, Must::Be, single);
        batch.rule(PODS, &from.verdict(&Verdict::Accept), &owner);
    }
    if ingress != Ingress::Open {
        let bridge =
            result.interfaces.first().map(|first| first.name.as_str()).filter(|name| !name.is_empty());
        let missing = || Error::invalid("ingressPolicy needs a bridge: chain \"firewall\" behind \"bridge\"");
        isolate(&mut batch, bridge.ok_or_else(missing)?, ingress, &owner);
    }
    foreign::admit(&nft, &mut batch, &owner, &addresses)?;
    nft.add(&frame(), batch)?;
    Ok(result)
}

/// What belongs to a known connection is through at once; bridges are looked at before pods are let through.
fn frame() -> Frame {
    let rules = vec![
        Rule::new().known().verdict(&Verdict::Accept),
        Rule::new().verdict(&Verdict::Jump(BRIDGES)),
        Rule::new().verdict(&Verdict::Jump(PODS)),
    ];
    Frame { chains: &[PODS, ISOLATED, BRIDGES], bases: vec![Base { name: "forward", hook: FORWARD, rules }] }
}

/// What comes from one such bridge does not go to another, nor, if they are isolated, to others in the same one.
fn isolate(batch: &mut Batch, bridge: &str, ingress: Ingress, owner: &Owner) {
    let from = || Rule::new().link(Side::Source, Must::Be, bridge);
    if ingress == Ingress::Isolated {
        let to_itself = from().link(Side::Destination, Must::Be, bridge).verdict(&Verdict::Drop);
        batch.rule(BRIDGES, &to_itself, owner);
    }
    let elsewhere = from().link(Side::Destination, Must::NotBe, bridge).verdict(&Verdict::Jump(ISOLATED));
    let from_another = Rule::new().link(Side::Destination, Must::Be, bridge).verdict(&Verdict::Drop);
    batch.rule(BRIDGES, &elsewhere, owner).rule(ISOLATED, &from_another, owner);
}

fn is_of_firewall(rule: &Listed) -> bool {
    [PODS, BRIDGES, ISOLATED].contains(&rule.chain.as_str())
}

pub(super) fn del(asked: &Asked) -> Result<()> {
    let owner = asked.owner()?;
    let own = nft::remove(|rule| is_of_firewall(rule) && rule.owner == owner);
    container::each([foreign::dismiss(|rule| rule.owner == owner), own])
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let (result, owner) = (asked.chained()?, asked.owner()?);
    match own_ips(&result, &asked.at.interface).len() {
        0 => Ok(()),
        wanted => nft::check(PODS, &owner, wanted),
    }
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let (network, claimed) = (asked.network(), asked.claimed()?);
    let stale = |rule: &Listed| rule.owner.is_stale(network, &claimed);
    container::each([foreign::dismiss(stale), nft::remove(|rule| is_of_firewall(rule) && stale(rule))])
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    Config::of(asked)?;
    Nft::open().map(drop)
}
