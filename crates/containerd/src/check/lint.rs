//! The configuration: what the daemon would say of it at its start, and the registries' directories that it names.

use std::path::{Path, PathBuf};

use toml::{Table, Value};
use types::Result;

use crate::cli::Flags;
use crate::config::{self, Config};

use super::report::{Area, Report};

/// What a host of a `hosts.toml` may say.
const HOST: [&str; 8] =
    ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout", "server"];

/// The configuration, if it can be understood.
pub fn load(flags: &Flags, report: &mut Report) -> Option<Config> {
    let config = match config::load(flags) {
        Ok(config) => config,
        Err(error) => {
            report.problem(Area::Config, format!("{error}: the daemon does not start"));
            return None;
        }
    };
    for warning in &config.warnings {
        report.warning(Area::Config, warning.clone());
    }
    if config.warnings.is_empty() {
        report.ok(Area::Config, "every key is known");
    }
    for dir in config::print(flags).map(|(text, _)| host_directories(&text)).unwrap_or_default() {
        hosts(&dir, report);
    }
    Some(config)
}

/// The directories in which registries are described: every `config_path` of a registry's section.
fn host_directories(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<Table>() {
        collect(&table, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn collect(table: &Table, found: &mut Vec<PathBuf>) {
    for (key, value) in table {
        match value {
            Value::Table(below) => collect(below, found),
            Value::String(paths) if key == "config_path" => {
                found.extend(paths.split(':').filter(|path| !path.is_empty()).map(PathBuf::from));
            }
            _ => {}
        }
    }
}

/// Looks at each registry's file in `dir`.
fn hosts(dir: &Path, report: &mut Report) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // Upstream's default names directories that need not be there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            return report.problem(Area::Config, format!("read {}: {error}", dir.display()));
        }
    };
    for entry in entries.flatten() {
        let path = entry.path().join("hosts.toml");
        if path.exists() {
            match registry(&path) {
                Err(why) => report.problem(Area::Config, format!("{}: {why}", path.display())),
                Ok(remarks) => {
                    for remark in remarks {
                        report.warning(Area::Config, format!("{}: {remark}", path.display()));
                    }
                }
            }
        }
    }
}

/// What is odd about a `hosts.toml`.
fn registry(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let table: Table = text.parse().map_err(|e| types::Error::invalid(format!("no TOML: {e}")))?;
    let dir = path.parent().unwrap_or(path);
    let mut remarks = Vec::new();
    host(&table, "", dir, &mut remarks);
    for (name, section) in table.get("host").and_then(Value::as_table).into_iter().flatten() {
        match section.as_table() {
            Some(section) => host(section, &format!("host {name:?}: "), dir, &mut remarks),
            None => remarks.push(format!("host {name:?} is no table")),
        }
    }
    Ok(remarks)
}

fn host(section: &Table, place: &str, dir: &Path, remarks: &mut Vec<String>) {
    for (key, value) in section {
        let known = HOST.contains(&key.as_str()) || (place.is_empty() && key == "host");
        if !known {
            remarks.push(format!("{place}nobody knows the key {key:?}"));
        }
        if key == "ca" || key == "client" {
            for file in strings(value) {
                if !dir.join(&file).exists() {
                    remarks.push(format!("{place}{key} names {file:?}, which is not there"));
                }
            }
        }
    }
}

/// All strings in a value, however deep.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Level;

    #[test]
    fn registries_are_found_where_the_configuration_says_and_mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[plugins.a.registry]\nconfig_path = '{}:/nonexistent'\n", dir.path().display());
        let found = host_directories(&text);
        assert_eq!(found.len(), 2);
        let look = |text: &str| {
            let registry = dir.path().join("r.example");
            std::fs::create_dir_all(&registry).unwrap();
            std::fs::write(registry.join("hosts.toml"), text).unwrap();
            let mut report = Report::default();
            found.iter().for_each(|dir| hosts(dir, &mut report));
            (report.level(), report.text())
        };
        assert_eq!(look("server = 'https://r'\n[host.'https://m']\ncapabilities = ['pull']\n").0, Level::Ok);
        let (level, text) = look("[host.'https://m']\ncapabilites = ['pull']\nca = 'no.pem'\n");
        assert_eq!(level, Level::Warning);
        assert!(text.contains("capabilites") && text.contains("no.pem"), "{text}");
        assert_eq!(look("[host").0, Level::Problem);
    }
}
