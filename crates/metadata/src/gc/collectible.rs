//! What does not stand in the database and is collected with it all the same: open streams, active mounts.

use async_trait::async_trait;
use types::{Labels, Namespace};

use super::node::Node;
use super::reference::{self, Reference};

/// A kind of things outside the database that leases and labels of the database's rows keep.
///
/// A collection asks for all of them, marks, and hands back those that nothing keeps:
///
/// ```text
///   items()    everything there is, whoever keeps it
///   release()  those that are neither active, nor held by a live lease, nor referred to by a label
///              `containerd.io/gc.ref.<kind>` of something live, nor have a label `containerd.io/gc.bref.…` that names
///              something live
/// ```
///
/// Between the two it may change; `release` looks again at what it knows better, e.g. whether a stream was taken.
#[async_trait]
pub trait Collectible: Send + Sync {
    /// What labels call it: `stream`, `mount`.
    fn kind(&self) -> &'static str;

    /// All there are at this moment.
    async fn items(&self) -> Vec<Item>;

    /// Lets go of what nothing keeps. What fails is logged there and offered again by the next collection.
    async fn release(&self, dead: Vec<(Namespace, String)>);
}

/// One of these things.
#[derive(Clone, Debug)]
pub struct Item {
    /// Whose it is.
    pub namespace: Namespace,
    /// Its id within namespace and kind.
    pub id: String,
    /// It keeps itself.
    pub active: bool,
    /// The lease that holds it.
    pub lease: Option<String>,
    /// Its labels; those called `containerd.io/gc.bref.…` count.
    pub labels: Labels,
}

impl Item {
    /// What keeps it, by its labels.
    pub(super) fn kept_by(&self) -> Vec<Node<'_>> {
        let mut all = Vec::new();
        for (label, value) in &self.labels {
            reference::read(label, value, &[], &mut |reference| {
                if let Reference::From(target) = reference {
                    all.push(Node {
                        kind: target.kind,
                        namespace: self.namespace.as_str(),
                        group: target.group,
                        key: target.key,
                    });
                }
            });
        }
        all
    }
}

/// What a collectible had when the mark began.
pub(super) struct Known {
    pub(super) kind: &'static str,
    pub(super) items: Vec<Item>,
}
