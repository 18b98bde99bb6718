//! The tree without gaps, compared with what may be written: `defaults.toml` and `known.toml`.
//!
//! A key that does not exist is left out with a warning, a value of the wrong type with a mistake. As in Go, a key is
//! found whatever the case of its letters. Sections of plugins that are disabled, or that nobody knows, stay as they
//! were written.

use std::collections::BTreeSet;

use toml::{Table, Value};
use types::Result;

use super::{Complete, Findings, Written, defaults, duration, known, plugins};

/// Stands for any name in `known.toml`.
pub const ANY_NAME: &str = "*";
/// Stands for whatever there is.
pub const ANYTHING: &str = "**";

/// Values that are times, which are printed as Go prints them. Others that look like it are texts.
const DURATIONS: &[&str] = &[
    "plugins.'io.containerd.gc.v1.scheduler'.schedule_delay",
    "plugins.'io.containerd.gc.v1.scheduler'.startup_delay",
    "plugins.'io.containerd.image-verifier.v1.bindir'.per_verifier_timeout",
    "plugins.'io.containerd.monitor.container.v1.restart'.interval",
    "plugins.'io.containerd.nri.v1.nri'.plugin_registration_timeout",
    "plugins.'io.containerd.nri.v1.nri'.plugin_request_timeout",
];

/// Sections of older versions, of which only what is not empty is kept.
pub const OLD_SECTIONS: &[&str] = &["grpc", "ttrpc", "metrics"];

/// What the defaults take from the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Who runs the daemon.
    pub uid: u32,
    /// The group of who runs the daemon.
    pub gid: u32,
    /// The platform of its containers.
    pub platform: String,
}

/// Fills the gaps.
pub fn complete(written: Written, host: &Host) -> Result<Complete> {
    let Written { mut table, findings } = written;
    let mut defaults = defaults()?;
    adapt(&mut defaults, host);
    beside_main_socket(&mut table);
    forget_empty_timeouts(&mut table);
    proxies_export_their_address(&mut table);
    let mut disabled = BTreeSet::new();
    if let Some(Value::Array(uris)) = table.get("disabled_plugins") {
        disabled.extend(uris.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    if let Some(plugins) = plugins(&mut defaults) {
        plugins.retain(|uri, _| !disabled.contains(uri));
    }
    let known = known()?;
    let mut overlay = Overlay { disabled, findings };
    let shape = Shape { default: Some(&defaults), known: Some(&known) };
    let complete = overlay.table(shape, table, "");
    let changed = changed(&complete, &defaults);
    Ok(Complete { table: complete, changed, findings: overlay.findings })
}

fn adapt(defaults: &mut Table, host: &Host) {
    let Some(plugins) = plugins(defaults) else { return };
    let mut set = |uri: &str, key: &str, value: Value| {
        if let Some(Value::Table(section)) = plugins.get_mut(uri) {
            section.insert(key.into(), value);
        }
    };
    for uri in ["io.containerd.server.v1.grpc", "io.containerd.server.v1.ttrpc"] {
        set(uri, "uid", i64::from(host.uid).into());
        set(uri, "gid", i64::from(host.gid).into());
    }
    set("io.containerd.runtime.v2.task", "platforms", vec![host.platform.clone()].into());
}

/// A main socket that was moved takes the shims' socket along, and gives it its owner: two daemons never share one by
/// accident.
fn beside_main_socket(table: &mut Table) {
    let Some(plugins) = plugins(table) else { return };
    let Some(Value::Table(main)) = plugins.get("io.containerd.server.v1.grpc") else { return };
    let mut derived = Table::new();
    if let Some(Value::String(address)) = main.get("address") {
        derived.insert("address".into(), format!("{address}.ttrpc").into());
    }
    derived
        .extend(["uid", "gid"].iter().filter_map(|key| Some(((*key).to_owned(), main.get(*key)?.clone()))));
    let shims = plugins.entry("io.containerd.server.v1.ttrpc").or_insert_with(|| Table::new().into());
    let Value::Table(shims) = shims else { return };
    if shims.get("address").and_then(Value::as_str) == Some("") {
        shims.remove("address");
    }
    for (key, value) in derived {
        shims.entry(key).or_insert(value);
    }
}

fn forget_empty_timeouts(table: &mut Table) {
    if let Some(Value::Table(timeouts)) = table.get_mut("timeouts") {
        timeouts.retain(|_, time| time.as_str() != Some(""));
    }
}

/// As upstream prints it, where anything else is exported.
fn proxies_export_their_address(table: &mut Table) {
    let Some(Value::Table(proxies)) = table.get_mut("proxy_plugins") else { return };
    for proxy in proxies.iter_mut().filter_map(|(_, proxy)| proxy.as_table_mut()) {
        let address = proxy.get("address").cloned();
        if let (Some(Value::Table(exports)), Some(address)) = (proxy.get_mut("exports"), address) {
            exports.insert("address".into(), address);
        }
    }
}

fn changed(complete: &Table, defaults: &Table) -> BTreeSet<String> {
    let sections = |tree: &Table| tree.get("plugins").and_then(Value::as_table).cloned().unwrap_or_default();
    let defaults = sections(defaults);
    let empty = |section: &Value| section.as_table().is_some_and(Table::is_empty);
    sections(complete)
        .into_iter()
        .filter(|(uri, section)| defaults.get(uri) != Some(section) && !empty(section))
        .map(|(uri, _)| uri)
        .collect()
}

/// What a table may hold.
#[derive(Clone, Copy)]
struct Shape<'a> {
    default: Option<&'a Table>,
    known: Option<&'a Table>,
}

/// A key as it is spelled where it is known, and what it may hold.
struct Slot<'a> {
    name: String,
    default: Option<&'a Value>,
    known: Option<&'a Value>,
}

impl<'a> Shape<'a> {
    fn slot(self, key: &str) -> Option<Slot<'a>> {
        let names = || self.default.into_iter().chain(self.known).flat_map(Table::keys);
        let named = |name: &str| Slot {
            name: name.to_owned(),
            default: self.default.and_then(|table| table.get(name)),
            known: self.known.and_then(|table| table.get(name)),
        };
        let same = names().find(|name| *name == key);
        let similar = || names().find(|name| name.to_lowercase() == key.to_lowercase());
        let any = self.known.and_then(|known| known.get(ANY_NAME));
        match (same, any) {
            (Some(name), any) => {
                let slot = named(name);
                Some(Slot { known: slot.known.or(any), ..slot })
            }
            // Names that people choose are not changed.
            (None, Some(any)) => Some(Slot { name: key.to_owned(), default: None, known: Some(any) }),
            (None, None) => similar().map(|name| named(name)),
        }
    }

    /// What holds if nothing is written: the defaults, or for a named thing values that are empty.
    fn base(self) -> Table {
        match (self.default, self.known) {
            (Some(default), _) => default.clone(),
            (None, Some(known)) => known
                .iter()
                .filter(|(name, value)| !value.is_table() && *name != ANY_NAME && *name != ANYTHING)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            (None, None) => Table::new(),
        }
    }
}

struct Overlay {
    disabled: BTreeSet<String>,
    findings: Findings,
}

impl Overlay {
    fn table(&mut self, shape: Shape<'_>, written: Table, place: &str) -> Table {
        let old = OLD_SECTIONS.contains(&place);
        let mut table = if old { Table::new() } else { shape.base() };
        let named = shape.known.is_some_and(|known| known.contains_key(ANY_NAME));
        // Upstream leaves out of structs what is empty, unless it is a default.
        let without_empty = (old || shape.default.is_some()) && !named;
        let anything = shape.known.is_some_and(|known| known.contains_key(ANYTHING));
        for (key, value) in written {
            let here = join(place, &key);
            let slot = shape.slot(&key).filter(|_| !(place == "plugins" && self.disabled.contains(&key)));
            match slot {
                Some(slot) if !anything => {
                    let value = self.value(&slot, value, &here);
                    let left_out = |value: &Value| without_empty && slot.default.is_none() && is_empty(value);
                    if let Some(value) = value.filter(|value| !left_out(value)) {
                        table.insert(slot.name, value);
                    }
                }
                _ if anything || place == "plugins" => drop(table.insert(key, value)),
                _ => self.findings.warnings.push(format!("Ignoring unknown key in TOML: {here}")),
            }
        }
        table
    }

    /// What is put into the place of `value`. Something empty that is nowhere by default is left out, as Go leaves it out.
    fn value(&mut self, slot: &Slot<'_>, value: Value, place: &str) -> Option<Value> {
        // Entries of these are replaced as a whole.
        let replaced =
            ["stream_processors.", "proxy_plugins."].iter().any(|section| place.starts_with(section));
        let default = slot.default.filter(|_| !replaced || !value.is_table());
        let expected = default.or(slot.known)?;
        match (expected, value) {
            (Value::Table(_), Value::Table(written)) => {
                let shape = Shape {
                    default: default.and_then(Value::as_table),
                    known: slot.known.and_then(Value::as_table),
                };
                let table = self.table(shape, written, place);
                (default.is_some() || !table.is_empty()).then(|| table.into())
            }
            (Value::Array(_), Value::Array(items)) => {
                let element = slot.known.and_then(Value::as_array).and_then(|items| items.first());
                let items = self.list(element, items, place);
                (default.is_some() || !items.is_empty()).then(|| items.into())
            }
            (Value::Float(_), Value::Integer(number)) => {
                i32::try_from(number).ok().map(f64::from).map(Value::Float)
            }
            (Value::String(_), Value::String(text)) if DURATIONS.contains(&place) => self.time(&text, place),
            (expected, value) if expected.same_type(&value) => Some(value),
            (expected, value) => {
                let (want, have) = (expected.type_str(), value.type_str());
                self.findings.mistakes.push(format!("{place} must be of type {want}, not {have}"));
                None
            }
        }
    }

    fn list(&mut self, element: Option<&Value>, items: Vec<Value>, place: &str) -> Vec<Value> {
        let text = Value::String(String::new());
        let known = element.unwrap_or(&text);
        let slot = Slot { name: String::new(), default: None, known: Some(known) };
        items.into_iter().filter_map(|item| self.value(&slot, item, place)).collect()
    }

    fn time(&mut self, text: &str, place: &str) -> Option<Value> {
        let time = duration::parse(text);
        if time.is_none() {
            self.findings.mistakes.push(format!("{place}: {text:?} is no duration"));
        }
        time.map(|time| duration::print(time).into())
    }
}

/// Whether a value is what Go calls zero.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::Boolean(value) => !value,
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => false,
    }
}

/// The place of a key, with quotes where TOML needs them.
pub fn join(place: &str, key: &str) -> String {
    let key = if key.contains('.') { format!("'{key}'") } else { key.to_owned() };
    if place.is_empty() { key } else { format!("{place}.{key}") }
}
