//! Filesystems in layers: the Snapshotter contract, overlayfs, native.

#![forbid(unsafe_code)]

mod area;
mod blocking;
mod index;
pub mod native;
pub mod overlay;
mod records;
pub mod shift;
pub mod snapshotter;
mod sync;
pub mod testsuite;
mod usage;

pub use snapshotter::Snapshotter;
