//! Takes typed values out of a TOML tree, and remembers every mistake instead of stopping at the first. Which keys exist
//! is not known here, but in [`super::tree`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use toml::{Table, Value};

use super::tree::{Findings, duration, join};

/// One table of the tree.
pub struct Section {
    path: String,
    table: Table,
    findings: Rc<RefCell<Findings>>,
}

impl Section {
    /// The whole tree.
    pub fn root(table: Table, findings: Rc<RefCell<Findings>>) -> Self {
        Self { path: String::new(), table, findings }
    }

    /// A mistake in this section.
    pub fn mistake(&self, why: impl Into<String>) {
        self.findings.borrow_mut().mistakes.push(why.into());
    }

    /// A remark about this section.
    pub fn warn(&self, why: impl Into<String>) {
        self.findings.borrow_mut().warnings.push(why.into());
    }

    /// A string, or `default`.
    pub fn string(&mut self, key: &str, default: &str) -> String {
        self.take(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
        .unwrap_or_else(|| default.to_owned())
    }

    /// An integer that fits, or `default`.
    pub fn integer<T: TryFrom<i64>>(&mut self, key: &str, default: T) -> T {
        self.take(key, "an integer in range", |value| value.as_integer().and_then(|n| T::try_from(n).ok()))
            .unwrap_or(default)
    }

    /// A number, or `default`.
    pub fn float(&mut self, key: &str, default: f64) -> f64 {
        self.take(key, "a number", |value| match value {
            Value::Float(number) => Some(number),
            // Whole numbers below 2^53 are what people write here.
            Value::Integer(number) => i32::try_from(number).ok().map(f64::from),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// A duration as Go writes it, or `default`.
    pub fn duration(&mut self, key: &str, default: Duration) -> Duration {
        self.take(key, "a duration", |value| value.as_str().and_then(duration::parse)).unwrap_or(default)
    }

    /// An absolute path, if there is one.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.string(key, ""));
        if path.as_os_str().is_empty() {
            return None;
        }
        if path.is_relative() {
            self.mistake(format!("{} must be an absolute path, not {}", self.place(key), path.display()));
        }
        Some(path)
    }

    /// A table of strings.
    pub fn texts(&mut self, key: &str) -> BTreeMap<String, String> {
        self.take(key, "a table of strings", |value| match value {
            Value::Table(table) => {
                table.into_iter().map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
            }
            _ => None,
        })
        .unwrap_or_default()
    }

    /// Whether something is there under this key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// What is in it and has not been taken.
    pub fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// A truth value, or false.
    pub fn boolean(&mut self, key: &str) -> bool {
        self.take(key, "true or false", |value| value.as_bool()).unwrap_or(false)
    }

    /// A list of strings, or `default`.
    pub fn strings(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        self.take(key, "a list of strings", |value| match value {
            Value::Array(items) => items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
        .unwrap_or_else(|| default.iter().map(|text| (*text).to_owned()).collect())
    }

    /// A table below this one, empty if absent.
    pub fn section(&mut self, key: &str) -> Self {
        let table = self.take(key, "a table", |value| match value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        Self { path: self.place(key), table: table.unwrap_or_default(), findings: Rc::clone(&self.findings) }
    }

    /// The tables of a list below this one, if there is one.
    pub fn sections(&mut self, key: &str) -> Option<Vec<Self>> {
        let path = self.place(key);
        let tables = self.take(key, "a list of tables", |value| match value {
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::Table(table) => Some(table),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        })?;
        let section = |table| Self { path: path.clone(), table, findings: Rc::clone(&self.findings) };
        Some(tables.into_iter().map(section).collect())
    }

    /// Everything that has not been taken yet.
    pub fn rest(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    fn take<T>(&mut self, key: &str, what: &str, convert: impl FnOnce(Value) -> Option<T>) -> Option<T> {
        let converted = convert(self.table.remove(key)?);
        if converted.is_none() {
            self.mistake(format!("{} must be {what}", self.place(key)));
        }
        converted
    }

    fn place(&self, key: &str) -> String {
        join(&self.path, key)
    }
}
