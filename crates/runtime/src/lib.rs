//! Bundles, shim processes and tasks, seen from the daemon.

#![forbid(unsafe_code)]

pub mod ttrpc;
