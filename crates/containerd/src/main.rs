//! containerd, the daemon.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod logging;

fn main() {}
