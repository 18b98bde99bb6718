//! Network configurations and the protocol to CNI plugins: libcni 1.1, and on it what containerd's clients make of it.
//!
//! ```text
//!  Networks      the networks of a directory, eth0, eth1, ...; a container is set up in all of them
//!    Cni         the verbs for one network: ADD, CHECK, DEL, STATUS, GC, VERSION
//!      conf      a network: its plugins, in order        directory   networks in files
//!      result    what ADD answers, in all its versions   cache       what was added, for those who remove it
//!      runner    who does it:                            abandoned   programs whose caller was killed
//!        plugin  a program: found, run, bounded, killed        builtin    the same without a program
//! ```
//!
//! Files and bytes are libcni's, so that a container which a Go program has attached is detached here, and the other way
//! round. Nothing here knows of pods or of containerd's database: callers are `ctr` and, later, the CRI.
//!
//! A plugin is somebody else's program: it gets a time, its output a bound, and what it says is parsed, never pasted. Names
//! become file names and environment only after [`names`] has passed them.

#![forbid(unsafe_code)]

pub mod abandoned;
mod builtin;
mod cache;
pub mod capability;
pub mod conf;
pub mod directory;
mod error;
mod merged;
pub mod names;
mod networks;
mod plugin;
pub mod result;
mod runner;
mod verbs;
pub mod version;

pub use builtin::Builtin;
pub use cache::{Entry, Key};
pub use conf::Network;
pub use error::PluginError;
pub use merged::{InterfaceConfig, IpConfig, Merged};
pub use networks::{Loopback, Networks, Options, Order, Settings};
pub use plugin::Limits;
pub use result::AddResult;
pub use verbs::{Attachment, Cni};
