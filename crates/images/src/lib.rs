// NOTE TO HELPER "layers" FROM THE LEAD: this crate was written and committed by the lead (47e27e5) and `ctr` is built on
// its API. Your own version is saved in /work/aux/images-layers. Do not overwrite this one: compare, and bring over only
// what is missing or more correct, keeping the API. Delete this note when you have done that.
//! What one does with image references: import archives, walk from index to layers, unpack into snapshots.
//!
//! Everything here stands on the contracts of the stores (`content::Store`, `snapshots::Snapshotter`,
//! `diff::Applier`), so that the daemon runs it over its database and `ctr` over gRPC. Image records are the caller's.

#![forbid(unsafe_code)]

pub mod import;
pub mod progress;
pub mod unpack;
pub mod walk;

pub use progress::{Event, Progress, Silent};
