//! Names of plugins: an index of two digits, which is the order in which they are asked, and a name.

use types::{Error, Result};

/// Takes `NN-name` apart.
pub fn parse(file: &str) -> Result<(&str, &str)> {
    let (index, name) = file
        .split_once('-')
        .ok_or_else(|| Error::invalid(format!("invalid plugin name {file:?}, idx-pluginname expected")))?;
    check_index(index)?;
    Ok((index, name))
}

/// Refuses what is no index.
pub fn check_index(index: &str) -> Result<()> {
    if index.len() != 2 {
        return Err(Error::invalid(format!("invalid plugin index {index:?}, must be 2 digits")));
    }
    if !index.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::invalid(format!("invalid plugin index {index:?} (not [0-9][0-9])")));
    }
    Ok(())
}

/// Refuses what is no name.
pub fn check_name(name: &str) -> Result<()> {
    const LONGEST: usize = 256;
    if name.is_empty() || name.len() > LONGEST {
        return Err(Error::invalid("invalid plugin name: name is empty, or too long"));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.+".contains(*c))) {
        None => Ok(()),
        Some(wrong) => {
            Err(Error::invalid(format!("invalid plugin name {name:?}: contains invalid character {wrong:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_two_digits_and_a_name_is_plain() {
        assert_eq!(parse("10-device-injector").unwrap(), ("10", "device-injector"));
        for wrong in ["logger", "1-logger", "100-logger", "ab-logger", "é-logger"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        check_name("a.b+c_d-1").unwrap();
        for wrong in ["", "a b", "a/b", "ä", &"a".repeat(300)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
