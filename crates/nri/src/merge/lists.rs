//! What there is a list of, each with a key: mounts, devices, variables, namespaces.

use std::collections::BTreeSet;

use types::Result;

use super::Both;
use crate::owners::{By, Owners, removal};
use crate::wire::{Field, KeyValue, LinuxDevice, LinuxNamespace, Mount};

/// Mounts, by where they are.
pub fn mounts(owners: &mut Owners, by: By<'_>, asked: Vec<Mount>, both: Both<'_, Vec<Mount>>) -> Result<()> {
    let key = |mount: &Mount| mount.destination.clone();
    let (now, all) = both;
    let changed = adjust(owners, by, Field::Mounts, asked, (all, &key))?;
    now.retain(|mount| !changed.keys.contains(&mount.destination));
    now.extend(changed.added);
    Ok(())
}

/// Devices, by their paths.
pub fn devices(
    owners: &mut Owners,
    by: By<'_>,
    asked: Vec<LinuxDevice>,
    (now, all): Both<'_, Vec<LinuxDevice>>,
) -> Result<()> {
    let key = |device: &LinuxDevice| device.path.clone();
    let changed = adjust(owners, by, Field::Devices, asked, (all, &key))?;
    now.retain(|device| !changed.keys.contains(&device.path));
    now.extend(changed.added);
    Ok(())
}

/// Variables, by their names.
pub fn env(
    owners: &mut Owners,
    by: By<'_>,
    asked: Vec<KeyValue>,
    (now, all): (&mut Vec<String>, &mut Vec<KeyValue>),
) -> Result<()> {
    let changed = adjust(owners, by, Field::Env, asked, (all, &|variable: &KeyValue| variable.key.clone()))?;
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    now.retain(|variable| !changed.keys.contains(&name(variable)));
    now.extend(changed.added.iter().map(|variable| format!("{}={}", variable.key, variable.value)));
    Ok(())
}

/// Namespaces, by their types. Who removes one has it as well.
pub fn namespaces(
    owners: &mut Owners,
    by: By<'_>,
    asked: Vec<LinuxNamespace>,
    (now, all): Both<'_, Vec<LinuxNamespace>>,
) -> Result<()> {
    for namespace in asked {
        let removed = removal(&namespace.r#type);
        let key = removed.unwrap_or(&namespace.r#type);
        owners.claim_entry(by, Field::Namespace, key)?;
        now.retain(|other| other.r#type != key);
        if removed.is_none() {
            now.push(namespace.clone());
        }
        all.push(namespace);
    }
    Ok(())
}

/// What a plugin has changed.
struct Changed<T> {
    /// Removed or set.
    keys: BTreeSet<String>,
    added: Vec<T>,
}

/// A list, and what tells its entries apart.
type Keyed<'a, T> = (&'a mut Vec<T>, &'a dyn Fn(&T) -> String);

/// Adds what a plugin asks for to the list of all that is asked for, marks for removal first.
fn adjust<T: Clone>(
    owners: &mut Owners,
    by: By<'_>,
    field: Field,
    asked: Vec<T>,
    (all, key): Keyed<'_, T>,
) -> Result<Changed<T>> {
    let (marks, added): (Vec<T>, Vec<T>) = asked.into_iter().partition(|one| removal(&key(one)).is_some());
    let mut keys: BTreeSet<String> =
        marks.iter().filter_map(|mark| removal(&key(mark)).map(str::to_owned)).collect();
    all.retain(|one| {
        let stays = !keys.contains(&key(one));
        if !stays {
            owners.clear_entry(by, field, &key(one));
        }
        stays
    });
    all.extend(marks);
    for one in &added {
        let key = key(one);
        owners.claim_entry(by, field, &key)?;
        keys.insert(key);
    }
    all.extend(added.iter().cloned());
    Ok(Changed { keys, added })
}
