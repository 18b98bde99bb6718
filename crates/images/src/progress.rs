//! What happens while a pull, a push, an import or an unpack runs, for whoever draws it.
//!
//! Of each thing that a pull needs, in this order: `Found`, then `Exists`, or `Fetching` again and again and `Fetched`; of a
//! layer that is unpacked also `Unpacking`, `Extracting` again and again (beside `Fetching`, as both happen at once) and
//! `Unpacked`. Of each thing that is pushed: `Found`, then `Exists`, or `Sending` again and again and `Sent`.

use types::Digest;
use types::oci::Descriptor;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A member of an archive is being stored; its size in bytes.
    Member(&'a str, u64),
    /// So many more bytes of it were stored.
    Stored(u64),
    /// A pull needs this: what it is, and the index or manifest that names it. Nothing is done about it yet.
    Found(&'a Descriptor, Option<&'a Digest>),
    /// It is there already.
    Exists(&'a Digest),
    /// So many bytes of so many are there.
    Fetching(&'a Digest, u64, u64),
    /// It is there now.
    Fetched(&'a Digest),
    /// So many bytes of so many have been sent to a registry.
    Sending(&'a Digest, u64, u64),
    /// It is in the registry now.
    Sent(&'a Digest),
    /// So many bytes of so many of a layer's blob have been extracted.
    Extracting(&'a Digest, u64, u64),
    /// A layer is being unpacked; the size of its blob in bytes.
    Unpacking(&'a Digest, u64),
    /// A layer is in the snapshotter.
    Unpacked(&'a Digest),
}

/// Who draws. Called from the task that works, so it must not block.
pub trait Progress: Send + Sync {
    /// Takes note of `event`.
    fn report(&self, event: Event<'_>);
}

/// Draws nothing.
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _event: Event<'_>) {}
}
