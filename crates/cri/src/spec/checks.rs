//! Texts of a request that could mean something else further down: refused, by the name of their field.

use types::{Error, Result};

/// Longer than any argument or variable that the kernel takes (MAX_ARG_STRLEN).
const LONGEST: usize = 128 << 10;

/// A text that the kernel takes: without a NUL, where it would end.
pub(super) fn text(field: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid(format!("{field}: {text:?} contains a NUL byte")));
    }
    if text.len() >= LONGEST {
        return Err(Error::invalid(format!("{field}: {} bytes are too many", text.len())));
    }
    Ok(())
}

/// A text of one line, as files and the kernel's parameters need it.
pub(super) fn line(field: &str, value: &str) -> Result<()> {
    text(field, value)?;
    match value.chars().find(|c| c.is_control()) {
        Some(_) => Err(Error::invalid(format!("{field}: {value:?} contains a control character"))),
        None => Ok(()),
    }
}

/// The name of a host, or none.
pub fn hostname(name: &str) -> Result<()> {
    line("hostname", name)?;
    if name.len() > 64 || name.contains(['/', ':']) || name.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("hostname: {name:?} is no name of a host")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_early_or_begin_a_line_is_refused_by_name() {
        assert!(text("args", "a\nb").is_ok());
        assert_eq!(text("args", "a\0b").unwrap_err().to_string(), "args: \"a\\0b\" contains a NUL byte");
        assert!(text("args", &"x".repeat(LONGEST)).is_err());
        assert!(line("x", "a b").is_ok() && line("x", "a\rb").is_err());
    }

    #[test]
    fn names_of_hosts_have_no_lines_paths_or_spaces() {
        for good in ["", "web-0", "web-0.example.org", "Ünïcode"] {
            assert!(hostname(good).is_ok(), "{good:?}");
        }
        for bad in ["a\n", "a\0", "a:b", "../x", "a b", &"x".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
