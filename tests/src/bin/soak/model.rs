//! What a client believes: everything that was acknowledged and not deleted since.

use std::collections::{BTreeMap, BTreeSet};

/// One client's objects, all in one namespace.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Where they are.
    pub namespace: String,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// Leases by id.
    pub leases: BTreeMap<String, Lease>,
    /// Snapshots that are roots of the collection themselves, each with its parent, or an empty text.
    pub snapshots: BTreeMap<String, String>,
    /// Containers by id.
    pub containers: BTreeMap<String, Container>,
    /// What stands on what, of the snapshots that images are unpacked to.
    pub parents: BTreeMap<String, String>,
}

/// What an image keeps.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The digest that its name points to.
    pub target: String,
    /// The size of that blob.
    pub size: usize,
    /// All its blobs, the target included.
    pub blobs: BTreeSet<String>,
    /// The snapshots that it was unpacked to.
    pub snapshots: BTreeSet<String>,
}

/// What a lease keeps.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Digests.
    pub blobs: BTreeSet<String>,
    /// Keys, each with its parent.
    pub snapshots: BTreeMap<String, String>,
    /// References of unfinished writes.
    pub ingests: BTreeSet<String>,
}

/// A container, with its snapshot of the same name.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// The parent of its snapshot.
    pub parent: String,
    /// The process, while it runs.
    pub pid: Option<i32>,
}

impl Model {
    /// Nothing yet.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Every blob that must be there.
    pub fn blobs(&self) -> BTreeSet<String> {
        let of_images = self.images.values().flat_map(|image| &image.blobs);
        of_images.chain(self.leases.values().flat_map(|lease| &lease.blobs)).cloned().collect()
    }

    /// Every snapshot that must be there, with those that it stands on.
    pub fn all_snapshots(&self) -> BTreeSet<String> {
        let of_images = self.images.values().flat_map(|image| image.snapshots.iter());
        let leased = self.leases.values().flat_map(|lease| lease.snapshots.iter());
        let pairs = leased.chain(&self.snapshots).flat_map(|(key, parent)| [key, parent]);
        let containers = self.containers.iter().flat_map(|(id, container)| [id, &container.parent]);
        let mut all = BTreeSet::new();
        for mut key in of_images.chain(pairs).chain(containers).filter(|key| !key.is_empty()) {
            while all.insert(key.clone()) {
                let Some(below) = self.parents.get(key) else { break };
                key = below;
            }
        }
        all
    }

    /// Every unfinished write that must be there.
    pub fn ingests(&self) -> BTreeSet<String> {
        self.leases.values().flat_map(|lease| &lease.ingests).cloned().collect()
    }

    /// How much there is, for people.
    pub fn size(&self) -> String {
        format!(
            "{} images, {} leases, {} containers, {} blobs, {} snapshots",
            self.images.len(),
            self.leases.len(),
            self.containers.len(),
            self.blobs().len(),
            self.all_snapshots().len()
        )
    }
}
