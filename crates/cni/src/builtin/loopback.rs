//! `lo`, up and down.

use types::{Error, Result};

use super::asked::Asked;
use super::kernel::links::{Change, Links, UP};
use crate::result::{Current, Interface, IpConfig};

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let netns = asked.netns()?;
    let addresses = asked.inside(&netns, || {
        let links = Links::open()?;
        let lo = links.named("lo")?;
        links.change(lo.index, &Change::up())?;
        links.addresses(lo.index)
    })?;
    let own = addresses.iter().map(|address| address.cidr);
    if let Some(other) = own.clone().find(|cidr| !cidr.address.is_loopback()) {
        return Err(Error::precondition(format!(
            "loopback interface found with non-loopback address {other}"
        )));
    }
    if let Some(previous) = asked.previous()? {
        return Ok(previous);
    }
    let first = [true, false].into_iter().filter_map(|v4| own.clone().find(|cidr| cidr.is_v4() == v4));
    Ok(Current {
        interfaces: vec![Interface {
            name: "lo".into(),
            mac: "00:00:00:00:00:00".into(),
            sandbox: asked.at.netns.clone(),
            ..Interface::default()
        }],
        ips: first.map(|address| IpConfig { interface: Some(0), address, gateway: None }).collect(),
        ..Current::default()
    })
}

pub(super) fn del(asked: &Asked) -> Result<()> {
    let Some(netns) = asked.netns_if_there()? else { return Ok(()) };
    asked.inside(&netns, || {
        let links = Links::open()?;
        links.change(links.named("lo")?.index, &Change::flag(UP, false))
    })
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    asked.inside(&asked.netns()?, || match Links::open()?.named("lo")?.is(UP) {
        true => Ok(()),
        false => Err(Error::precondition("loopback interface is down")),
    })
}
