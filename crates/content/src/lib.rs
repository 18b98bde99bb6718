//! Blobs by digest: the Store contract and the local store.

#![forbid(unsafe_code)]

mod blocking;
pub mod local;
pub mod locks;
pub mod store;
pub mod testsuite;

pub use store::{Reader, Store, Writer, WriterOptions};
