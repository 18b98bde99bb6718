//! `vendor.com/class=device`.

use std::collections::BTreeMap;
use std::str::FromStr;

use types::{Error, Result};

/// Annotations that name devices.
const ANNOTATION: &str = "cdi.k8s.io/";

/// A device's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceName {
    /// `vendor.com/class`.
    pub(super) kind: String,
    /// In its class.
    pub(super) name: String,
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid CDI device name {text:?}"));
        let (kind, name) = text.split_once('=').ok_or_else(bad)?;
        if !is_kind(kind) || !is_name(name) {
            return Err(bad());
        }
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

/// Whether it is `vendor.com/class`.
pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| {
        let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
        begins(vendor) && words(vendor, "_-.") && begins(class) && words(class, "_-")
    })
}

/// Whether it can be a device's name in its class.
pub(super) fn is_name(text: &str) -> bool {
    words(text, "_-.:")
}

/// Letters and digits at both ends, and between them these too.
fn words(text: &str, between: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || between.contains(c))
}

/// The devices that annotations name.
pub(super) fn of_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for value in annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION)).map(|(_, value)| value) {
        for name in value.split(',') {
            name.parse::<DeviceName>()?;
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_vendor_a_class_and_a_device() {
        for good in ["vendor.com/gpu=0", "a/b=c", "v-1.x/c_2=GPU-1:0.1"] {
            assert!(good.parse::<DeviceName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "vendor.com/gpu",
            "vendor.com=0",
            "/gpu=0",
            "v/=0",
            "v/c=",
            "v/c=-a",
            "1v/c=a",
            "v/c/d=a",
            "v/c=a b",
        ] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn annotations_of_others_are_not_looked_at() {
        let of = |key: &str, value: &str| of_annotations(&[(key.to_owned(), value.to_owned())].into());
        assert_eq!(of("cdi.k8s.io/x", "a/b=c,a/b=d").unwrap(), ["a/b=c", "a/b=d"]);
        assert!(of("cdi.k8s.io/x", "a/b=c,nope").is_err());
        assert!(of("example.com/x", "nope").unwrap().is_empty());
    }
}
