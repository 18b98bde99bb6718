//! Hardware addresses.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use types::{Error, Result};

/// A hardware address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub [u8; 6]);

impl Mac {
    /// One that was not given to a maker of hardware, and to no group.
    pub fn random() -> Self {
        let [a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        Self([a & 0xfc | 0x02, b, c, d, e, f])
    }

    /// As the kernel has it.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six numbers of two digits, with colons or with hyphens.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid hardware address {text:?}"));
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let digits = |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let part = parts.next().filter(digits).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_pairs_of_digits_are_an_address() {
        let mac: Mac = "02:00:0a:BB:cc:fF".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:0a:bb:cc:ff");
        assert_eq!("02-00-0a-bb-cc-ff".parse::<Mac>().unwrap(), mac);
        for bad in [
            "",
            "02:00:0a:bb:cc",
            "02:00:0a:bb:cc:ff:00",
            "2:0:a:b:c:f",
            "02:00:0a:bb:cc:gg",
            "02:00:0a:bb:cc:+f",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert_eq!(Mac::random().0[0] & 3, 2);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(bytes: [u8; 6], text in "\\PC{0,20}") {
            prop_assert_eq!(Mac(bytes).to_string().parse::<Mac>().unwrap(), Mac(bytes));
            let _ = text.parse::<Mac>();
        }
    }
}
