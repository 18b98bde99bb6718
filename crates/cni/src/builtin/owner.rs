//! Whose a link or a rule is: written on it, so that it is found whatever else is lost, and by nobody else.

use std::fmt;

use types::{Error, Result};

use crate::names;

/// As much as a rule can carry, and a link.
const LONGEST: usize = 250;
/// The number of a comment in a rule's data.
const COMMENT: u8 = 0;
/// Before the rest, on links: others write on links, too.
const MARK: &str = "cni:";

/// A container's interface in a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    network: String,
    pub container: String,
    pub interface: String,
}

impl Owner {
    /// # Errors
    /// If a name is none, or they are too long together.
    pub fn new(network: &str, container: &str, interface: &str) -> Result<Self> {
        names::network(network)?;
        names::container(container)?;
        names::interface(interface)?;
        let owner =
            Self { network: network.into(), container: container.into(), interface: interface.into() };
        let text = owner.to_string();
        if text.len() > LONGEST {
            return Err(Error::invalid(format!("{text} is too long: {LONGEST} bytes is the most")));
        }
        Ok(owner)
    }

    /// Whether it is in `network` and none of `claimed`.
    pub fn is_stale(&self, network: &str, claimed: &[(String, String)]) -> bool {
        self.network == network
            && !claimed.iter().any(|(id, name)| *id == self.container && *name == self.interface)
    }

    /// As a link's alias.
    pub fn alias(&self) -> String {
        format!("{MARK}{self}")
    }

    /// The reverse.
    pub fn of_alias(alias: &str) -> Option<Self> {
        Self::read(alias.strip_prefix(MARK)?)
    }

    /// As a rule's data.
    pub fn comment(&self) -> Vec<u8> {
        comment(&self.to_string())
    }

    /// The reverse.
    pub fn of_comment(mut data: &[u8]) -> Option<Self> {
        while let [kind, length, rest @ ..] = data {
            let (value, more) = rest.split_at_checked((*length).into())?;
            if *kind == COMMENT {
                return Self::read(std::str::from_utf8(value.strip_suffix(&[0])?).ok()?);
            }
            data = more;
        }
        None
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let owner = Self::new(parts.next()?, parts.next()?, parts.next()?).ok()?;
        parts.next().is_none().then_some(owner)
    }
}

/// A comment as a rule's data: a number, a length, a text and its end.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], text.as_bytes(), &[0]].concat()
}

/// None of the names has a slash.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.interface)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_owner_is_stale_if_nobody_claims_it_in_its_network() {
        let owner = Owner::new("net", "c1", "eth0").unwrap();
        let claimed = |id: &str, name: &str| vec![(id.to_owned(), name.to_owned())];
        assert!(owner.is_stale("net", &[]) && owner.is_stale("net", &claimed("c1", "eth1")));
        assert!(!owner.is_stale("net", &claimed("c1", "eth0")) && !owner.is_stale("other", &[]));
    }

    #[test]
    fn names_that_are_none_or_too_long_own_nothing() {
        for (network, container, interface) in
            [("a/b", "c", "d"), ("", "c", "d"), ("n", "../x", "d"), ("n", "c", "d/e")]
        {
            assert!(Owner::new(network, container, interface).is_err());
        }
        assert!(Owner::new(&"n".repeat(240), "c", "eth0").is_ok());
        assert!(Owner::new(&"n".repeat(245), "c", "eth0").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(network in "[a-z0-9][a-z0-9_.-]{0,60}", container in "[a-z0-9]{1,64}", name in "[a-z0-9@]{1,15}") {
            let owner = Owner::new(&network, &container, &name).unwrap();
            prop_assert_eq!(Owner::of_comment(&owner.comment()), Some(owner.clone()));
            prop_assert_eq!(Owner::of_alias(&owner.alias()), Some(owner));
        }

        #[test]
        fn any_data_is_read_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,40}") {
            let _ = Owner::of_comment(&data);
            let _ = Owner::of_alias(&text);
        }
    }
}
