//! A file over those before it, by upstream's rules.
//!
//! | where                                            | rule                                               |
//! | ------------------------------------------------ | -------------------------------------------------- |
//! | top, `[debug]`, `[cgroup]`: values               | replaced, but never by an empty value              |
//! | top: lists                                       | joined without repeats                             |
//! | `[plugins]`                                      | tables deeply; a value or list replaces, even empty |
//! | `[timeouts]`, `[proxy_plugins]`, `[stream_processors]` | replaced entry by entry                       |

use toml::{Table, Value};

/// Puts `from` over `into`.
pub fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        let Some(old) = into.get_mut(&key) else {
            into.insert(key, value);
            continue;
        };
        match (old, value) {
            (Value::Table(old), Value::Table(new)) => match key.as_str() {
                "plugins" => replace(old, new),
                "timeouts" | "proxy_plugins" | "stream_processors" => old.extend(new),
                _ => merge(old, new),
            },
            (Value::Array(old), Value::Array(new)) => {
                for item in new {
                    if !old.contains(&item) {
                        old.push(item);
                    }
                }
            }
            (old, new) if !is_zero(&new) => *old = new,
            _ => {}
        }
    }
}

/// Tables deeply, everything else as a whole.
fn replace(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => replace(old, new),
            (_, value) => drop(into.insert(key, value)),
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
