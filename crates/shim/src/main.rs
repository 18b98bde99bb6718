//! containerd-shim-runc-v2.

#![forbid(unsafe_code)]

fn main() {}
