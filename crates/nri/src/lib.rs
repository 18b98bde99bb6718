//! NRI 0.12, the node resource interface: plugins that are told what happens to pods and containers, and adjust containers
//! before they are made.
//!
//! ```text
//!  nri      what the CRI calls: one hook after the other, plugins in the order of their indices
//!  plugin   one plugin: how it comes (launched, or by connecting), what it is asked       mux    two connections over one socket
//!  merge    what plugins answer, as one; two that want the same thing are a conflict       owners whose each thing is
//!  spec     an adjustment, done to an OCI spec; and what an OCI spec says, for plugins     validator  what may be adjusted at all
//!  observe  what plugins were asked, for who counts
//!  stages   what plugins were told of each pod and container                               config     the administrator's settings
//! ```
//!
//! Pods and containers are the CRI's: it lends them as a [`Domain`]. Where no plugin is there, a hook costs one look at a number:
//! who calls makes messages only if [`Nri::is_active`].

#![forbid(unsafe_code)]

mod config;
mod event;
mod merge;
mod mux;
mod name;
mod nri;
mod observe;
mod owners;
mod plugin;
pub mod spec;
mod stages;
mod validator;

/// Messages.
pub use api::nri as wire;
pub use config::{Config, Validator};
pub use nri::{Domain, Identity, Nri, Pending, Snapshot};
pub use observe::{Observe, Observed};

#[doc(hidden)]
pub use mux::split;
