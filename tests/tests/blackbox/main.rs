//! containerd from outside: one module for each behaviour.
//!
//! The same tests run against this project's programs and against upstream's; see `containerd_tests::binaries`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod away;
mod bad_archive;
mod bulk;
mod check;
mod client;
mod content;
mod control;
mod damage;
mod disk;
mod docker_registry;
mod events;
mod exec;
mod exit;
mod export;
mod figures;
mod hung_create;
mod hung_shim;
mod idle;
mod import;
mod interrupted;
mod leases;
mod mixed;
mod namespaces;
mod network;
mod ownership;
mod pipes;
mod pull;
mod pull_visible;
mod push;
mod registry_lies;
mod registry_limits;
mod registry_tls;
mod restart;
mod restart_monitor;
mod run;
mod shims_upgrade;
mod skopeo;
mod snapshots;
mod terminal;
mod transfer;
mod under_load;
mod why;
