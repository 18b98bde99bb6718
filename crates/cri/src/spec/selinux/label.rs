//! A label: `user:role:type[:level]`.

use std::fmt;

use api::cri::SeLinuxOption;
use types::{Error, Result};

/// A label, or the parts of one that somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) user: String,
    pub(super) role: String,
    pub(super) kind: String,
    /// Such as `s0:c1,c2`; empty without levels.
    pub(super) level: String,
}

impl Label {
    /// From its text; of nothing, nothing.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(user), Some(role), Some(kind), level) => {
                Ok(Self { user, role, kind, level: level.unwrap_or_default() })
            }
            _ => Err(Error::invalid(format!("invalid Label {text:?}"))),
        }
    }

    /// What a request asks for.
    pub(super) fn of_request(asked: &SeLinuxOption) -> Result<Self> {
        let SeLinuxOption { user, role, r#type: kind, level } = asked.clone();
        for (field, part) in [("user", &user), ("role", &role), ("type", &kind)] {
            if !part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
                return Err(Error::invalid(format!("selinux_options: {field}: {part:?} is no plain name")));
            }
        }
        if !level.is_empty() && !is_level(&level) {
            return Err(Error::invalid(format!("the format of 'level' {level:?} is not correct")));
        }
        Ok(Self { user, role, kind, level })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(f, ":{}", self.level) }
    }
}

/// `s0[-s1][:c1[.c2][,c3...]]`.
fn is_level(text: &str) -> bool {
    let (sensitivities, categories) = match text.split_once(':') {
        Some((sensitivities, categories)) => (sensitivities, Some(categories)),
        None => (text, None),
    };
    let sensitivity = |text: &str| number(text, 's').is_some_and(|digits| digits.len() == 1);
    let category = |text: &str| number(text, 'c').is_some_and(|digits| digits.len() <= 4);
    let range = |text: &str| match text.split_once('.') {
        Some((first, last)) => category(first) && category(last),
        None => category(text),
    };
    let low = match sensitivities.split_once('-') {
        Some((low, high)) => sensitivity(low) && sensitivity(high),
        None => sensitivity(sensitivities),
    };
    low && categories.is_none_or(|categories| categories.split(',').all(range))
}

fn number(text: &str, letter: char) -> Option<&str> {
    let digits = text.strip_prefix(letter)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_upstreams_pattern() {
        for good in ["s0", "s0-s1", "s0:c1", "s0:c1,c2", "s0-s0:c1.c3,c9", "s0:c1023"] {
            assert!(is_level(good), "{good:?}");
        }
        for bad in
            ["", "s", "s10", "s0:", "s0:c", "s0:c12345", "s0:c1,", "s0-", "c1", "s0:c1.c2.c3", "s0 ", "s0\n"]
        {
            assert!(!is_level(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_label_is_what_was_parsed() {
        for text in ["a:b:c", "a:b:c:s0:c1,c2"] {
            assert_eq!(Label::parse(text).unwrap().to_string(), text);
        }
        assert!(Label::parse("a:b").is_err());
        let asked = SeLinuxOption { r#type: "a:b".to_owned(), ..Default::default() };
        assert!(Label::of_request(&asked).is_err());
    }
}
