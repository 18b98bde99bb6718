//! Files: which are read, in which order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use types::{Error, Result};

use super::{CURRENT, Findings, Written, glob, merge, migrate};

/// Reads `path` and what it imports, the imports of the imports, and so on, each file once.
pub fn read(path: &Path) -> Result<Written> {
    let mut written = Written::nothing()?;
    read_into(&mut written, path)?;
    Ok(written)
}

/// As [`read`]; what was read before a mistake stays in `written`.
pub fn read_into(written: &mut Written, path: &Path) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    let mut main_version = 0;
    while !pending.is_empty() {
        let file = pending.remove(0);
        if !seen.insert(file.clone()) {
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let class = Error::from(std::io::Error::from(error.kind())).class();
            Error::new(class, failed(&file, &error.to_string()))
        })?;
        let (version, table) = parse(&text, &mut written.findings)
            .map_err(|error| Error::invalid(failed(&file, error.message())))?;
        // As upstream: a main file that does not say its version takes that of the first import that does.
        if main_version == 0 {
            main_version = version;
        }
        if version > main_version {
            return Err(Error::invalid(format!(
                "drop-in config version {version} higher than root config version {main_version}: {}",
                file.display()
            )));
        }
        if version < CURRENT {
            written.findings.warnings.push(format!(
                "Configuration migrated from version {version}, use `containerd config migrate` to avoid migration: {}",
                file.display()
            ));
        }
        pending.extend(imports(&file, &table));
        merge::merge(&mut written.table, table);
    }
    Ok(())
}

/// The tree that `text` means in version [`CURRENT`], and the version that it was written in.
pub fn parse(text: &str, findings: &mut Findings) -> Result<(i64, Table)> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let (row, column) = error.span().map_or((0, 0), |span| position(text, span.start));
        let why = error.message().lines().next().unwrap_or_default().to_owned();
        Error::invalid(format!("failed to unmarshal TOML at row {row} column {column}: {why}"))
    })?;
    let version = match table.remove("version") {
        // A file without a version is one of containerd 1.2 or older.
        None => 0,
        Some(Value::Integer(version @ 0..=CURRENT)) => version,
        Some(Value::Integer(version)) => {
            return Err(Error::invalid(format!(
                "expected containerd config version equal to or less than `{CURRENT}`, got `{version}`"
            )));
        }
        Some(_) => return Err(Error::invalid("version must be an integer")),
    };
    migrate::to_current(&mut table, version, findings);
    Ok((version, table))
}

fn failed(file: &Path, why: &str) -> String {
    format!("failed to load TOML from {}: {why}", file.display())
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, at - line + 1)
}

/// The files that `table` imports, relative ones below the directory of `file`.
fn imports(file: &Path, table: &Table) -> Vec<PathBuf> {
    let Some(Value::Array(imports)) = table.get("imports") else { return Vec::new() };
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for import in imports.iter().filter_map(Value::as_str) {
        let path = dir.join(import);
        // Only a star makes a pattern, as upstream: a name with a question mark or bracket is a name.
        if import.contains('*') { files.extend(glob::files(&path)) } else { files.push(path) }
    }
    files
}
