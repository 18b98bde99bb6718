//! OCI hooks: everybody may add some.

use super::Both;
use crate::owners::{By, Owners};
use crate::wire::{Field, Hooks};

/// Adds those of a plugin.
pub fn add(owners: &mut Owners, by: By<'_>, asked: Hooks, (now, all): Both<'_, Option<Hooks>>) {
    if asked == Hooks::default() {
        return;
    }
    owners.share(by, Field::OciHooks);
    for into in [now, all] {
        let (into, asked) = (into.get_or_insert_default(), asked.clone());
        into.prestart.extend(asked.prestart);
        into.create_runtime.extend(asked.create_runtime);
        into.create_container.extend(asked.create_container);
        into.start_container.extend(asked.start_container);
        into.poststart.extend(asked.poststart);
        into.poststop.extend(asked.poststop);
    }
}
