//! Whose each adjusted thing is: what one plugin has set, no other may set as well, unless it has removed it before.

use crate::wire::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};
use types::{Error, Result};

/// Marks a name for removal; in owners: who has removed something.
pub const REMOVED: char = '-';

/// The name that is to be removed, if it is.
pub fn removal(name: &str) -> Option<&str> {
    name.strip_prefix(REMOVED)
}

/// A name that is to be removed.
pub fn to_remove(name: &str) -> String {
    format!("{REMOVED}{name}")
}

/// Who does something, and to which container.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The plugin, `NN-name`.
    pub plugin: &'a str,
    /// The container's id.
    pub container: &'a str,
}

/// By container.
#[derive(Clone, Debug, Default)]
pub struct Owners(OwningPlugins);

impl Owners {
    /// Takes a thing that there is one of.
    pub fn claim(&mut self, by: By<'_>, field: Field) -> Result<()> {
        let owners = self.of(by);
        refuse(by, field, None, owners.simple.get(&(field as i32)))?;
        owners.simple.insert(field as i32, by.plugin.to_owned());
        Ok(())
    }

    /// Takes one of many, by its key.
    pub fn claim_entry(&mut self, by: By<'_>, field: Field, key: &str) -> Result<()> {
        let owners = &mut self.of(by).compound.entry(field as i32).or_default().owners;
        refuse(by, field, Some(key), owners.get(key))?;
        owners.insert(key.to_owned(), by.plugin.to_owned());
        Ok(())
    }

    /// Removes a thing, to set it anew.
    pub fn clear(&mut self, by: By<'_>, field: Field) {
        self.of(by).simple.insert(field as i32, to_remove(by.plugin));
    }

    /// Removes one of many, to set it anew.
    pub fn clear_entry(&mut self, by: By<'_>, field: Field, key: &str) {
        let entry = self.of(by).compound.entry(field as i32).or_default();
        entry.owners.insert(key.to_owned(), to_remove(by.plugin));
    }

    /// Adds to a thing that is everybody's.
    pub fn share(&mut self, by: By<'_>, field: Field) {
        let owner = self.of(by).simple.entry(field as i32).or_default();
        if !owner.is_empty() {
            owner.push(',');
        }
        owner.push_str(by.plugin);
    }

    /// As validators are told.
    pub fn to_wire(&self) -> OwningPlugins {
        self.0.clone()
    }

    fn of(&mut self, by: By<'_>) -> &mut FieldOwners {
        self.0.owners.entry(by.container.to_owned()).or_default()
    }
}

/// The owner of a thing.
pub fn owner<'a>(owners: Option<&'a OwningPlugins>, container: &str, field: Field) -> Option<&'a str> {
    owners?.owners.get(container)?.simple.get(&(field as i32)).map(String::as_str)
}

/// The owners of many things, by key.
pub fn entries<'a>(
    owners: Option<&'a OwningPlugins>,
    container: &str,
    field: Field,
) -> Option<&'a CompoundFieldOwners> {
    owners?.owners.get(container)?.compound.get(&(field as i32))
}

fn refuse(by: By<'_>, field: Field, key: Option<&str>, owner: Option<&String>) -> Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let other = match removal(owner) {
        Some(plugin) if plugin == by.plugin => return Ok(()),
        Some(plugin) => plugin,
        None => owner,
    };
    let (name, key) = (field.as_str_name(), key.unwrap_or_default());
    let text = format!("plugins {:?} and {other:?} both tried to set {name} {key}", by.plugin);
    Err(Error::precondition(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: By<'_> = By { plugin: "10-a", container: "c" };
    const B: By<'_> = By { plugin: "20-b", container: "c" };

    #[test]
    fn what_one_has_set_no_other_sets() {
        let mut owners = Owners::default();
        owners.claim(A, Field::Args).unwrap();
        owners.claim_entry(A, Field::Env, "X").unwrap();
        owners.claim_entry(B, Field::Env, "Y").unwrap();
        let error = owners.claim_entry(B, Field::Env, "X").unwrap_err().to_string();
        assert_eq!(error, r#"plugins "20-b" and "10-a" both tried to set Env X"#);
        let error = owners.claim(B, Field::Args).unwrap_err().to_string();
        assert_eq!(error, r#"plugins "20-b" and "10-a" both tried to set Args"#);
        owners.claim(By { container: "other", ..B }, Field::Args).unwrap();
    }

    #[test]
    fn who_has_removed_it_may_set_it_and_nobody_else() {
        let mut owners = Owners::default();
        owners.claim_entry(A, Field::Mounts, "/d").unwrap();
        owners.clear_entry(B, Field::Mounts, "/d");
        owners.claim_entry(A, Field::Mounts, "/d").unwrap_err();
        owners.claim_entry(B, Field::Mounts, "/d").unwrap();
        owners.claim(A, Field::Args).unwrap();
        owners.clear(B, Field::Args);
        owners.claim(B, Field::Args).unwrap();
    }

    #[test]
    fn hooks_are_everybodys() {
        let mut owners = Owners::default();
        owners.share(A, Field::OciHooks);
        owners.share(B, Field::OciHooks);
        let wire = owners.to_wire();
        assert_eq!(owner(Some(&wire), "c", Field::OciHooks), Some("10-a,20-b"));
        assert_eq!(owner(Some(&wire), "other", Field::OciHooks), None);
        assert!(entries(Some(&wire), "c", Field::Env).is_none());
    }
}
