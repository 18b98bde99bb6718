//! Signals by name or number, as clients, images and kubelets write them.

use crate::error::{Error, Result};

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`, as a number of x86 and ARM.
pub fn number(text: &str) -> Result<u32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if number == 0 { Err(bad()) } else { Ok(number) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |base: i64, rest: &str| {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i64>().ok()? };
        u32::try_from(base + offset).ok().filter(|number| (34..=64).contains(number))
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(34, rest).ok_or_else(bad);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(64, rest).ok_or_else(bad);
    }
    let found = NAMES.iter().position(|known| *known == name);
    let other = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    found.and_then(|at| u32::try_from(at + 1).ok()).or(other).ok_or_else(bad)
}

/// From 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const ALIASES: [(&str, u32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, wanted) in
            [("9", 9), ("kill", 9), ("SIGTERM", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("sys", 31)]
        {
            assert_eq!(number(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "0", "-1", "SIG", "SIGNOPE", "RTMIN+99", "RTMINx"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert_eq!(number("x").unwrap_err().to_string(), "invalid signal: x");
    }
}
