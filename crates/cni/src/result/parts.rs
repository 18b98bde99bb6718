//! What results of all versions are made of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use types::{Error, Result};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address itself, not the network's.
    pub address: IpAddr,
    /// Bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether it is of version 4.
    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// An address alone, without those beside it.
    pub fn single(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its network: no bit is set behind the prefix.
    pub fn network(&self) -> Self {
        Self { address: from_bits(bits(self.address) & self.mask(), self.address), ..*self }
    }

    /// Whether `address` is in its network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4() && (bits(address) ^ bits(self.address)) & self.mask() == 0
    }

    /// The first address behind the network's own, which gateways have by habit.
    pub fn first(&self) -> IpAddr {
        next(self.network().address)
    }

    /// Ones for the prefix, right-aligned as [`bits`] has addresses.
    pub(crate) fn mask(&self) -> u128 {
        let width = if self.is_v4() { 32 } else { 128 };
        let all = if self.is_v4() { u32::MAX.into() } else { u128::MAX };
        let free = u32::from(width - self.prefix.min(width));
        all & u128::MAX.checked_shl(free).unwrap_or_default()
    }
}

/// An address as a number, right-aligned.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The reverse, of the kind of `like`; the lower bits, where there are more.
pub(crate) fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        #[expect(clippy::cast_possible_truncation, reason = "an address of version 4 has no more")]
        IpAddr::V4(_) => IpAddr::from((bits as u32).to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from(bits.to_be_bytes()),
    }
}

/// The next address; behind the last one is the first.
pub(crate) fn next(address: IpAddr) -> IpAddr {
    from_bits(bits(address).wrapping_add(1), address)
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid CIDR address: {}", text.escape_default()));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let written: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if written.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.bytes().all(|digit| digit.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= longest).ok_or_else(bad)?;
        // ::ffff:10.0.0.1/120 is 10.0.0.1/24.
        let address = written.to_canonical();
        let mapped = address.is_ipv4() && written.is_ipv6();
        Ok(Self { address, prefix: if mapped { prefix.saturating_sub(96) } else { prefix } })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: Cidr,
    /// By way of whom.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    pub gw: Option<IpAddr>,
    /// The largest packet, or 0.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub mtu: i64,
    /// The largest segment of TCP, or 0.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub advmss: i64,
    /// Lower is preferred.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub priority: i64,
    /// Which table, if not the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<i64>,
    /// As the kernel counts scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<i64>,
}

impl Route {
    /// A route that says no more than where it leads.
    pub(crate) fn to(dst: Cidr) -> Self {
        Self { dst, gw: None, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
    }

    /// What the first versions can say of it.
    pub(super) fn bare(&self) -> Self {
        let Self { dst, gw, .. } = *self;
        Self { dst, gw, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
    }
}

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of servers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub domain: String,
    /// Domains for short names, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub search: Vec<String>,
    /// For the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What may be `null`, which is the same as nothing.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An address, or none: absent, `null` or empty.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let parse = |text: String| {
        let address: IpAddr = text.parse().map_err(|_| {
            serde::de::Error::custom(format!("invalid IP address: {}", text.escape_default()))
        })?;
        Ok(address.to_canonical())
    };
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Refuses control characters in any text of a result: it becomes lines of files and of logs.
pub(super) fn refuse_controls(value: &Value) -> Result<()> {
    let clean = |text: &String| match text.chars().any(char::is_control) {
        true => Err(Error::unknown(format!("a control character in the result: {}", text.escape_debug()))),
        false => Ok(()),
    };
    match value {
        Value::String(text) => clean(text),
        Value::Array(values) => values.iter().try_for_each(refuse_controls),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| clean(key).and(refuse_controls(value))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
