//! What is adjusted of the mounts.

use std::path::Path;

use serde_json::{Map, Value, json};
use types::{Error, Result};

use super::edit::{list, set};
use super::{Propagation, Tools};
use crate::owners::removal;
use crate::wire::Mount;

/// Removes and adds mounts, and sorts all of them: what is nearer to the root first.
pub fn adjust(spec: &mut Value, asked: &[Mount], tools: &Tools<'_>) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    for mount in asked {
        let destination = removal(&mount.destination).unwrap_or(&mount.destination);
        if destination.is_empty() {
            return Err(Error::invalid("a mount without a destination"));
        }
        let all = list(spec, "/mounts")?;
        all.retain(|had| at(had) != destination);
        if removal(&mount.destination).is_some() {
            continue;
        }
        all.push(made(mount));
        if let Some(root) = wanted_of_root(spec, mount, tools)? {
            set(spec, "/linux/rootfsPropagation", json!(root))?;
        }
    }
    list(spec, "/mounts")?.sort_by(|a, b| depth(at(a)).cmp(&depth(at(b))).then_with(|| at(a).cmp(at(b))));
    Ok(())
}

fn at(mount: &Value) -> &str {
    mount.get("destination").and_then(Value::as_str).unwrap_or_default()
}

/// How many directories lead there.
fn depth(destination: &str) -> usize {
    Path::new(destination).components().filter(|part| !matches!(part, std::path::Component::RootDir)).count()
}

fn made(mount: &Mount) -> Value {
    let mut made = Map::from_iter([("destination".to_owned(), json!(mount.destination))]);
    for (key, text) in [("type", &mount.r#type), ("source", &mount.source)] {
        if !text.is_empty() {
            made.insert(key.to_owned(), json!(text));
        }
    }
    if !mount.options.is_empty() {
        made.insert("options".to_owned(), json!(mount.options));
    }
    Value::Object(made)
}

/// How the root must be propagated for this mount to be; none where it may stay as it is.
fn wanted_of_root(spec: &Value, mount: &Mount, tools: &Tools<'_>) -> Result<Option<&'static str>> {
    let wanted = mount.options.iter().rev().find_map(|option| match option.as_str() {
        "rshared" => Some(Propagation::Shared),
        "rslave" => Some(Propagation::Slave),
        "rprivate" => Some(Propagation::Private),
        _ => None,
    });
    let Some(wanted) = wanted.filter(|wanted| *wanted != Propagation::Private) else { return Ok(None) };
    let had = (tools.propagation)(Path::new(&mount.source))?;
    if had != Propagation::Shared && had != wanted {
        let wanted = if wanted == Propagation::Shared { "rshared" } else { "rshared or rslave" };
        let text = format!("path {:?} mount propagation is {had:?}, not {wanted}", mount.source);
        return Err(Error::precondition(text));
    }
    let root = spec.pointer("/linux/rootfsPropagation").and_then(Value::as_str).unwrap_or_default();
    Ok(match wanted {
        Propagation::Shared => Some("rshared"),
        Propagation::Slave if root != "rshared" && root != "rslave" => Some("rslave"),
        Propagation::Slave | Propagation::Private => None,
    })
}
