//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

use types::{Error, Result};

/// The one that is spoken here.
pub const CURRENT: &str = "1.1.0";
/// Those whose results are understood.
pub const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", CURRENT];
/// CHECK, and results for DEL.
pub const WITH_CHECK: Version = Version([0, 4, 0]);
/// STATUS and GC.
pub const WITH_STATUS: Version = Version([1, 1, 0]);

/// A version as a number: what a configuration can do is a question of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl FromStr for Version {
    type Err = Error;

    /// One to three numbers; no version at all is the first one.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self([0, 1, 0]));
        }
        let mut numbers = [0; 3];
        for (at, part) in text.split('.').enumerate() {
            let number = numbers
                .get_mut(at)
                .ok_or_else(|| Error::invalid(format!("invalid version {text:?}: too many parts")))?;
            *number = part
                .parse()
                .map_err(|_| Error::invalid(format!("invalid version {text:?}: {part:?} is no number")))?;
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, micro]) = self;
        write!(f, "{major}.{minor}.{micro}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order_and_none_is_the_first() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("") == version("0.1.0") && version("0.3.1") < WITH_CHECK);
        assert!(version("0.10.0") > version("0.9.9") && version("1") == version("1.0.0"));
        let ordered: Vec<_> = SUPPORTED.iter().map(|text| version(text)).collect();
        assert!(ordered.is_sorted());
        for bad in ["1.0.0.0", "a", "1.", "-1", "1.0.x", "4294967296"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
