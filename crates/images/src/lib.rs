//! What one does with image references: pull, import and export archives, convert, walk from index to layers, unpack into
//! snapshots.
//!
//! Everything here stands on the contracts of the stores (`content::Store`, `snapshots::Snapshotter`,
//! `diff::Applier`), so that the daemon runs it over its database and `ctr` over gRPC. Image records are the caller's.

#![forbid(unsafe_code)]

mod cancel;
pub mod convert;
pub mod export;
pub mod import;
pub mod progress;
pub mod pull;
pub mod push;
pub mod unpack;
pub mod walk;

pub use progress::{Event, Progress, Silent};
