//! How Go prints: columns, JSON, sizes, durations, times. Scripts parse ctr's output, so it is the same to the byte.

pub mod columns;
pub mod duration;
pub mod json;
pub mod size;
pub mod time;

pub use columns::Columns;

use types::Labels;
use types::error::os_text;

/// Go's `%q`: a double-quoted string literal.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `key=value` pairs in order, joined by commas.
pub fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// [`labels`], or a dash for none.
pub fn labels_or_dash(all: &Labels) -> String {
    if all.is_empty() { "-".into() } else { labels(all) }
}

/// A gRPC code by the name that Go gives it.
pub fn code(code: tonic::Code) -> String {
    match code {
        tonic::Code::Ok => "OK".into(),
        tonic::Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    }
}

/// What `path.Clean` makes of a rooted path.
pub fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What Go says when `operation` on a path fails: `open /x: no such file or directory`.
pub fn path_error(operation: &str, path: impl AsRef<std::path::Path>, error: std::io::Error) -> types::Error {
    let text = format!("{operation} {}: {}", path.as_ref().display(), os_text(&error));
    types::Error::new(types::Error::from(error).class(), text)
}

/// A digest on the command line, refused in the words of Go's go-digest.
pub fn digest(text: &str) -> types::Result<types::Digest> {
    text.parse().map_err(|_| {
        let hex = text.split_once(':').map(|(algorithm, hex)| (algorithm, hex.len()));
        types::Error::invalid(match hex {
            Some(("sha256" | "sha384" | "sha512", 1..)) => "invalid checksum digest length",
            Some((_, 1..)) => "unsupported digest algorithm",
            _ => "invalid checksum digest format",
        })
    })
}
