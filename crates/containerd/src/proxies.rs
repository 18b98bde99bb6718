//! Plugins in other processes: snapshotters, differs, sandboxers and a content store behind a socket (`[proxy_plugins]`).
//!
//! Nothing is opened before the first call, so the daemon starts although a proxy is down; until it is up, calls that need
//! it answer `Unavailable`. A connection that was lost is made again by the next call.
//!
//! A proxy is told in whose namespace it works, as upstream tells it. For a snapshotter that is the namespace at the
//! beginning of the key, which also names it when nobody is calling (garbage collection). A content store is one for all
//! namespaces here, and works in [`EVERYBODY`]'s. Leases are ours and are not passed on.

mod differs;
mod sandboxers;
mod snapshotter;

use std::sync::Arc;

use content::Store;
use remote::{Connection, RemoteStore};
use types::{Error, Result, Scope};

pub use differs::Differs;
pub use sandboxers::Sandboxers;
pub use snapshotter::ProxySnapshotter;

use crate::config::{Proxy, ProxyKind};

/// The namespace of calls that are made for nobody in particular.
const EVERYBODY: &str = "default";

/// The channel to a proxy.
fn connect(proxy: &Proxy) -> Result<Connection> {
    Connection::open(&proxy.address, in_namespace(EVERYBODY)?)
}

fn in_namespace(name: &str) -> Result<Scope> {
    Ok(Scope { namespace: name.parse()?, lease: None })
}

/// The content store that takes the place of ours, if there is one.
pub fn content<'a>(proxies: impl Iterator<Item = &'a Proxy>) -> Result<Option<Arc<dyn Store>>> {
    let mut stores = proxies.filter(|proxy| proxy.kind == ProxyKind::Content);
    match (stores.next(), stores.next()) {
        (None, _) => Ok(None),
        (Some(proxy), None) => Ok(Some(Arc::new(RemoteStore::new(&connect(proxy)?)))),
        (Some(first), Some(second)) => Err(Error::precondition(format!(
            "there can be one content store, not both {} and {}: disable one of them",
            first.uri(),
            second.uri()
        ))),
    }
}
