//! A snapshotter in another process, as the metadata store sees it.

use async_trait::async_trait;
use remote::{Connection, RemoteSnapshotter};
use snapshots::Snapshotter;
use snapshots::shift::Owners;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Usage};
use types::{Labels, Result};

use super::{EVERYBODY, connect, in_namespace};
use crate::config::Proxy;

/// The snapshotter of a proxy plugin.
pub struct ProxySnapshotter {
    connection: Connection,
    name: String,
    rebases: bool,
    owners: Owners,
}

impl ProxySnapshotter {
    /// The one that `proxy` is. Nothing is opened yet.
    pub fn new(proxy: &Proxy) -> Result<Self> {
        Ok(Self {
            connection: connect(proxy)?,
            name: proxy.name.clone(),
            rebases: proxy.capabilities.iter().any(|capability| capability == "rebase"),
            owners: Owners::of(&proxy.capabilities),
        })
    }

    /// The snapshotter on behalf of the namespace that `key` begins with.
    fn of(&self, key: &str) -> Result<RemoteSnapshotter> {
        let namespace = match key.split_once('/') {
            Some((namespace, rest)) if rest.contains('/') => namespace,
            _ => EVERYBODY,
        };
        let connection = self.connection.with_scope(in_namespace(namespace)?)?;
        Ok(RemoteSnapshotter::new(&connection, self.name.as_str()))
    }
}

#[async_trait]
impl Snapshotter for ProxySnapshotter {
    async fn stat(&self, key: &str) -> Result<Info> {
        self.of(key)?.stat(key).await
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        self.of(&info.name)?.update(info, fields).await
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        self.of(key)?.usage(key).await
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.of(key)?.mounts(key).await
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.of(key)?.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.of(key)?.view(key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        self.of(key)?.commit(name, key, parent, labels).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.of(key)?.remove(key).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        self.of("")?.walk(filters, each).await
    }

    async fn cleanup(&self) -> Result<()> {
        self.of("")?.cleanup().await
    }

    fn can_rebase(&self) -> bool {
        self.rebases
    }

    fn owners(&self) -> Owners {
        self.owners
    }
}
