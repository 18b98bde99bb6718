//! containerd, the daemon.

#![forbid(unsafe_code)]

fn main() {}
