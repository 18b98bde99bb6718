//! Lines about what went wrong on the way, on stderr, in the form of upstream's logger.

use std::io::IsTerminal;
use std::time::SystemTime;

use types::Error;

use crate::go;

/// An error that does not end the command.
pub fn error(message: &str, error: Option<&Error>) {
    line("error", "31mERRO", message, error);
}

/// What was done.
pub fn info(message: &str) {
    line("info", "36mINFO", message, None);
}

/// What would be done, with its fields.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    let all: String = fields.iter().map(|(name, text)| format!(" {name}={}", value(text))).collect();
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[37mDEBU\x1b[0m[0000] {message:<44} {all}");
        return;
    }
    eprintln!("time=\"{}\" level=debug msg={}{all}", now(), value(message));
}

/// Something that somebody should know.
pub fn warn(message: &str, error: Option<&Error>) {
    line("warning", "33mWARN", message, error);
}

fn line(level: &str, coloured: &str, message: &str, error: Option<&Error>) {
    if std::io::stderr().is_terminal() {
        let error =
            error.map(|e| format!(" \x1b[31merror\x1b[0m={}", go::quote(&e.to_string()))).unwrap_or_default();
        eprintln!("\x1b[{coloured}\x1b[0m[0000] {message:<44} {error}");
        return;
    }
    let error = error.map(|e| format!(" error={}", value(&e.to_string()))).unwrap_or_default();
    eprintln!("time=\"{}\" level={level} msg={}{error}", now(), value(message));
}

/// The time to the second, as the logger writes it.
fn now() -> String {
    let (seconds, _) = types::time::unix(SystemTime::now());
    types::time::rfc3339(types::time::from_unix(seconds, 0))
}

/// Quoted where it holds something else than letters, digits and `-._/@^+`.
fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { go::quote(text) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_quoted_where_they_need_it() {
        assert_eq!(super::value("done"), "done");
        assert_eq!(super::value("a \"b\""), "\"a \\\"b\\\"\"");
    }
}
