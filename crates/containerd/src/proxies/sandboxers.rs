//! Sandboxers in other processes, by name. Each call is on behalf of its caller's namespace.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use remote::{Connection, RemoteController};
use types::{Namespace, Result, Scope};

use super::connect;
use crate::config::ProxyKind;
use crate::plugins::Plugins;

/// The sandboxers of the daemon. Cloning shares them, and their channels.
#[derive(Clone)]
pub struct Sandboxers {
    by_name: Arc<BTreeMap<String, (Connection, PathBuf)>>,
    patience: Duration,
}

impl Sandboxers {
    /// Those that are configured. Nothing is opened yet. An answer that takes longer than `patience` is none.
    pub fn new(plugins: &Plugins, patience: Duration) -> Result<Self> {
        let proxies = plugins.proxies(ProxyKind::Sandboxer).into_iter();
        let by_name = proxies.map(|proxy| Ok((proxy.name.clone(), (connect(proxy)?, proxy.address.clone()))));
        Ok(Self { by_name: Arc::new(by_name.collect::<Result<_>>()?), patience })
    }

    /// The one that is called so, if there is one.
    pub fn named(&self, name: &str, namespace: &Namespace) -> Result<Option<RemoteController>> {
        let Some((connection, address)) = self.by_name.get(name) else { return Ok(None) };
        let connection = connection.with_scope(Scope::new(namespace.clone()))?;
        Ok(Some(RemoteController::new(&connection, name, address, self.patience)))
    }

    /// All of them.
    pub fn all(&self, namespace: &Namespace) -> Result<BTreeMap<String, RemoteController>> {
        let mut all = BTreeMap::new();
        for name in self.by_name.keys() {
            all.extend(self.named(name, namespace)?.map(|found| (name.clone(), found)));
        }
        Ok(all)
    }
}
