//! The nouns every layer of containerd-rs shares.
//!
//! Nothing here does I/O, blocks or needs `unsafe` (but for [`crash`], in debug builds): these are the values that travel between the stores, the
//! database, the shim and the two front doors, and the rules about them that hold everywhere (what an identifier
//! is, when a filter matches, which error class a failure has).

#![forbid(unsafe_code)]

pub mod any;
pub mod container;
pub mod content;
pub mod crash;
pub mod digest;
pub mod duration;
pub mod error;
pub mod events;
pub mod fields;
pub mod filters;
pub mod image;
pub mod labels;
pub mod lease;
pub mod mount;
pub mod namespace;
pub mod oci;
pub mod output;
pub mod platform;
pub mod reference;
pub mod sandbox;
pub mod scope;
pub mod signal;
pub mod snapshot;
pub mod task;
pub mod time;
pub mod undo;
pub mod untrusted;
pub mod version;
pub mod view;

pub use any::Any;
pub use digest::Digest;
pub use error::{Class, Error, Result, ResultExt};
pub use labels::Labels;
pub use namespace::Namespace;
pub use scope::Scope;
