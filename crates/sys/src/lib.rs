//! Linux, behind safe functions: the only crate that may contain `unsafe` code (no C, links statically).
//!
//! `rustix` gives most of it safely; what it lacks is here, one module a subject. Unsafe code is denied by default and
//! allowed module by module, each block with the reason why it holds.

#![deny(unsafe_code)]

pub mod apparmor;
pub mod cgroup;
pub mod devices;
pub mod environment;
pub mod epoll;
pub mod fifo;
pub mod fs;
pub mod handover;
pub mod kernel;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod reaper;
pub mod shims;
