//! The registry client: resolve, fetch, push, hosts, auth.

#![forbid(unsafe_code)]
