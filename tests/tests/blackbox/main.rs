//! containerd from outside: one module for each behaviour.
//!
//! The same tests run against this project's programs and against upstream's; see `containerd_tests::binaries`.

mod exit;
mod run;
