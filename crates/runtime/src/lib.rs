//! Bundles, shim processes and tasks, seen from the daemon.
//!
//! [`Runtime`] makes a bundle, executes the shim of the wanted runtime, and speaks the task service with it. It knows
//! no database: it is told what to run, and what it needs after a restart stands in the bundle.
//!
//! ```text
//!  runtime    the calls of the task service        create, delete   the two that make and remove
//!  shims      which task is where in its life       shim             one task behind its connection
//!  bundle     the directory of a task               launch           executing shims
//!  load       after a start of the daemon           death            after the end of a shim
//!  lock       one daemon per state directory       terms            when a task may be made, and who waits for it
//!  info       what a runtime says of itself         inspect          what lies about, seen from outside
//!  why        records of deaths                         output           logs that shims write, and who is attached
//!  pause      sandboxes without an image                 sandbox          sandboxes that a shim makes
//!  ttrpc      the protocol                          connect, log     sockets and FIFOs of shims
//!  endpoint   task services that others have started
//! ```

#![forbid(unsafe_code)]

mod binary;
mod bootstrap;
mod bundle;
mod connect;
mod create;
mod death;
mod delete;
mod endpoint;
mod info;
pub mod inspect;
mod key;
mod launch;
mod load;
mod lock;
mod log;
mod output;
mod pause;
mod repeats;
mod runtime;
mod sandbox;
mod shim;
mod shims;
mod terms;
pub mod ttrpc;
mod why;

pub use bundle::check_state;
pub use death::EXIT_ESTIMATED;
pub use endpoint::check_endpoint;
pub use lock::{StateLock, lock_state};
pub use output::{Attach, Attached, Input};
pub use pause::Pause;
pub use runtime::{Checkpoint, Connected, Options, Runtime, Signal, Timeouts, Update};
pub use sandbox::CreateSandbox;
pub use terms::{Awaited, Preparing, Ready, Terms, Waiting};
