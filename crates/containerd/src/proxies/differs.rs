//! Who applies and compares layers, in the order in which they are asked: the first that does not answer `Unimplemented`
//! has done it.

use std::sync::Arc;

use async_trait::async_trait;
use content::Store;
use diff::applier::{Applied, Applier, ApplyOptions};
use diff::compare::WalkingDiffer;
use diff::differ::{CompareOptions, Differ};
use diff::walking::WalkingApplier;
use remote::{Connection, RemoteApplier, RemoteDiffer};
use types::mount::Mount;
use types::oci::Descriptor;
use types::{Class, Error, Result, Scope};

use super::connect;
use crate::config::Proxy;

/// The differs of the daemon. Cloning shares them.
#[derive(Clone)]
pub struct Differs(Arc<[Source]>);

enum Source {
    /// The one in this process.
    Walking,
    /// A proxy plugin.
    Remote(Connection),
}

impl Differs {
    /// Those that are named, in this order. Names that nobody has are left out: whoever chose them has been told.
    pub fn new(names: &[String], proxies: &[&Proxy]) -> Result<Self> {
        let mut sources = Vec::new();
        for name in names {
            match proxies.iter().find(|proxy| proxy.name == *name) {
                Some(proxy) => sources.push(Source::Remote(connect(proxy)?)),
                None if name == "walking" => sources.push(Source::Walking),
                None => {}
            }
        }
        Ok(Self(sources.into()))
    }

    /// Whether it is the one in this process and nobody else.
    pub fn is_walking(&self) -> bool {
        matches!(self.0[..], [Source::Walking])
    }

    /// Whether there is anybody at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Extracts layers from `content`, which is what `scope` can see.
    pub fn applier(&self, content: &Arc<dyn Store>, scope: &Scope) -> Result<Arc<dyn Applier>> {
        if self.is_walking() {
            return Ok(Arc::new(WalkingApplier::new(Arc::clone(content))));
        }
        let each = self.0.iter().map(|source| -> Result<Arc<dyn Applier>> {
            Ok(match source {
                Source::Walking => Arc::new(WalkingApplier::new(Arc::clone(content))),
                Source::Remote(connection) => Arc::new(RemoteApplier::new(&told(connection, scope)?)),
            })
        });
        Ok(Arc::new(InOrder(each.collect::<Result<Vec<_>>>()?)))
    }

    /// Makes layers into `content`, which is what `scope` can see.
    pub fn differ(&self, content: &Arc<dyn Store>, scope: &Scope) -> Result<Arc<dyn Differ>> {
        if self.is_walking() {
            return Ok(Arc::new(WalkingDiffer::new(Arc::clone(content))));
        }
        let each = self.0.iter().map(|source| -> Result<Arc<dyn Differ>> {
            Ok(match source {
                Source::Walking => Arc::new(WalkingDiffer::new(Arc::clone(content))),
                Source::Remote(connection) => Arc::new(RemoteDiffer::new(&told(connection, scope)?)),
            })
        });
        Ok(Arc::new(InOrder(each.collect::<Result<Vec<_>>>()?)))
    }
}

/// The channel on behalf of the caller's namespace.
fn told(connection: &Connection, scope: &Scope) -> Result<Connection> {
    connection.with_scope(Scope { lease: None, ..scope.clone() })
}

struct InOrder<T: ?Sized>(Vec<Arc<T>>);

fn nobody() -> Error {
    Error::unimplemented("no differ is configured: not implemented")
}

#[async_trait]
impl Applier for InOrder<dyn Applier> {
    async fn apply(&self, layer: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied> {
        let mut last = Err(nobody());
        for applier in &self.0 {
            last = applier.apply(layer, mounts, options.clone()).await;
            if !last.as_ref().is_err_and(|error| error.class() == Class::Unimplemented) {
                break;
            }
        }
        last
    }
}

#[async_trait]
impl Differ for InOrder<dyn Differ> {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let mut last = Err(nobody());
        for differ in &self.0 {
            last = differ.compare(lower, upper, options.clone()).await;
            if !last.as_ref().is_err_and(|error| error.class() == Class::Unimplemented) {
                break;
            }
        }
        last
    }
}
