//! What happens while an import or an unpack runs, for whoever draws it.

use types::Digest;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A member of an archive is being stored; its size in bytes.
    Member(&'a str, u64),
    /// So many more bytes of it were stored.
    Stored(u64),
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
