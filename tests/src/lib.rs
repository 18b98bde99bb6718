//! The harness of the black-box suite: private daemons, images made on the spot, commands with deadlines, a ledger of
//! everything that a container can leave behind.
//!
//! The suite knows containerd only from outside: the binaries are named by the environment (see [`binaries`]), so that the
//! same tests run against this project's programs and against upstream's. A test that promises more than upstream does
//! begins with [`binaries::beyond_upstream`].
//!
//! ```text
//!   Daemon  -- private root, state and socket below one temporary directory; gone, with all it started, on drop
//!     |
//!     +-- ctr([...]) -> Invocation -> Finished     every command has a deadline
//!     +-- namespace                                unique, so that what is left behind has an owner
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test harness fails by panicking")]

pub mod api;
pub mod archive;
pub mod binaries;
pub mod chance;
pub mod command;
pub mod cri;
pub mod daemon;
pub mod deadline;
pub mod kubelet;
pub mod ledger;
pub mod network;
pub mod nri;
pub mod proc;
pub mod records;
pub mod rpc;
pub mod sandboxer;
pub mod tar;
pub mod terminal;
pub mod websocket;

pub use api::Api;
pub use chance::Chance;
pub use command::{Finished, Invocation};
pub use cri::Cri;
pub use daemon::Daemon;
pub use deadline::{eventually, eventually_within};
pub use kubelet::Kubelet;
pub use ledger::Ledger;
pub use network::HostNetwork;
pub use records::Records;
pub use rpc::Rpc;
pub use sandboxer::Sandboxer;
pub use websocket::WebSocket;
