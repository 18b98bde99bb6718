//! Configuration files as distributions and tools generate them are read as they are, and `config migrate` prints what
//! containerd 2.3 prints.
//!
//! Beside each file stands what containerd makes of it, as far as it differs from the default. It is rewritten by
//! `BLESS=/path/to/containerd cargo test -p containerd --test config_files`, by containerd itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::containerd;
use toml::{Table, Value};

/// Each value under its path.
fn flat(place: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| flat(&format!("{place}/{key}"), value, into))
        }
        value => drop(into.insert(place.to_owned(), value.to_string())),
    }
}

fn tree(output: &Output) -> BTreeMap<String, String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table: Table = std::str::from_utf8(&output.stdout).unwrap().parse().unwrap();
    let mut tree = BTreeMap::new();
    flat("", &Value::Table(table), &mut tree);
    tree
}

/// A line for each value that is not the default's, and for each that is gone.
fn difference(program: impl Fn() -> Command, file: &Path) -> String {
    let default = tree(&program().args(["config", "default"]).output().unwrap());
    let migrated = tree(&program().arg("-c").arg(file).args(["config", "migrate"]).output().unwrap());
    let changed = migrated.iter().filter(|(path, value)| default.get(*path) != Some(value));
    let gone = default.keys().filter(|path| !migrated.contains_key(*path));
    changed
        .map(|(path, value)| format!("{path} = {value}\n"))
        .chain(gone.map(|path| format!("{path} is gone\n")))
        .collect()
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn generated_files_mean_what_they_mean_to_containerd() {
    let files = files();
    assert!(files.len() >= 14, "{files:?}");
    for file in files {
        let expected = file.with_extension("expected");
        if let Some(upstream) = std::env::var_os("BLESS") {
            std::fs::write(&expected, difference(|| Command::new(&upstream), &file)).unwrap();
        }
        let expected = std::fs::read_to_string(expected).unwrap();
        assert_eq!(difference(containerd, &file), expected, "{}", file.display());
    }
}

#[test]
fn a_generated_file_of_an_older_version_is_one_warning_that_names_the_remedy() {
    for file in files() {
        let output = containerd().arg("-c").arg(&file).args(["config", "dump"]).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(log.matches("`containerd config migrate`").count(), 1, "{}: {log}", file.display());
        assert!(!log.contains("level=error"), "{log}");
    }
}

#[test]
fn a_migrated_file_is_read_without_a_word_about_its_version() {
    for file in files() {
        let migrated = containerd().arg("-c").arg(&file).args(["config", "migrate"]).output().unwrap().stdout;
        let second = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(second.path(), &migrated).unwrap();
        let again = containerd().arg("-c").arg(second.path()).args(["config", "migrate"]).output().unwrap();
        assert_eq!(String::from_utf8(again.stdout).unwrap(), String::from_utf8(migrated).unwrap());
        assert!(again.stderr.is_empty(), "{}", String::from_utf8_lossy(&again.stderr));
    }
}
