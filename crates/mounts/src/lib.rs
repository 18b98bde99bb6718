//! The mount manager: mounts that no `mount(2)` alone can make, kept by the daemon for tasks and clients.
//!
//! A list of mounts may hold types that the system does not know: a device to be set up first (`loop`), or a mount whose
//! options depend on the mounts before it (`format/overlay` with `{{ mount 0 }}`), on a directory (`mkdir/…`) or on a
//! filesystem that must be made (`mkfs/ext4`). [`Manager::activate`] performs the list up to there and answers what is
//! left for the system, which a shim then mounts in the container's name:
//!
//! ```text
//!  loop  /images/a.img                                    done here: t/7/0 -> /dev/loop3
//!  ext4  {{ mount 0 }}        (as format/ext4)            done here: mounted at t/7/1
//!  format/overlay  lowerdir={{ mount 1 }}                 left over: overlay lowerdir=…/t/7/1
//! ```
//!
//! A list that needs none of this answers Unimplemented, and its owner mounts it without us. The record of an activation
//! is written before anything is mounted, so that a restart knows what may exist:
//!
//! ```text
//!  <state>/io.containerd.mount-manager.v1.records/
//!     records/7.json     what was asked for, what is mounted (once it is), what is left
//!     t/7/0, t/7/1       mount points; a link for a device
//! ```
//!
//! This crate knows no database: labels and leases are kept for the garbage collector, which asks [`Manager::held`] and
//! says what goes by [`Manager::collect`].

#![forbid(unsafe_code)]

mod device;
mod format;
mod keys;
mod manager;
mod mkdir;
mod mkfs;
mod plan;
mod record;
mod roots;
mod targets;

pub use manager::{Activate, Held, Manager};
pub use record::{Activation, Active};

/// What [`Manager::activate`] says of a list that needs nothing of it.
pub const NOTHING_TO_DO: &str = "not implemented";

/// Whether anything of `mounts` is for [`Manager::activate`].
pub fn needs_activation(mounts: &[types::mount::Mount]) -> bool {
    plan::plan(mounts, false, &[]).is_some()
}

/// For fuzzing: expands the templates of one option.
#[doc(hidden)]
pub use format::expand;
