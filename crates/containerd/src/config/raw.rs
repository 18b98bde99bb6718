//! What was written: one TOML tree out of the main file and those it imports, brought to the current version.
//!
//! Files are merged as upstream merges them: lists are joined without repeats, tables are merged key by key, an empty
//! value does not replace one, and a later file wins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use types::{Class, Error, Result};

use super::migrate;

/// The version of the configuration that this daemon writes and understands fully.
pub const CURRENT: i64 = 4;
/// The oldest version that is understood.
const OLDEST: i64 = 3;

/// The merged tree, and what is worth telling about how it came to be.
#[derive(Debug, Default)]
pub struct Written {
    /// The tree, in version [`CURRENT`].
    pub table: Table,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// Reads `path` and what it imports.
pub fn read(path: &Path) -> Result<Written> {
    let mut written = Written::default();
    let mut seen = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    let mut main_version = None;
    while !pending.is_empty() {
        let file = pending.remove(0);
        if !seen.insert(file.clone()) {
            continue;
        }
        let mut table = parse(&file)?;
        let version = version(&table, &file)?;
        if version > *main_version.get_or_insert(version) {
            return Err(Error::invalid(format!(
                "drop-in config version {version} of {} higher than root config version",
                file.display()
            )));
        }
        if version < CURRENT {
            migrate::to_version_4(&mut table);
            written.warnings.push(format!(
                "Configuration {} migrated from version {version} to {CURRENT}, write it in version {CURRENT} to avoid migration",
                file.display()
            ));
        }
        table.insert("version".into(), CURRENT.into());
        pending.extend(imports(&file, &table)?);
        merge(&mut written.table, table);
    }
    Ok(written)
}

fn parse(path: &Path) -> Result<Table> {
    let failed =
        |class, why: String| Error::new(class, format!("failed to load TOML from {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| {
        let class = Error::from(std::io::Error::from(e.kind())).class();
        failed(class, e.to_string())
    })?;
    text.parse::<Table>().map_err(|e| {
        let (row, column) = e.span().map_or((0, 0), |span| position(&text, span.start));
        let why = e.message().lines().next().unwrap_or_default().to_owned();
        failed(
            Class::InvalidArgument,
            format!("failed to unmarshal TOML at row {row} column {column}: {why}"),
        )
    })
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, at - line + 1)
}

fn version(table: &Table, path: &Path) -> Result<i64> {
    let refuse =
        |why: String| Err(Error::invalid(format!("failed to load TOML from {}: {why}", path.display())));
    match table.get("version") {
        Some(Value::Integer(version)) if (OLDEST..=CURRENT).contains(version) => Ok(*version),
        Some(Value::Integer(version)) if *version > CURRENT => refuse(format!(
            "expected containerd config version equal to or less than `{CURRENT}`, got `{version}`"
        )),
        Some(Value::Integer(version)) => {
            refuse(format!("config version {version} is not supported yet, only {OLDEST} and {CURRENT}"))
        }
        Some(_) => refuse("version must be an integer".into()),
        None => refuse(format!(
            "version is missing (that means version 1, and only {OLDEST} and {CURRENT} are supported yet)"
        )),
    }
}

/// The files that `table` imports, relative ones below the directory of `file`.
fn imports(file: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    let Some(Value::Array(imports)) = table.get("imports") else { return Ok(Vec::new()) };
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for import in imports.iter().filter_map(Value::as_str) {
        let path = dir.join(import);
        if import.contains('*') { files.extend(glob(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// Files whose name matches the last component of `pattern`; only `*` is special, and only there.
fn glob(pattern: &Path) -> Result<Vec<PathBuf>> {
    let unsupported =
        || Error::invalid(format!("import {}: only the file name may contain *", pattern.display()));
    let (dir, name) = pattern.parent().zip(pattern.file_name()).ok_or_else(unsupported)?;
    if dir.to_string_lossy().contains('*') {
        return Err(unsupported());
    }
    let name = name.to_string_lossy();
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| matches(&name, &entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).filter_map(|at| tail.get(at..)).any(|tail| matches(rest, tail))
        }),
    }
}

fn merge(into: &mut Table, from: Table) {
    // These are sets of named things: one that is named again is replaced as a whole.
    const REPLACED: [&str; 3] = ["stream_processors", "proxy_plugins", "timeouts"];
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if REPLACED.contains(&key.as_str()) => {
                old.extend(new)
            }
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => {
                for item in new {
                    if !old.contains(&item) {
                        old.push(item);
                    }
                }
            }
            (Some(old), new) if !is_zero(&new) => *old = new,
            (Some(_), _) => {}
            (None, value) => drop(into.insert(key, value)),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::Boolean(set) => !set,
        Value::Array(items) => items.is_empty(),
        Value::Table(table) => table.is_empty(),
        Value::Datetime(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> Result<Table> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        read(&dir.path().join(files[0].0)).map(|written| written.table)
    }

    #[test]
    fn imported_files_are_merged_over_the_one_that_imports_them() {
        let table = written(&[
            ("main", "version=4\nroot='/a'\nimports=['*.toml']\ndisabled_plugins=['a.b']\n[plugins.'x.y']\nk=1\nl=2"),
            ("1.toml", "version=4\nroot=''\ndisabled_plugins=['a.b','c.d']\n[plugins.'x.y']\nk=3"),
            ("not", "version=9"),
        ])
        .unwrap();
        assert_eq!(table["root"].as_str(), Some("/a"));
        assert_eq!(table["disabled_plugins"].as_array().unwrap().len(), 2);
        assert_eq!(table["plugins"]["x.y"]["k"].as_integer(), Some(3));
        assert_eq!(table["plugins"]["x.y"]["l"].as_integer(), Some(2));
    }

    #[test]
    fn versions_that_nobody_understands_are_refused() {
        for (text, why) in [
            ("version=5", "equal to or less than `4`, got `5`"),
            ("version=2", "not supported yet"),
            ("root='/a'", "version is missing"),
            ("version=4\nx=[", "row 2 column"),
        ] {
            let error = written(&[("main", text)]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn files_that_import_each_other_are_read_once() {
        let table = written(&[
            ("a", "version=4\nimports=['b']\nroot='/a'"),
            ("b", "version=3\nimports=['a']\nstate='/b'"),
        ]);
        assert_eq!(table.unwrap()["state"].as_str(), Some("/b"));
    }
}
