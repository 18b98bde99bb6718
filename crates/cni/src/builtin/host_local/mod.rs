//! Addresses of ranges, kept as files: the plugin `host-local`, whose files these are.
//!
//! ```text
//!  ranges    which addresses there are, and which one is next
//!  store     which ones are taken
//! ```

mod ranges;
mod resolv;
mod store;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use types::{Error, Result};

use self::ranges::{Ranges, Walk};
use self::store::{Key, Locked, Store};
use super::asked::Asked;
use crate::result::{Current, Dns, IpConfig, Route, nullable};
use crate::version::Version;

/// Where the files are, unless the configuration says otherwise.
const DATA: &str = "/var/lib/cni/networks";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    ipam: Option<Ipam>,
    #[serde(rename = "runtimeConfig", deserialize_with = "nullable")]
    runtime: Runtime,
    #[serde(deserialize_with = "nullable")]
    args: Args,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ipam {
    /// A single range, as it was written once.
    #[serde(flatten)]
    range: ranges::Written,
    #[serde(deserialize_with = "nullable")]
    ranges: Vec<Vec<ranges::Written>>,
    #[serde(deserialize_with = "nullable")]
    routes: Vec<Route>,
    #[serde(rename = "dataDir", deserialize_with = "nullable")]
    data: String,
    #[serde(rename = "resolvConf", deserialize_with = "nullable")]
    resolv: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Runtime {
    #[serde(rename = "ipRanges", deserialize_with = "nullable")]
    ranges: Vec<Vec<ranges::Written>>,
    #[serde(deserialize_with = "addresses")]
    ips: Vec<IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    #[serde(deserialize_with = "nullable")]
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    #[serde(deserialize_with = "addresses")]
    ips: Vec<IpAddr>,
}

/// What a configuration means.
struct Config {
    sets: Vec<Ranges>,
    wanted: Vec<IpAddr>,
    routes: Vec<Route>,
    dir: PathBuf,
    resolv: String,
}

impl Config {
    fn of(asked: &Asked) -> Result<Self> {
        let Written { ipam, runtime, args } = asked.parse()?;
        let ipam = ipam.ok_or_else(|| Error::invalid("IPAM config missing 'ipam' key"))?;
        let asked_for = asked.argument("IP").map(|text| address(text).map_err(Error::invalid)).transpose()?;
        let single = ipam.range.is_written().then(|| vec![ipam.range]);
        let written = runtime.ranges.into_iter().chain(single).chain(ipam.ranges);
        let numbered = written.enumerate().map(|(at, set)| Ranges::of(set, at));
        let sets: Vec<Ranges> = numbered.collect::<Result<_>>()?;
        ranges::check(&sets, asked.version().parse::<Version>()?)?;
        crate::names::network(asked.network())?;
        let data = if ipam.data.is_empty() { DATA.to_owned() } else { ipam.data };
        Ok(Self {
            sets,
            wanted: asked_for.into_iter().chain(args.cni.ips).chain(runtime.ips).collect(),
            routes: ipam.routes,
            dir: PathBuf::from(data).join(asked.network()),
            resolv: ipam.resolv,
        })
    }
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let config = Config::of(asked)?;
    let dns = if config.resolv.is_empty() { Dns::default() } else { resolv::read(&config.resolv)? };
    let key = Key::new(&asked.at.container, &asked.at.interface);
    let store = Store::open(&config.dir)?.lock(asked.time)?;
    let ips = reserve(&config, &store, &key)?;
    Ok(Current { ips, routes: config.routes, dns, ..Current::default() })
}

/// One address of each set, or none.
fn reserve(config: &Config, store: &Locked, key: &Key) -> Result<Vec<IpConfig>> {
    let before = store.of(key)?;
    let mut wanted = config.wanted.clone();
    wanted.dedup();
    let mut taken: Vec<IpConfig> = Vec::new();
    let mut each = || {
        for (at, set) in config.sets.iter().enumerate() {
            let position = wanted.iter().position(|ip| set.range_of(*ip).is_some());
            let asked_for = position.map(|position| wanted.remove(position));
            let found = match asked_for {
                Some(ip) => reserve_this(set, store, (key, at), ip),
                None => reserve_next(set, store, (key, at), &before),
            };
            let failed = |error: Error| error.context(format!("failed to allocate for range {at}"));
            taken.push(found.map_err(failed)?);
        }
        match wanted.as_slice() {
            [] => Ok(()),
            left => {
                let left: Vec<String> = left.iter().map(IpAddr::to_string).collect();
                Err(Error::invalid(format!("failed to allocate all requested IPs: {}", left.join(" "))))
            }
        }
    };
    match each() {
        Ok(()) => Ok(taken),
        Err(error) => {
            let released: Result<()> = taken.iter().try_for_each(|ip| store.release(ip.address.address));
            Err(match released {
                Ok(()) => error,
                Err(left) => error.context(format!("addresses stay reserved ({left})")),
            })
        }
    }
}

fn reserve_this(set: &Ranges, store: &Locked, (key, at): (&Key, usize), ip: IpAddr) -> Result<IpConfig> {
    let range = set.range_of(ip).ok_or_else(|| Error::invalid(format!("{ip} not in range set {set}")))?;
    if ip == range.gateway {
        return Err(Error::invalid(format!("requested ip {ip} is subnet's gateway")));
    }
    if !store.reserve(ip, key, at)? {
        let text = format!("requested IP address {ip} is not available in range set {set}");
        return Err(Error::unknown(text));
    }
    Ok(range.config(ip))
}

fn reserve_next(
    set: &Ranges,
    store: &Locked,
    (key, at): (&Key, usize),
    before: &[IpAddr],
) -> Result<IpConfig> {
    if let Some(ip) = before.iter().find(|ip| set.range_of(**ip).is_some()) {
        let text =
            format!("{ip} has been allocated to {}, duplicate allocation is not allowed", key.container());
        return Err(Error::already_exists(text));
    }
    for (range, ip) in Walk::new(set, store.last(at)) {
        if store.reserve(ip, key, at)? {
            return Ok(range.config(ip));
        }
    }
    Err(Error::exhausted(format!("no IP addresses available in range set: {set}")))
}

pub(super) fn del(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    let Some(store) = Store::open_if_there(&config.dir)? else { return Ok(()) };
    let key = Key::new(&asked.at.container, &asked.at.interface);
    let known = asked.previous().unwrap_or_default().unwrap_or_default();
    let known: Vec<IpAddr> = known.ips.iter().map(|ip| ip.address.address).collect();
    store.lock(asked.time)?.release_all(&key, &known, config.sets.len())
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    let key = Key::new(&asked.at.container, &asked.at.interface);
    let found = match Store::open_if_there(&config.dir)? {
        Some(store) => !store.lock(asked.time)?.of(&key)?.is_empty(),
        None => false,
    };
    if !found {
        let text = format!("host-local: failed to find address added by container {}", key.container());
        return Err(Error::precondition(text));
    }
    Ok(())
}

pub(super) fn gc(asked: &Asked) -> Result<()> {
    let (config, claimed) = (Config::of(asked)?, asked.claimed()?);
    let claimed: Vec<Key> = claimed.iter().map(|(id, name)| Key::new(id, name)).collect();
    match Store::open_if_there(&config.dir)? {
        Some(store) => store.lock(asked.time)?.release_others(&claimed),
        None => Ok(()),
    }
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    Config::of(asked).map(drop)
}

/// An address with or without a prefix, which does not matter.
fn address(text: &str) -> std::result::Result<IpAddr, String> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    let parsed: std::result::Result<IpAddr, _> = bare.trim().parse();
    parsed.map(|address| address.to_canonical()).map_err(|_| format!("invalid IP address {text:?}"))
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<IpAddr>, D::Error> {
    let texts: Option<Vec<String>> = Option::deserialize(deserializer)?;
    let parsed =
        texts.unwrap_or_default().into_iter().map(|text| address(&text).map_err(serde::de::Error::custom));
    parsed.collect()
}
