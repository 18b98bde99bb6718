//! Content, snapshots, diff and sandboxes of another process over gRPC.
//!
//! `ctr` sees the daemon's stores through these, and the daemon the proxy plugins'. A [`Connection`] is a lazily
//! opened channel on a unix socket together with the scope (namespace and lease) that every call carries; the stores
//! are bound to the scope of the connection they were made from.
//!
//! Errors keep their class, and read as containerd's Go clients print them (`status`).

#![forbid(unsafe_code)]

mod connection;
mod content;
mod diff;
mod patience;
mod sandbox;
mod snapshots;
mod status;

pub use connection::{Connection, Headers, MAX_MESSAGE, Transport};
pub use content::RemoteStore;
pub use diff::{RemoteApplier, RemoteDiffer};
pub use sandbox::RemoteController;
pub use snapshots::RemoteSnapshotter;
pub use status::{from_status, text};
