//! Limits of a pod's link: what comes to it by a queue of the host's end, what comes from it by a queue of a device to which
//! all that the host's end takes in is sent on.

use serde::Deserialize;
use sha2::{Digest, Sha512};
use types::{Error, Result};

use super::asked::Asked;
use super::container;
use super::kernel::links::{Change, Link, Links};
use super::kernel::queues::Bucket;
use super::leaving;
use super::owner::Owner;
use super::turn::Turn;
use crate::result::{Current, Interface, nullable};

/// The most that is in a burst, in bits.
const LARGEST: u64 = u32::MAX as u64 * 8;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    #[serde(flatten)]
    own: Rates,
    #[serde(deserialize_with = "nullable")]
    runtime_config: Runtime,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Runtime {
    bandwidth: Option<Rates>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rates {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
}

/// Into the container, and out of it.
struct Limits {
    ingress: Option<Bucket>,
    egress: Option<Bucket>,
}

impl Limits {
    fn of(asked: &Asked) -> Result<Self> {
        let Config { own, runtime_config } = asked.parse()?;
        let is_own = [own.ingress_rate, own.ingress_burst, own.egress_rate, own.egress_burst]
            .iter()
            .any(Option::is_some);
        // What the administrator has written is the last word.
        let rates = if is_own { own } else { runtime_config.bandwidth.unwrap_or_default() };
        Ok(Self {
            ingress: bucket(rates.ingress_rate, rates.ingress_burst)?,
            egress: bucket(rates.egress_rate, rates.egress_burst)?,
        })
    }
}

fn bucket(rate: Option<u64>, burst: Option<u64>) -> Result<Option<Bucket>> {
    match (rate.unwrap_or_default(), burst.unwrap_or_default()) {
        (0, 0) => Ok(None),
        (_, 0) => Err(Error::invalid("if rate is set, burst must also be set")),
        (0, _) => Err(Error::invalid("if burst is set, rate must also be set")),
        (_, burst) if burst >= LARGEST => Err(Error::invalid("burst cannot be more than 4GB")),
        (rate, burst) => Ok(Some(Bucket::new(rate, burst))),
    }
}

/// The device of a container, by the Go plugin's name.
fn device(asked: &Asked) -> String {
    let hash = Sha512::digest(format!("{}{}", asked.network(), asked.at.container));
    let digits: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("bwp{digits}")
}

/// The host's end of the container's link: the pair among the interfaces of a result that are on the host.
fn host_end(links: &Links, result: &Current) -> Result<Link> {
    let named = result.interfaces.iter().filter(|of| of.sandbox.is_empty() && !of.name.is_empty());
    for interface in named {
        if let Some(link) = links.by_name(&interface.name)?.filter(|link| link.kind == "veth") {
            return Ok(link);
        }
    }
    Err(Error::precondition("no veth peer of container interface found in host ns"))
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let limits = Limits::of(asked)?;
    if limits.ingress.is_none() && limits.egress.is_none() {
        return asked.chained();
    }
    let (mut result, owner, links) = (asked.chained()?, asked.owner()?, Links::open()?);
    let host = host_end(&links, &result)?;
    if let Some(bucket) = limits.ingress {
        links.add_bucket(host.index, bucket)?;
    }
    if let Some(bucket) = limits.egress {
        let limited = limit_egress(&links, asked, &owner, (&host, bucket));
        let device = limited.inspect_err(|_| drop(del(asked, None)))?;
        result.interfaces.push(Interface { name: device.name, mac: device.mac, ..Interface::default() });
    }
    Ok(result)
}

fn limit_egress(
    links: &Links,
    asked: &Asked,
    owner: &Owner,
    (host, bucket): (&Link, Bucket),
) -> Result<Link> {
    let name = device(asked);
    if !links.add_ifb(&name, host.mtu)? {
        return Err(Error::already_exists(format!("link {name:?} is there already")));
    }
    let device = links.named(&name)?;
    links.change(device.index, &Change { alias: Some(&owner.alias()), ..Change::default() })?;
    // Limited before anything comes.
    links.add_bucket(device.index, bucket)?;
    links.redirect(host.index, device.index)?;
    Ok(device)
}

pub(super) fn del(asked: &Asked, turn: Option<&Turn>) -> Result<()> {
    let links = Links::open()?;
    match links.by_name(&device(asked))?.filter(|link| link.kind == "ifb") {
        Some(link) => leaving::delete(&links, &link, turn),
        None => Ok(()),
    }
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let limits = Limits::of(asked)?;
    if limits.ingress.is_none() && limits.egress.is_none() {
        return Ok(());
    }
    let (result, links) = (asked.chained()?, Links::open()?);
    let is = |link: &Link, wanted: Bucket| match links.bucket(link.index)? {
        Some(found) if wanted.is(found) => Ok(()),
        Some(found) => {
            Err(Error::precondition(format!("limit of {} is {found:?}, not {wanted:?}", link.name)))
        }
        None => Err(Error::precondition(format!("link {} has no limit", link.name))),
    };
    if let Some(wanted) = limits.ingress {
        is(&host_end(&links, &result)?, wanted)?;
    }
    if let Some(wanted) = limits.egress {
        is(&links.named(&device(asked))?, wanted)?;
    }
    Ok(())
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let (links, claimed) = (Links::open()?, asked.claimed()?);
    let stale = |link: &&Link| {
        let owner = Owner::of_alias(&link.alias);
        link.kind == "ifb" && owner.is_some_and(|owner| owner.is_stale(asked.network(), &claimed))
    };
    let all = links.all()?;
    container::each(all.iter().filter(stale).map(|link| links.delete(link.index)))
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    Limits::of(asked).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_a_burst_and_the_other_way_round() {
        assert!(bucket(None, Some(0)).unwrap().is_none() && bucket(Some(8), Some(8)).unwrap().is_some());
        for (rate, burst) in [(Some(8), None), (None, Some(8)), (Some(8), Some(LARGEST))] {
            assert!(bucket(rate, burst).is_err());
        }
    }
}
