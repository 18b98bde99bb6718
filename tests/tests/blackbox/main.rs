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
mod logs;
mod mixed;
mod namespaces;
mod network;
mod nri;
mod ownership;
mod pipes;
mod pod_confinement;
mod pod_containers;
mod pod_ends;
mod pod_faults;
mod pod_images;
mod pod_insides;
mod pod_lists;
mod pod_networks;
mod pod_sandboxers;
mod pod_selinux;
mod pod_settings;
mod pod_stats;
mod pod_tcp;
mod pod_views;
mod pods;
mod pull;
mod pull_visible;
mod push;
mod registry_lies;
mod registry_limits;
mod registry_tls;
mod restart;
mod restart_monitor;
mod run;
mod sandboxes;
mod shims_upgrade;
mod skopeo;
mod snapshots;
mod streaming;
mod terminal;
mod transfer;
mod under_load;
mod why;
