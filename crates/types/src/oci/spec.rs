//! The OCI runtime spec as we produce it: its document, upstream's default, and the changes that clients ask for.
//!
//! Fields and their order are those of the Go types (runtime-spec 1.3), so that what we write is what upstream writes.
//! Nobody's spec is read into these types and written back: they hold only the fields that are produced here.
//!
//! - `document`: the fields
//! - `defaults`: namespaces, mounts, capabilities, masked and read-only paths, device rules of a new container
//! - `changes`: what one does to a spec, one method each
//! - `capabilities`: their names
//! - `seccomp`: the default filter

mod capabilities;
mod changes;
mod defaults;
mod document;
mod seccomp;

pub use capabilities::{CAPABILITIES, from_bits};
pub use changes::merge_env;
pub use document::*;
pub use seccomp::{Arg, Seccomp, Syscall, default_profile};

/// The version of the runtime spec that is written.
pub const VERSION: &str = "1.3.0";
