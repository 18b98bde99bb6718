//! Blobs by digest: the Store contract and the local store.

#![forbid(unsafe_code)]

pub mod store;

pub use store::{Reader, Store, Writer, WriterOptions};
