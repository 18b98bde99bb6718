//! Layer to filesystem and back: apply, compare, compression, whiteouts.
//!
//! ```text
//!  applier       the contract: a layer of the content store onto mounts
//!  walking       the applier for tar archives; decides where the files go
//!  differ        the contract: what differs between two filesystems as a layer in the content store
//!  compare       the differ: walks both, or an overlay's upper directory alone
//!  stack         what mounts are made of
//!  blob          a blob of the content store as a reader
//!  pipeline      inflate, hash and extract side by side
//!  arriving      a layer that is extracted while it arrives
//!  compression   what the first bytes say, streaming readers
//!  encoder       compressing on several cores, always to the same bytes
//!  tar           archives of strangers, read by Go's rules, and our own
//!  extract       entries onto a directory, never beyond it
//!  verify        whether a filesystem still has what a layer put there
//! ```

#![forbid(unsafe_code)]

pub mod applier;
pub mod arriving;
pub mod blob;
pub mod compare;
pub mod compression;
pub mod differ;
pub mod encoder;
pub mod extract;
pub mod pipeline;
mod stack;
pub mod tar;
pub mod verify;
pub mod walking;

pub use applier::{Applied, Applier, ApplyOptions};
pub use compare::WalkingDiffer;
pub use differ::{CompareOptions, Differ};
pub use walking::WalkingApplier;
