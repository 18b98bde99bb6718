//! Layer to filesystem: apply, compression, whiteouts.
//!
//! ```text
//!  applier       the contract: a layer of the content store onto mounts
//!  walking       the applier for tar archives; decides where the files go
//!  pipeline      inflate, hash and extract side by side
//!  compression   what the first bytes say, streaming readers
//!  tar           archives of strangers, read by Go's rules
//!  extract       entries onto a directory, never beyond it
//! ```

#![forbid(unsafe_code)]

pub mod applier;
pub mod compression;
pub mod extract;
mod pipeline;
pub mod tar;
pub mod walking;

pub use applier::{Applied, Applier, ApplyOptions};
pub use walking::WalkingApplier;
