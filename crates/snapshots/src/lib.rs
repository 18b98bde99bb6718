//! Filesystems in layers: the Snapshotter contract, overlayfs, native.

#![forbid(unsafe_code)]

pub mod snapshotter;

pub use snapshotter::Snapshotter;
