//! Ranges of addresses: read, checked, and walked through in a circle.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use types::{Error, Result, ResultExt};

use crate::result::{Cidr, IpConfig, address, bits, from_bits, next};
use crate::version::Version;

/// From this version on a container can have two addresses of a kind.
const SEVERAL: &str = "0.3.0";

/// A range as configurations have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    subnet: Option<Cidr>,
    #[serde(rename = "rangeStart", deserialize_with = "address")]
    start: Option<IpAddr>,
    #[serde(rename = "rangeEnd", deserialize_with = "address")]
    end: Option<IpAddr>,
    #[serde(deserialize_with = "address")]
    gateway: Option<IpAddr>,
}

impl Written {
    pub fn is_written(&self) -> bool {
        self.subnet.is_some()
    }
}

/// A range: all addresses from the first to the last but the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    subnet: Cidr,
    start: IpAddr,
    end: IpAddr,
    pub gateway: IpAddr,
}

impl Range {
    fn of(written: &Written) -> Result<Self> {
        let subnet = written.subnet.ok_or_else(|| Error::invalid("subnet is missing"))?;
        let width = if subnet.is_v4() { 32 } else { 128 };
        if subnet.prefix > width - 2 {
            return Err(Error::invalid(format!("network {subnet} too small to allocate from")));
        }
        if subnet.network() != subnet {
            let text = format!(
                "network has host bits set. For a subnet mask of length {} the network address is {}",
                subnet.prefix,
                subnet.network().address
            );
            return Err(Error::invalid(text));
        }
        let inside = |name: &str, given: Option<IpAddr>, otherwise: IpAddr| match given {
            Some(given) if !subnet.contains(given) => {
                Err(Error::invalid(format!("{name} {given} not in network {subnet}")))
            }
            given => Ok(given.unwrap_or(otherwise)),
        };
        let all = bits(subnet.address) | !subnet.mask();
        // The last of version 4 is everybody's.
        let last = from_bits(if subnet.is_v4() { all.wrapping_sub(1) } else { all }, subnet.address);
        let range = Self {
            subnet,
            start: inside("rangeStart", written.start, subnet.first())?,
            end: inside("rangeEnd", written.end, last)?,
            gateway: written.gateway.unwrap_or_else(|| subnet.first()),
        };
        if range.end < range.start {
            return Err(Error::invalid(format!(
                "rangeEnd {} is before rangeStart {}",
                range.end, range.start
            )));
        }
        Ok(range)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.start.is_ipv4() && self.start <= ip && ip <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    pub fn config(&self, ip: IpAddr) -> IpConfig {
        let address = Cidr { address: ip, prefix: self.subnet.prefix };
        IpConfig { interface: None, address, gateway: Some(self.gateway) }
    }
}

/// Ranges of one kind, of which a container has one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    /// The set that stands at place `at`.
    pub fn of(written: Vec<Written>, at: usize) -> Result<Self> {
        let doing = || format!("invalid range set {at}");
        let ranges: Result<Vec<Range>> = written.iter().map(Range::of).collect();
        let ranges = ranges.context(doing)?;
        let bad = |text: String| Err(Error::invalid(text)).context(doing);
        let Some(first) = ranges.first() else { return bad("empty range set".into()) };
        if ranges.iter().any(|range| range.subnet.is_v4() != first.subnet.is_v4()) {
            return bad("mixed address families".into());
        }
        for (at, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(at + 1).find(|other| other.overlaps(range)) {
                return bad(format!("subnets {range} and {other} overlap"));
            }
        }
        Ok(Self(ranges))
    }

    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    fn is_v4(&self) -> bool {
        self.0.first().is_some_and(|range| range.subnet.is_v4())
    }
}

/// Checks sets against each other.
pub(super) fn check(sets: &[Ranges], version: Version) -> Result<()> {
    if sets.is_empty() {
        return Err(Error::invalid("no IP ranges specified"));
    }
    let v4 = sets.iter().filter(|set| set.is_v4()).count();
    if (v4 > 1 || sets.len() - v4 > 1) && version < SEVERAL.parse()? {
        return Err(Error::invalid(format!(
            "CNI version {version} does not support more than 1 address per family"
        )));
    }
    for (at, set) in sets.iter().enumerate() {
        let overlaps =
            |other: &Ranges| other.0.iter().any(|other| set.0.iter().any(|range| range.overlaps(other)));
        if let Some(other) = sets.iter().skip(at + 1).position(overlaps) {
            return Err(Error::invalid(format!("range set {at} overlaps with {}", at + 1 + other)));
        }
    }
    Ok(())
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&all.join(","))
    }
}

/// All addresses of a set, from the one behind the last that was given, once around.
pub(super) struct Walk<'a> {
    set: &'a Ranges,
    /// The range and the address that is next.
    at: Option<(usize, IpAddr)>,
    begun: Option<(usize, IpAddr)>,
}

impl<'a> Walk<'a> {
    pub fn new(set: &'a Ranges, last: Option<IpAddr>) -> Self {
        let behind = |last: IpAddr| {
            let (at, range) = set.0.iter().enumerate().find(|(_, range)| range.contains(last))?;
            Some(step(set, at, range, last))
        };
        let first = || set.0.first().map(|range| (0, range.start));
        let at = last.and_then(behind).or_else(first);
        Self { set, at, begun: None }
    }
}

/// The address behind `ip`; behind a range's last one that of the next range.
fn step(set: &Ranges, at: usize, range: &Range, ip: IpAddr) -> (usize, IpAddr) {
    if ip < range.end {
        return (at, next(ip));
    }
    let at = (at + 1) % set.0.len().max(1);
    (at, set.0.get(at).map_or(ip, |range| range.start))
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a Range, IpAddr);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let here = self.at.filter(|here| self.begun != Some(*here))?;
            self.begun = self.begun.or(Some(here));
            let range = self.set.0.get(here.0)?;
            self.at = Some(step(self.set, here.0, range, here.1));
            if here.1 != range.gateway {
                return Some((range, here.1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn set(ranges: Value) -> Result<Ranges> {
        Ranges::of(serde_json::from_value(ranges).unwrap(), 0)
    }

    fn walk(ranges: Value, last: Option<&str>) -> Vec<String> {
        let set = set(ranges).unwrap();
        let last = last.map(|ip| ip.parse().unwrap());
        Walk::new(&set, last).map(|(_, ip)| ip.to_string()).collect()
    }

    #[test]
    fn a_walk_goes_once_around_and_past_the_gateway() {
        let small = json!([{"subnet": "10.0.0.0/29"}]);
        assert_eq!(walk(small.clone(), None), ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let wanted = ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        assert_eq!(walk(small.clone(), Some("10.0.0.4")), wanted);
        assert_eq!(walk(small.clone(), Some("10.0.0.6"))[0], "10.0.0.2");
        assert_eq!(walk(small, Some("192.168.0.1"))[0], "10.0.0.2");
        let two = json!([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.10", "gateway": "10.0.0.10"},
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.2"}]);
        assert_eq!(walk(two.clone(), None), ["10.0.0.9", "10.1.0.2"]);
        assert_eq!(walk(two, Some("10.0.0.9")), ["10.1.0.2", "10.0.0.9"]);
        let v6 = json!([{"subnet": "fd00::/126"}]);
        assert_eq!(walk(v6, None), ["fd00::2", "fd00::3"]);
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused_with_the_reason() {
        for (ranges, reason) in [
            (json!([]), "empty range set"),
            (json!([{}]), "subnet is missing"),
            (json!([{"subnet": "10.0.0.0/31"}]), "too small"),
            (json!([{"subnet": "10.0.0.1/24"}]), "the network address is 10.0.0.0"),
            (
                json!([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]),
                "rangeStart 10.0.1.1 not in network",
            ),
            (json!([{"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}]), "rangeEnd fd00::1 not in network"),
            (json!([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]), "before"),
            (json!([{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]), "mixed address families"),
            (json!([{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/16"}]), "overlap"),
        ] {
            let error = set(ranges).unwrap_err().to_string();
            assert!(error.starts_with("invalid range set 0") && error.contains(reason), "{error}");
        }
        let sets = [
            set(json!([{"subnet": "10.0.0.0/24"}])).unwrap(),
            set(json!([{"subnet": "10.0.0.0/16"}])).unwrap(),
        ];
        let version = |text: &str| text.parse().unwrap();
        assert_eq!(check(&sets, version("1.0.0")).unwrap_err().to_string(), "range set 0 overlaps with 1");
        assert!(check(&sets, version("0.2.0")).unwrap_err().to_string().contains("more than 1 address"));
        assert!(check(&[], version("1.0.0")).is_err());
    }

    proptest! {
        #[test]
        fn a_walk_gives_each_address_once(prefix in 24u8..=30, start: u8, last: u8) {
            let subnet = Cidr { address: IpAddr::from([10, 0, 0, start]), prefix }.network();
            let set = set(json!([{"subnet": subnet.to_string()}])).unwrap();
            let mut found: Vec<IpAddr> = Walk::new(&set, Some(IpAddr::from([10, 0, 0, last]))).map(|(_, ip)| ip).collect();
            prop_assert_eq!(found.len(), (1 << (32 - prefix)) - 3);
            found.sort();
            found.dedup();
            prop_assert_eq!(found.len(), (1 << (32 - prefix)) - 3);
            prop_assert!(found.iter().all(|ip| set.range_of(*ip).is_some()));
        }
    }
}
