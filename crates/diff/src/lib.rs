//! Layer to filesystem: apply, compression, whiteouts.

#![forbid(unsafe_code)]

pub mod applier;

pub use applier::{Applied, Applier, ApplyOptions};
