//! The client against a registry that lies as it is told to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fetch;
mod setup;
