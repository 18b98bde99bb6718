//! The namespaced database: who has what, under which name, with which labels, and who refers to it.
//!
//! One [`Db`] per root. Records (namespaces, images, containers, sandboxes, leases) live here and nowhere else; blobs and
//! snapshots live in their stores, and this crate shows each namespace its own part of them through the same two
//! contracts, [`Store`](::content::Store) and [`Snapshotter`](::snapshots::Snapshotter).
//!
//! - Mutations are `async` and answered only after they are durable. One thread writes; what queues up while it
//!   syncs is committed together (see `writer`). A mutation that was queued happens, even if its caller goes away.
//! - Reads are synchronous, take microseconds, see one consistent version and never wait for a writer.
//! - A root that is not ours is never touched (see [`Db::check_root`]).
//!
//! What stands where is drawn in `schema`; why it is built like this is told in `docs/decisions/0001-database.md`.
//! What nothing refers to any more is removed by [`Db::collect`] (see `gc`); when to, is its caller's to say ([`Changes`]).

#![forbid(unsafe_code)]

mod barrier;
mod changes;
mod containers;
mod content;
mod db;
mod extensions;
mod file;
mod gc;
mod images;
mod leases;
mod namespaces;
mod record;
mod recover;
mod root;
mod sandboxes;
mod schema;
mod snapshots;
mod storage;
mod tx;
mod weak;
mod writer;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod random_operations;

pub use changes::{Changed, Changes};
pub use containers::Containers;
pub use db::{Db, Options};
pub use gc::{Collected, Collectible, Item, Observer, Statistics};
pub use images::Images;
pub use leases::Leases;
pub use namespaces::Namespaces;
pub use root::RootLock;
pub use sandboxes::Sandboxes;
pub use weak::Weak;
