//! Whether mounts that are made later are seen on the other side.

use std::path::Path;

use api::cri::{Mount, MountPropagation};
use sys::mount::table::{self, Entry};
use types::{Error, Result};

/// How a mount is tied to the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    /// Not.
    Private,
    /// The container sees what the host mounts.
    Slave,
    /// And the host sees what the container mounts.
    Shared,
}

impl Propagation {
    /// As an option.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Private => "rprivate",
            Self::Slave => "rslave",
            Self::Shared => "rshared",
        }
    }

    /// What the root filesystem must be for such a mount: never less than before.
    pub(super) fn of_root(self, root: &mut String) {
        match self {
            Self::Private => {}
            Self::Slave if root == "rshared" || root == "rslave" => {}
            Self::Slave | Self::Shared => *root = self.word().to_owned(),
        }
    }
}

/// The host's mounts, read when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Table(Option<Vec<Entry>>);

impl Table {
    /// What the request asks for, if the mount that `source` is on can give it.
    pub(super) fn check(&mut self, source: &str, mount: &Mount) -> Result<Propagation> {
        let (propagation, tags, what): (_, &[&str], _) = match MountPropagation::try_from(mount.propagation) {
            Ok(MountPropagation::PropagationHostToContainer) => {
                (Propagation::Slave, &["shared:", "master:"], "a shared or slave")
            }
            Ok(MountPropagation::PropagationBidirectional) => (Propagation::Shared, &["shared:"], "a shared"),
            Ok(MountPropagation::PropagationPrivate) | Err(_) => return Ok(Propagation::Private),
        };
        let entry = self.below(source)?;
        let has = |tag: &String| tags.iter().any(|wanted| tag.starts_with(wanted));
        if entry.propagation.iter().any(has) {
            return Ok(propagation);
        }
        let target = entry.target.display();
        Err(Error::precondition(format!(
            "path {source:?} is mounted on \"{target}\" but it is not {what} mount"
        )))
    }

    /// What the host has set for all of cgroup v2.
    pub(super) fn of_cgroup(&mut self) -> Vec<String> {
        let Ok(entry) = self.below("/sys/fs/cgroup") else { return Vec::new() };
        let kept = entry.data.split(',').filter(|word| ["nsdelegate", "memory_recursiveprot"].contains(word));
        kept.map(str::to_owned).collect()
    }

    /// The mount that a path is on: of those with the longest target the last one, which hides the others.
    fn below(&mut self, path: &str) -> Result<&Entry> {
        let entries = match &mut self.0 {
            Some(entries) => entries,
            empty @ None => empty.insert(table::read()?),
        };
        let on = entries.iter().filter(|entry| Path::new(path).starts_with(&entry.target));
        on.max_by_key(|entry| entry.target.components().count())
            .ok_or_else(|| Error::not_found(format!("failed to find the mount info of {path:?}")))
    }
}
