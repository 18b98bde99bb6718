//! What a collection calls the things that refer to each other.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Lease,
    Image,
    Container,
    Sandbox,
    Ingest,
    Content,
    Snapshot,
    /// Something of a [`Collectible`](super::Collectible).
    Other,
}

/// A thing, whether or not it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    /// The snapshotter of a snapshot; what a collectible calls its things.
    pub(super) group: &'a str,
    /// Its id, name, key, reference or digest.
    pub(super) key: &'a str,
}

impl<'a> Node<'a> {
    pub(super) fn new(kind: Kind, namespace: &'a str, key: &'a str) -> Self {
        Self { kind, namespace, group: "", key }
    }

    pub(super) fn snapshot(namespace: &'a str, snapshotter: &'a str, key: &'a str) -> Self {
        Self { kind: Kind::Snapshot, namespace, group: snapshotter, key }
    }

    pub(super) fn to_owned(self) -> Owned {
        Owned {
            kind: self.kind,
            namespace: self.namespace.to_owned(),
            group: self.group.to_owned(),
            key: self.key.to_owned(),
        }
    }
}

/// A thing whose names are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owned {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) key: String,
}

impl Owned {
    pub(super) fn node(&self) -> Node<'_> {
        Node { kind: self.kind, namespace: &self.namespace, group: &self.group, key: &self.key }
    }
}

/// A thing's number within one collection.
pub(super) type Id = u128;

/// Numbers for things. They are hashes under keys that nobody knows, of 128 bits, so that two things never share one, and
/// a hundred thousand of them are two megabytes.
pub(super) struct Ids {
    high: RandomState,
    low: RandomState,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { high: RandomState::new(), low: RandomState::new() }
    }

    pub(super) fn of(&self, node: Node<'_>) -> Id {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write_u8(node.kind as u8);
            for part in [node.namespace, node.group, node.key] {
                hasher.write(part.as_bytes());
                // No text has this byte, so where one ends is part of the hash.
                hasher.write_u8(0xff);
            }
            u128::from(hasher.finish())
        };
        half(&self.high) << 64 | half(&self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_with_other_names_have_other_numbers() {
        let ids = Ids::new();
        let all = [
            Node::new(Kind::Image, "a", "b"),
            Node::new(Kind::Content, "a", "b"),
            Node::new(Kind::Image, "ab", ""),
            Node::new(Kind::Image, "", "ab"),
            Node::snapshot("a", "b", "c"),
            Node::snapshot("a", "bc", ""),
            Node::snapshot("a", "", "bc"),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(ids.of(*one) == ids.of(*other), i == j, "{one:?} {other:?}");
            }
        }
        assert_ne!(Ids::new().of(all[0]), ids.of(all[0]), "and other ones each time");
    }
}
