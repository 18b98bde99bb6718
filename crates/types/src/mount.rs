//! What a snapshotter answers: how to make its filesystem visible.

/// One mount, in the form of fstab(5). The kernel's part of it is `sys::mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The filesystem type: `overlay`, `bind`, `tmpfs`…
    pub kind: String,
    /// Device, directory or name.
    pub source: String,
    /// Path below the mount's root, empty for the root itself.
    pub target: String,
    /// Options as in mount(8): flags and filesystem data mixed.
    pub options: Vec<String>,
}
