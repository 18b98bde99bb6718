//! Calls of the OCI runtime: which command, what it said, and how that reads as an error.
//!
//! runc by default, or what `BinaryName` names. A call is a child process; this module knows what to execute and what its
//! end means, the driver knows when.

mod control;
pub mod external;
mod failure;

pub use control::{make_work, tidy_checkpoint};
pub use external::{Run, Runtime, Streams, Task, is_crun};
pub use failure::Failure;
