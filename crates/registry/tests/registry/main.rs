//! The client against a registry that lies as it is told to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod environment;
mod explain;
mod fetch;
mod hosts;
mod lies;

mod push;
mod redirects;
mod referrers;
mod setup;
mod tls;
mod trace;
mod waits;
