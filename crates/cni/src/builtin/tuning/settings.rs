//! Settings below `/proc/sys/net`, and which of them are allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use regex::Regex;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use types::{Error, Result, ResultExt};

/// Patterns of the names that are allowed, one a line. Without it all are.
const ALLOWED: &str = "/etc/cni/tuning/allowlist.conf";

/// The files of these settings, with their values.
///
/// # Errors
/// If one is not of the network, or not allowed, or no name at all.
pub(super) fn allowed(
    settings: &BTreeMap<String, String>,
    interface: &str,
) -> Result<Vec<(PathBuf, String)>> {
    let list = match fs::read_to_string(ALLOWED) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.context(|| format!("read {ALLOWED}"))?),
    };
    if let Some(list) = &list {
        check(settings, list)?;
    }
    settings.iter().map(|(name, value)| Ok((path(name, interface)?, value.clone()))).collect()
}

fn check(settings: &BTreeMap<String, String>, list: &str) -> Result<()> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let patterns =
        lines.map(|line| Regex::new(line).map_err(|error| Error::invalid(format!("{ALLOWED}: {error}"))));
    let patterns: Vec<Regex> = patterns.collect::<Result<_>>()?;
    match settings.keys().find(|name| !patterns.iter().any(|pattern| pattern.is_match(name))) {
        Some(name) => Err(Error::invalid(format!("sysctl {name} is not allowed by {ALLOWED}"))),
        None => Ok(()),
    }
}

/// Dots are what parts stand between, as slashes; the interface's own name may have dots, so that it comes in last.
fn path(name: &str, interface: &str) -> Result<PathBuf> {
    let bad = || Error::invalid(format!("invalid net sysctl key: {name:?}"));
    let plain = name.replace('.', "/");
    let mut parts = plain.split('/').filter(|part| !part.is_empty());
    if parts.next() != Some("net") || name.contains('\0') {
        return Err(bad());
    }
    let mut path = PathBuf::from("/proc/sys/net");
    let rest: Vec<String> = parts.map(|part| part.replace("IFNAME", interface)).collect();
    if rest.is_empty() || rest.iter().any(|part| part == "." || part == "..") {
        return Err(bad());
    }
    path.extend(rest);
    Ok(path)
}

/// An object whose names are different: of two values for one setting the wrong one could be meant.
pub(super) fn unique<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of settings")
        }

        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut settings = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if settings.insert(name, value).is_some() {
                    return Err(A::Error::custom("duplicated sysctl keys are not allowed"));
                }
            }
            Ok(settings)
        }
    }
    deserializer.deserialize_any(Unique)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_setting_is_one_of_the_network() {
        let shown = |name: &str| path(name, "eth0.7").map(|path| path.display().to_string());
        assert_eq!(shown("net.core.somaxconn").unwrap(), "/proc/sys/net/core/somaxconn");
        assert_eq!(
            shown("net/ipv4/conf/IFNAME/rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.7/rp_filter"
        );
        for bad in ["", "net", "kernel.panic", "../../kernel/panic", "net.\0", "netx.core"] {
            assert!(shown(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_says_what_is_allowed() {
        let settings = |name: &str| BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let list = "^net\\.core\\.somaxconn$\n\n ^net.ipv4 \n";
        assert!(
            check(&settings("net.core.somaxconn"), list).is_ok()
                && check(&settings("net.ipv4.x"), list).is_ok()
        );
        assert!(
            check(&settings("net.core.x"), list).is_err() && check(&settings("net.core.x"), "(").is_err()
        );
    }

    #[test]
    fn two_values_for_one_setting_are_none() {
        let parse = |text: &str| unique(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(parse(r#"{"a":"1","b":"2"}"#).unwrap().len(), 2);
        assert!(parse("null").unwrap().is_empty());
        assert!(parse(r#"{"a":"1","a":"2"}"#).unwrap_err().to_string().contains("duplicated"));
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_network(name in "[net./\\PC]{0,30}") {
            if let Ok(path) = path(&name, "eth0") {
                prop_assert!(path.starts_with("/proc/sys/net") && path.components().all(|part| part.as_os_str() != ".."));
            }
        }
    }
}
