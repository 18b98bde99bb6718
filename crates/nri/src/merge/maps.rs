//! What there is one of by key: annotations, sysctls, network devices.

use std::collections::BTreeMap;

use types::Result;

use super::Both;
use crate::owners::{By, Owners, removal, to_remove};
use crate::wire::Field;

/// Adds what a plugin asks for.
pub fn adjust<V: Clone + Default>(
    owners: &mut Owners,
    by: By<'_>,
    field: Field,
    asked: BTreeMap<String, V>,
    (now, all): Both<'_, BTreeMap<String, V>>,
) -> Result<()> {
    let (removed, set): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(key, _)| removal(key).is_some());
    for (marked, _) in &removed {
        let key = removal(marked).unwrap_or_default();
        now.remove(key);
        if all.remove(key).is_some() || set.iter().any(|(other, _)| other == key) {
            owners.clear_entry(by, field, key);
        }
        all.insert(to_remove(key), V::default());
    }
    for (key, value) in set {
        owners.claim_entry(by, field, &key)?;
        now.insert(key.clone(), value.clone());
        all.insert(key, value);
    }
    Ok(())
}
