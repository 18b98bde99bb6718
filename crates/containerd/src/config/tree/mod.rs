//! What was written: the main file and those it imports, brought to the current version, merged, and completed with
//! what holds where nothing is written.
//!
//! ```text
//!  file -> parse -> migrate 1 -> 2 -> 3 -> 4 --+
//!  import -> parse -> migrate ----------------- merge -> [flags] -> complete -> one tree, which `config dump` prints
//! ```
//!
//! What a key means is not decided here, only whether it exists and has the right type ([`mod@complete`]). Everything is
//! as upstream has it, so that a file which containerd reads is read here, and printed as containerd prints it.

mod complete;
pub mod duration;
pub mod files;
mod glob;
mod merge;
mod migrate;
mod print;

use std::collections::BTreeSet;

use toml::{Table, Value};
use types::{Error, Result};

pub use complete::{Host, OLD_SECTIONS, complete, join};
pub use files::{read, read_into};
pub use print::print;

/// The version of the configuration that this daemon writes and means.
pub const CURRENT: i64 = 4;

/// What is wrong (the daemon does not start) and what is odd (it starts, and says so).
#[derive(Debug, Default)]
pub struct Findings {
    /// Mistakes, each with its place.
    pub mistakes: Vec<String>,
    /// Remarks for the log.
    pub warnings: Vec<String>,
}

/// A tree in version [`CURRENT`], as far as it was written.
#[derive(Debug)]
pub struct Written {
    /// The tree.
    pub table: Table,
    /// What was found on the way.
    pub findings: Findings,
}

/// A tree in version [`CURRENT`] without gaps.
#[derive(Debug)]
pub struct Complete {
    /// The tree.
    pub table: Table,
    /// Plugins whose sections are not as they are by default.
    pub changed: BTreeSet<String>,
    /// What was found on the way.
    pub findings: Findings,
}

impl Written {
    /// Nothing written: what holds at the top of the tree before the first file is read. An empty value in a file does
    /// not replace it.
    pub fn nothing() -> Result<Self> {
        let mut table = defaults()?;
        table.remove("plugins");
        table.remove("timeouts");
        Ok(Self { table, findings: Findings::default() })
    }

    /// The section of a plugin, made if it is not there.
    pub fn plugin(&mut self, uri: &str) -> Option<&mut Table> {
        plugins(&mut self.table)?.entry(uri).or_insert_with(|| Table::new().into()).as_table_mut()
    }
}

/// The plugins' sections, made if they are not there; `None` if something else is in their place.
fn plugins(top: &mut Table) -> Option<&mut Table> {
    top.entry("plugins").or_insert_with(|| Table::new().into()).as_table_mut()
}

const DEFAULTS: &str = include_str!("defaults.toml");
const KNOWN: &str = include_str!("known.toml");

fn defaults() -> Result<Table> {
    embedded(DEFAULTS)
}

fn known() -> Result<Table> {
    embedded(KNOWN)
}

fn embedded(text: &str) -> Result<Table> {
    text.parse().map_err(|error| Error::internal(format!("embedded configuration: {error}")))
}

/// A table of strings and tables, taken out of `from`.
fn take_table(from: &mut Table, key: &str) -> Table {
    match from.get_mut(key) {
        Some(Value::Table(table)) => {
            let table = std::mem::take(table);
            from.remove(key);
            table
        }
        _ => Table::new(),
    }
}

#[cfg(test)]
mod tests;
