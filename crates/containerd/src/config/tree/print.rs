//! The tree as a file, to the byte as upstream prints it: in the form of Go's TOML library, with indented tables.
//!
//! ```text
//! version = 4                         values first, then tables, each in the order of the struct's fields
//! root = '/var/lib/containerd'        strings are literal, unless they hold what cannot stand between single quotes
//!
//! [plugins]
//!   [plugins.'io.containerd...']      entries of a map by name
//! ```
//!
//! Which tables are structs, and the order of their fields, is read off `defaults.toml` and `known.toml`; a table that
//! may hold any name, or that nobody knows, is a map.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};
use types::{Error, Result};

use super::complete::{ANY_NAME, ANYTHING};
use super::{CURRENT, DEFAULTS, KNOWN};

/// Prints a tree.
pub fn print(table: &Table) -> Result<String> {
    let mut order = Order::read(DEFAULTS)?;
    order.add(Order::read(KNOWN)?);
    // Which plugins there are is not for the defaults to say.
    if let Some(plugins) = order.below.get_mut("plugins") {
        plugins.map = true;
    }
    let mut rest = table.clone();
    rest.remove("version");
    let mut text = format!("version = {CURRENT}\n");
    write_table(&mut text, &rest, &order, &mut Vec::new());
    Ok(text)
}

/// The order of a table's keys.
#[derive(Default)]
struct Order {
    /// Its keys are names that people choose.
    map: bool,
    /// The fields of a struct.
    names: Vec<String>,
    below: BTreeMap<String, Order>,
}

impl Order {
    fn read(text: &str) -> Result<Self> {
        let table = DeTable::parse(text)
            .map_err(|error| Error::internal(format!("embedded configuration: {error}")))?;
        Ok(Self::of(table.get_ref()))
    }

    fn of(table: &DeTable<'_>) -> Self {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let name = |key: &str| key.to_owned();
        let below = |value: &DeValue<'_>| match value {
            DeValue::Table(table) => Some(Self::of(table)),
            DeValue::Array(items) => items.first()?.get_ref().as_table().map(Self::of),
            _ => None,
        };
        let names: Vec<String> = keys.iter().map(|(key, _)| name(key.get_ref())).collect();
        let below =
            keys.iter().filter_map(|(key, value)| Some((name(key.get_ref()), below(value.get_ref())?)));
        let map = names.iter().any(|name| name == ANY_NAME || name == ANYTHING);
        Self { map, below: below.collect(), names }
    }

    /// Adds what only `other` knows, each before what follows it there. What is a map on one side is one.
    fn add(&mut self, other: Self) {
        self.map |= other.map;
        let mut at = self.names.len();
        for name in other.names.into_iter().rev() {
            match self.names.iter().position(|known| *known == name) {
                Some(known) => at = known,
                None => self.names.insert(at, name),
            }
        }
        for (name, order) in other.below {
            match self.below.get_mut(&name) {
                Some(known) => known.add(order),
                None => drop(self.below.insert(name, order)),
            }
        }
    }

    /// Where `name` comes, before its name decides.
    fn rank(&self, name: &str) -> usize {
        let field = self.names.iter().position(|known| known == name);
        field.filter(|_| !self.map).unwrap_or(usize::MAX)
    }

    fn below(&self, name: &str) -> Option<&Self> {
        // All entries of a map are alike, also those that there are by default.
        let entry = self.below.get(ANY_NAME).filter(|_| self.map);
        entry.or_else(|| self.below.get(name))
    }
}

/// Writes what a table holds. `place` are the keys that lead to it, which its lines are indented by.
fn write_table<'a>(text: &mut String, table: &'a Table, order: &Order, place: &mut Vec<&'a str>) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, value)| (is_table(value), order.rank(name), *name));
    let indent = "  ".repeat(place.len());
    let unknown = Order::default();
    for (at, (name, value)) in entries.into_iter().enumerate() {
        if !is_table(value) {
            let _ = writeln!(text, "{indent}{} = {}", key(name), literal(value, &indent));
            continue;
        }
        place.push(name);
        let header = place.iter().map(|name| key(name)).collect::<Vec<_>>().join(".");
        let order = order.below(name).unwrap_or(&unknown);
        if at > 0 || place.len() == 1 {
            text.push('\n');
        }
        match value {
            Value::Table(table) => {
                let _ = writeln!(text, "{indent}[{header}]");
                write_table(text, table, order, place);
            }
            Value::Array(items) => {
                for (at, item) in items.iter().filter_map(Value::as_table).enumerate() {
                    let gap = if at > 0 { "\n" } else { "" };
                    let _ = writeln!(text, "{gap}{indent}[[{header}]]");
                    write_table(text, item, order, place);
                }
            }
            _ => {}
        }
        place.pop();
    }
}

/// Whether a value gets a header of its own.
fn is_table(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_table),
        _ => false,
    }
}

/// `indent` is that of the line; Go's library writes it before each key of an inline table, too.
fn literal(value: &Value, indent: &str) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.is_finite() && number.fract() == 0.0 => format!("{number:.1}"),
        Value::Float(number) if number.is_nan() => "nan".to_owned(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(|item| literal(item, indent)))),
        Value::Table(table) => {
            let entry = |(name, value): (&String, &Value)| {
                format!("{indent}{} = {}", key(name), literal(value, indent))
            };
            format!("{{{}}}", list(table.iter().map(entry)))
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { string(name) }
}

fn string(text: &str) -> String {
    // A tab may stand in a literal string.
    let cannot_be_literal = |c: char| c == '\'' || (c.is_ascii_control() && c != '\t');
    if text.contains(cannot_be_literal) { quoted(text) } else { format!("'{text}'") }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str(r"\\"),
            '"' => quoted.push_str(r#"\""#),
            '\u{8}' => quoted.push_str(r"\b"),
            '\u{c}' => quoted.push_str(r"\f"),
            '\n' => quoted.push_str(r"\n"),
            '\r' => quoted.push_str(r"\r"),
            '\t' => quoted.push_str(r"\t"),
            c if c.is_ascii_control() => drop(write!(quoted, r"\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        print(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_defaults_are_printed_as_they_stand_in_their_file() {
        let expected = DEFAULTS.split_once("\n\n").unwrap().1;
        assert_eq!(printed(DEFAULTS), format!("version = {CURRENT}\n{expected}"));
    }

    #[test]
    fn fields_come_in_upstreams_order_and_entries_of_maps_by_name() {
        let text = "[stream_processors.x]\n[timeouts]\nb='2s'\na='1s'\n[proxy_plugins.p]\ncapabilities=['c']\n\
                    type='snapshot'\n[proxy_plugins.p.exports]\nz='1'\n[plugins.'x.y']\nb=1\na=2\n[plugins.'a.b'.c]\n\
                    [debug]\nuid=5\nlevel='info'\n[cgroup]\npath='/'\n[grpc]\nuid=1\naddress='/a'";
        assert_eq!(
            printed(text),
            "version = 4\n\n[debug]\n  level = 'info'\n  uid = 5\n\n[plugins]\n  [plugins.'a.b']\n    [plugins.'a.b'.c]\n\n  \
             [plugins.'x.y']\n    a = 2\n    b = 1\n\n[cgroup]\n  path = '/'\n\n[proxy_plugins]\n  [proxy_plugins.p]\n    \
             type = 'snapshot'\n    capabilities = ['c']\n\n    [proxy_plugins.p.exports]\n      z = '1'\n\n[timeouts]\n  \
             a = '1s'\n  b = '2s'\n\n[stream_processors]\n  [stream_processors.x]\n\n[grpc]\n  address = '/a'\n  uid = 1\n"
        );
    }

    #[test]
    fn options_of_the_default_runtime_are_a_map_as_those_of_any() {
        let runtimes = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes";
        let text =
            printed(&format!("[{runtimes}.runc.options]\nRoot=''\nNewer=1\n[{runtimes}.runc]\nsandboxer=''"));
        let position = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}"));
        assert!(position("sandboxer") < position("Newer") && position("Newer") < position("Root"));
    }

    #[test]
    fn values_are_written_as_gos_library_writes_them() {
        for (value, expected) in [
            (r#""C:\\a \"b\"""#, r#"'C:\a "b"'"#),
            (r#""it's \\ \"x\" \u0001\u007f\t\n""#, r#""it's \\ \"x\" \u0001\u007F\t\n""#),
            (r#""tab\tü""#, "'tab\tü'"),
            ("''", "''"),
            ("2.0", "2.0"),
            ("0.02", "0.02"),
            ("-inf", "-inf"),
            ("[1, ['a']]", "[1, ['a']]"),
            ("[1, {b = 1, 'a b' = 2}]", "[1, {'a b' = 2, b = 1}]"),
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
        ] {
            assert_eq!(printed(&format!("root = {value}")), format!("version = 4\nroot = {expected}\n"));
        }
        assert_eq!(
            printed("[cgroup]\npath = [1, {b = 1, c = 2}]"),
            "version = 4\n\n[cgroup]\n  path = [1, {  b = 1,   c = 2}]\n"
        );
        assert_eq!(
            printed("[[plugins.'a b'.l]]\nx=1\n[[plugins.'a b'.l]]\n'' = 2"),
            "version = 4\n\n[plugins]\n  [plugins.'a b']\n    [[plugins.'a b'.l]]\n      x = 1\n\n    [[plugins.'a b'.l]]\n      \
             '' = 2\n"
        );
    }
}
